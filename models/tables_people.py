"""Who acts and what they may do: users, their logins, projects and members, the audit, grants."""

from __future__ import annotations

import peewee

from airavata_scheduler.models.fields import (
    IdField,
    Index,
    JSONField,
    Table,
    WitnessedJSONField,
    references,
)


class User(Table):
    """A person, or a service account. A user without a password has only links or tokens."""

    id = IdField(primary_key=True)
    name = peewee.CharField(255, unique=True)
    email = peewee.CharField(320, default="")
    full_name = peewee.CharField(255, default="")
    kind = peewee.CharField(16, default="person")  # person | service
    password_hash = peewee.CharField(255, null=True)  # Argon2id
    is_admin = peewee.BooleanField(default=False)
    state = peewee.CharField(16, default="active")  # active | disabled
    totp = peewee.TextField(null=True)  # the second factor's secret, wrapped by OpenBao
    totp_since = peewee.BigIntegerField(null=True)  # NULL: not confirmed yet
    totp_step = peewee.BigIntegerField(null=True)  # the last step that was used: each works once
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    updated_at = peewee.BigIntegerField()

    class Meta:
        table_name = "users"


class LoginLink(Table):
    """A one-time link: the first administrator's, or one to set a password."""

    token_hash = peewee.CharField(64, primary_key=True)  # SHA-256, hexadecimal
    user_id = IdField(null=True)
    purpose = peewee.CharField(16)  # bootstrap | password
    expires_at = peewee.BigIntegerField()
    used_at = peewee.BigIntegerField(null=True)
    created_at = peewee.BigIntegerField()

    REFERENCES = references(user_id="users")

    class Meta:
        table_name = "login_links"


class Login(Table):
    """One login of a user: a family of refresh tokens, of which the newest is valid."""

    id = IdField(primary_key=True)
    user_id = IdField()
    refresh_hash = peewee.CharField(64)
    previous_hash = peewee.CharField(64, null=True)  # seen again: the family is revoked
    rotated_at = peewee.BigIntegerField()
    generation = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    expires_at = peewee.BigIntegerField()
    revoked_at = peewee.BigIntegerField(null=True)
    method = peewee.CharField(16, default="password")  # password | link | oidc | local
    user_agent = peewee.TextField(default="")
    address = peewee.CharField(64, default="")

    INDEXES = (
        Index(name="logins_refresh_hash", columns=("refresh_hash",), unique=True),
        Index(name="logins_previous_hash", columns=("previous_hash",)),
        Index(name="logins_user_id", columns=("user_id",)),
    )
    REFERENCES = references(user_id="users")

    class Meta:
        table_name = "logins"


class Project(Table):
    """What experiments and functions belong to."""

    id = IdField(primary_key=True)
    name = peewee.CharField(255, unique=True)
    description = peewee.TextField(default="")
    owner_id = IdField()
    state = peewee.CharField(16, default="active")  # active | deleted
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    updated_at = peewee.BigIntegerField()

    REFERENCES = references(owner_id="users")

    class Meta:
        table_name = "projects"


class ProjectMember(Table):
    """A user's role in a project."""

    project_id = IdField()
    user_id = IdField()
    role = peewee.CharField(16)  # owner | admin | member | viewer
    created_at = peewee.BigIntegerField()

    INDEXES = (Index(name="project_members_user_id", columns=("user_id",)),)
    REFERENCES = references(project_id="projects", user_id="users")

    class Meta:
        table_name = "project_members"
        primary_key = peewee.CompositeKey("project_id", "user_id")


class IdempotencyKey(Table):
    """The answer that a POST got, for the same key sent again."""

    principal_id = peewee.CharField(64)
    key = peewee.CharField(255)
    request_hash = peewee.CharField(64)
    status = peewee.IntegerField(default=0)
    response = peewee.TextField(null=True)
    created_at = peewee.BigIntegerField()

    INDEXES = (Index(name="idempotency_keys_created_at", columns=("created_at",)),)

    class Meta:
        table_name = "idempotency_keys"
        primary_key = peewee.CompositeKey("principal_id", "key")


class OutboxEntry(Table):
    """A change of grants, written in the transaction that makes it, relayed to SpiceDB later.

    `payload` names relationships (`{"keys": [...]}`), not what became of them: that is looked up
    when they are relayed.
    """

    id = IdField(primary_key=True)
    kind = peewee.CharField(64)  # change | repair
    object_kind = peewee.CharField(32, default="")
    object_id = peewee.CharField(64, default="")
    revokes = peewee.BooleanField(default=False)  # something was taken away
    payload = JSONField()
    created_at = peewee.BigIntegerField()
    relayed_at = peewee.BigIntegerField(null=True)

    INDEXES = (
        Index(name="outbox_relayed_at_id", columns=("relayed_at", "id")),
        Index(
            name="outbox_waiting",
            columns=("id",),
            where="relayed_at IS NULL",
            mysql_columns=("relayed_at", "id"),
        ),
    )

    class Meta:
        table_name = "outbox"


class AuditEntry(Table):
    """Who did what to which object. Never changed, never deleted by us."""

    id = IdField(primary_key=True)
    at = peewee.BigIntegerField()
    actor_kind = peewee.CharField(16)
    actor_id = peewee.CharField(64)
    action = peewee.CharField(64)
    object_kind = peewee.CharField(32)
    object_id = peewee.CharField(255)
    project_id = IdField(null=True)
    request_id = peewee.CharField(128, default="")
    address = peewee.CharField(64, default="")
    detail = WitnessedJSONField()
    # The chain, written a moment later by one process: see models/audit_chain.py.
    seq = peewee.BigIntegerField(null=True)
    hash = peewee.CharField(64, null=True)

    INDEXES = (
        Index(name="audit_object", columns=("object_kind", "object_id", "id")),
        Index(name="audit_project_id", columns=("project_id", "id")),
        Index(name="audit_actor", columns=("actor_id", "id")),
        Index(name="audit_seq", columns=("seq",), unique=True),
        Index(
            name="audit_unsealed",
            columns=("id",),
            where="seq IS NULL",
            mysql_columns=("seq", "id"),
        ),
    )

    class Meta:
        table_name = "audit"
