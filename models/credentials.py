"""The rows of credentials: what is known of a secret, without the secret.

The value lies in OpenBao and is written first; a row says which version of it counts. So each
function here is the second step of a deed whose first step is done, and is undone by nobody: what
OpenBao has that no row names is collected later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import peewee

from airavata_scheduler.models import outbox
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.outbox import relationship
from airavata_scheduler.models.relations import SYSTEM
from airavata_scheduler.models.tables import Credential, CredentialBinding, CredentialVersion

Reason = Literal["create", "update", "rotate", "rewrap"]
ResourceKind = Literal["compute_resource", "storage_resource"]

MAX_NAME: Final = 255


@dataclass(frozen=True, kw_only=True)
class Written:
    """A value that OpenBao has by now, and what may be known of it."""

    number: int  # the version in OpenBao
    write_id: str
    public: Mapping[str, Any]
    expires_at: int | None


def insert(
    credential_id: str,
    written: Written,
    *,
    name: str,
    kind: str,
    description: str,
    owner_id: str,
) -> None:
    """The row of a new credential. Raises Conflict if the owner has one of this name."""
    now = now_ms()
    try:
        Credential.insert(
            id=credential_id,
            name=name,
            kind=kind,
            owner_id=owner_id,
            description=description,
            public=dict(written.public),
            secret_version=written.number,
            write_id=written.write_id,
            expires_at=written.expires_at,
            created_at=now,
            updated_at=now,
        ).execute()
    except peewee.IntegrityError:
        raise name_taken(name) from None
    _add_version(credential_id, written, reason="create", user_id=owner_id, now=now)
    _changed(credential_id, owner_id, revokes=False)


def name_taken(name: str) -> Conflict:
    """The error for a name that another credential of the same owner has."""
    return Conflict(
        f"You have a credential called {name!r} already.",
        code="name_taken",
        field="name",
        hint="Choose another name, or rotate that one.",
    )


def set_value(
    row: Credential, written: Written, *, reason: Reason, user_id: str, keep_ms: int
) -> bool:
    """Let `written` be the value from now on; False if the row was changed since it was read.

    The value before may still be used for `keep_ms` milliseconds.
    """
    now = now_ms()
    changed = (
        Credential.update(
            public=dict(written.public),
            secret_version=written.number,
            write_id=written.write_id,
            expires_at=written.expires_at,
            rotated_at=now,
            updated_at=now,
            version=Credential.version + 1,
        )
        .where(
            (Credential.id == row.id)
            & (Credential.version == row.version)
            & (Credential.state == "active")
        )
        .execute()
    )
    if not changed:
        return False
    CredentialVersion.update(state="previous", ends_at=now + keep_ms).where(
        (CredentialVersion.credential_id == row.id) & (CredentialVersion.state == "current")
    ).execute()
    _add_version(row.id, written, reason=reason, user_id=user_id, now=now)
    return True


def _add_version(
    credential_id: str, written: Written, *, reason: Reason, user_id: str, now: int
) -> None:
    # An OpenBao that was restored gives a number again; the value that had it is lost.
    CredentialVersion.delete().where(
        (CredentialVersion.credential_id == credential_id)
        & (CredentialVersion.number == written.number)
    ).execute()
    CredentialVersion.insert(
        credential_id=credential_id,
        number=written.number,
        write_id=written.write_id,
        reason=reason,
        created_by=user_id,
        created_at=now,
    ).execute()


def bury(row: Credential) -> bool:
    """Turn the row into a tombstone and end every binding; False if it was changed meanwhile.

    The name is free again, and from the commit on nobody may do anything with it.
    """
    buried = (
        Credential.update(
            state="deleted",
            name=f"{row.name[: MAX_NAME - 37]}~{row.id}",
            updated_at=now_ms(),
            version=Credential.version + 1,
        )
        .where(
            (Credential.id == row.id)
            & (Credential.version == row.version)
            & (Credential.state == "active")
        )
        .execute()
    )
    if not buried:
        return False
    for binding in CredentialBinding.select().where(CredentialBinding.credential_id == row.id):
        _binding_changed(row.id, binding.resource_kind, binding.resource_id, revokes=True)
    CredentialBinding.delete().where(CredentialBinding.credential_id == row.id).execute()
    _changed(row.id, row.owner_id, revokes=True)
    return True


def bind(credential_id: str, kind: ResourceKind, resource_id: str, *, user_id: str) -> bool:
    """Bind a credential to a resource; False if it is bound already."""
    try:
        CredentialBinding.insert(
            credential_id=credential_id,
            resource_kind=kind,
            resource_id=resource_id,
            created_by=user_id,
            created_at=now_ms(),
        ).execute()
    except peewee.IntegrityError:
        return False
    _binding_changed(credential_id, kind, resource_id, revokes=False)
    return True


def is_bound(credential_id: str, resource_id: str) -> bool:
    """Whether the credential is bound to the resource."""
    return bool(
        CredentialBinding.select()
        .where(
            (CredentialBinding.credential_id == credential_id)
            & (CredentialBinding.resource_id == resource_id)
        )
        .exists()
    )


def unbind(credential_id: str, kind: ResourceKind, resource_id: str) -> bool:
    """End a binding; False if there is none."""
    deleted = (
        CredentialBinding.delete()
        .where(
            (CredentialBinding.credential_id == credential_id)
            & (CredentialBinding.resource_kind == kind)
            & (CredentialBinding.resource_id == resource_id)
        )
        .execute()
    )
    if deleted:
        _binding_changed(credential_id, kind, resource_id, revokes=True)
    return bool(deleted)


def forget_resource(kind: ResourceKind, resource_id: str) -> None:
    """End every binding of a resource that is being deleted."""
    rows = list(
        CredentialBinding.select().where(
            (CredentialBinding.resource_kind == kind)
            & (CredentialBinding.resource_id == resource_id)
        )
    )
    for row in rows:
        unbind(row.credential_id, kind, resource_id)


def _changed(credential_id: str, owner_id: str, *, revokes: bool) -> None:
    credential = ("credential", credential_id)
    keys = [
        relationship(credential, "system", SYSTEM),
        relationship(credential, "owner", ("user", owner_id)),
    ]
    outbox.append(keys, about=credential, revokes=revokes)


def _binding_changed(credential_id: str, kind: str, resource_id: str, *, revokes: bool) -> None:
    key = relationship((kind, resource_id), "credential", ("credential", credential_id))
    outbox.append([key], about=(kind, resource_id), revokes=revokes)
