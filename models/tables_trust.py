"""Trust: groups, grants, credentials, tokens of people and machines, identities from elsewhere.

Rows here (with those of users, projects and resources) are what SpiceDB's relationships are derived
from (`relations.py`). No row holds a secret: values lie in OpenBao, tokens as their digest.
"""

from __future__ import annotations

import peewee

from airavata_scheduler.models.fields import IdField, Index, JSONField, Table, references


class Group(Table):
    """Users and groups under one name. Whoever is in a group is in every group that holds it."""

    id = IdField(primary_key=True)
    name = peewee.CharField(255, unique=True)
    description = peewee.TextField(default="")
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    updated_at = peewee.BigIntegerField()

    class Meta:
        table_name = "user_groups"


class GroupMember(Table):
    """A user's role in a group, or a group inside it (always as a member)."""

    group_id = IdField()
    subject_kind = peewee.CharField(16)  # user | group
    subject_id = IdField()
    role = peewee.CharField(16)  # owner | manager | member
    created_at = peewee.BigIntegerField()

    INDEXES = (Index(name="group_members_subject", columns=("subject_id", "subject_kind")),)
    REFERENCES = references(group_id="user_groups")

    class Meta:
        table_name = "group_members"
        primary_key = peewee.CompositeKey("group_id", "subject_kind", "subject_id")


class ProjectGroup(Table):
    """A group's role in a project: the role of everybody in it."""

    project_id = IdField()
    group_id = IdField()
    role = peewee.CharField(16)  # owner | admin | member | viewer
    created_at = peewee.BigIntegerField()

    INDEXES = (Index(name="project_groups_group_id", columns=("group_id",)),)
    REFERENCES = references(project_id="projects", group_id="user_groups")

    class Meta:
        table_name = "project_groups"
        primary_key = peewee.CompositeKey("project_id", "group_id")


class Share(Table):
    """One object shared with one user or group: a resource or a credential."""

    object_kind = peewee.CharField(32)  # compute_resource | storage_resource | credential
    object_id = IdField()
    relation = peewee.CharField(16)  # operator | user, or writer | reader | revealer
    subject_kind = peewee.CharField(16)  # user | group
    subject_id = IdField()
    created_by = IdField()
    created_at = peewee.BigIntegerField()

    INDEXES = (Index(name="shares_subject", columns=("subject_id", "subject_kind")),)

    class Meta:
        table_name = "shares"
        primary_key = peewee.CompositeKey(
            "object_kind", "object_id", "relation", "subject_kind", "subject_id"
        )


class Credential(Table):
    """A secret's record. The value is version `secret_version` of its path in OpenBao."""

    id = IdField(primary_key=True)
    name = peewee.CharField(255)  # of a deleted one: with its id behind it
    kind = peewee.CharField(32)
    owner_id = IdField()
    description = peewee.TextField(default="")
    public = JSONField()  # what anybody who may see it may know: user name, fingerprint, …
    secret_version = peewee.IntegerField()
    write_id = IdField()  # stands in the secret's envelope as well: they must be equal
    state = peewee.CharField(16, default="active")  # active | deleted
    last_test = JSONField(null=True)  # {at, ok, detail, target}
    version = peewee.IntegerField(default=1)
    created_at = peewee.BigIntegerField()
    updated_at = peewee.BigIntegerField()
    rotated_at = peewee.BigIntegerField(null=True)
    expires_at = peewee.BigIntegerField(null=True)
    used_at = peewee.BigIntegerField(null=True)

    INDEXES = (
        Index(name="credentials_owner_name", columns=("owner_id", "name"), unique=True),
        Index(name="credentials_name", columns=("name",)),
    )
    REFERENCES = references(owner_id="users")

    class Meta:
        table_name = "credentials"


class CredentialVersion(Table):
    """One value that a credential had; number is the version in OpenBao."""

    credential_id = IdField()
    number = peewee.IntegerField()
    write_id = IdField()
    reason = peewee.CharField(16)  # create | update | rotate | rewrap
    state = peewee.CharField(16, default="current")  # current | previous | destroyed
    created_by = IdField(null=True)  # NULL: the operator
    created_at = peewee.BigIntegerField()
    ends_at = peewee.BigIntegerField(null=True)  # until when a previous one may still be used
    destroyed_at = peewee.BigIntegerField(null=True)

    INDEXES = (Index(name="credential_versions_ends", columns=("state", "ends_at")),)
    REFERENCES = references(credential_id="credentials")

    class Meta:
        table_name = "credential_versions"
        primary_key = peewee.CompositeKey("credential_id", "number")


class CredentialBinding(Table):
    """A credential that opens a resource, for those who may use both."""

    credential_id = IdField()
    resource_kind = peewee.CharField(32)  # compute_resource | storage_resource
    resource_id = IdField()
    created_by = IdField()
    created_at = peewee.BigIntegerField()

    INDEXES = (Index(name="credential_bindings_resource", columns=("resource_id",)),)
    REFERENCES = references(credential_id="credentials")

    class Meta:
        table_name = "credential_bindings"
        primary_key = peewee.CompositeKey("credential_id", "resource_kind", "resource_id")


class AccessToken(Table):
    """A personal access token, or one of a service account; only its digest is kept."""

    id = IdField(primary_key=True)
    user_id = IdField()
    name = peewee.CharField(255)
    token_hash = peewee.CharField(64, unique=True)
    scopes = JSONField()  # ["read", "work", …]
    created_by = IdField()
    created_at = peewee.BigIntegerField()
    expires_at = peewee.BigIntegerField()
    used_at = peewee.BigIntegerField(null=True)
    revoked_at = peewee.BigIntegerField(null=True)

    INDEXES = (Index(name="access_tokens_user_id", columns=("user_id",)),)
    REFERENCES = references(user_id="users")

    class Meta:
        table_name = "access_tokens"


class ExternalIdentity(Table):
    """A user as an OpenID provider knows them."""

    issuer = peewee.CharField(255)
    subject = peewee.CharField(255)
    user_id = IdField()
    email = peewee.CharField(320, default="")
    created_at = peewee.BigIntegerField()
    used_at = peewee.BigIntegerField()

    INDEXES = (Index(name="external_identities_user_id", columns=("user_id",)),)
    REFERENCES = references(user_id="users")

    class Meta:
        table_name = "external_identities"
        primary_key = peewee.CompositeKey("issuer", "subject")


class LoginFlow(Table):
    """A login that went to an OpenID provider and has not come back to the end."""

    state_hash = peewee.CharField(64, primary_key=True)
    redirect = peewee.TextField()  # the command's own loopback address
    challenge = peewee.CharField(128)  # of the command's PKCE verifier
    code_hash = peewee.CharField(64, null=True)  # the one-time code that the command exchanges
    user_id = IdField(null=True)
    created_at = peewee.BigIntegerField()
    expires_at = peewee.BigIntegerField()
    used_at = peewee.BigIntegerField(null=True)

    INDEXES = (
        Index(name="login_flows_code_hash", columns=("code_hash",)),
        Index(name="login_flows_expires_at", columns=("expires_at",)),
    )

    class Meta:
        table_name = "login_flows"


class RecoveryCode(Table):
    """A one-time code that stands in for the second factor; only its digest is kept."""

    user_id = IdField()
    code_hash = peewee.CharField(64)
    created_at = peewee.BigIntegerField()
    used_at = peewee.BigIntegerField(null=True)

    REFERENCES = references(user_id="users")

    class Meta:
        table_name = "recovery_codes"
        primary_key = peewee.CompositeKey("user_id", "code_hash")


class ZedToken(Table):
    """As of which moment in SpiceDB an object's relationships must be read.

    `shared` without an id stands for all objects: the newest change that concerns others as well.
    `newest` is the newest of all, `intended` the position that the relay is about to write.
    """

    object_kind = peewee.CharField(32)
    object_id = peewee.CharField(64)
    token = peewee.TextField()
    position = peewee.BigIntegerField()  # of the relay: orders tokens, which are opaque

    class Meta:
        table_name = "zed_tokens"
        primary_key = peewee.CompositeKey("object_kind", "object_id")
