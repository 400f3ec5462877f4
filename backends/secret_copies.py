"""Ending a value for good, and never the last copy of one that counts.

A value that was wrapped anew lies under two numbers for a moment. The newer one is written before
its row, and where the row took too long the collector destroyed it as nobody's: then the older one
counts again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from airavata_scheduler.backends import openbao
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.tables import Credential, CredentialVersion

_log = logging.getLogger(__name__)


def end(credential_id: str, number: int) -> bool:
    """Destroy a value whose time is over; False if it counts again, for its newer copy is lost.

    Raises SecretsUnavailable, SecretsRefused.
    """
    secrets, copy = openbao.secrets(), _newer_copy(credential_id, number)
    if copy is not None and _only_older_is_held(copy, number):
        if _stand_again(copy, number):
            # Where only a standby that is behind did not tell of it.
            secrets.destroy(credential_id, [copy.number])
            _log.warning("secrets: version %d of %s counts again", number, credential_id)
        return False
    secrets.destroy(credential_id, [number])
    note_destroyed(credential_id, [number])
    return True


def note_destroyed(credential_id: str, numbers: Sequence[int]) -> None:
    """Note in the history that these values are gone."""
    CredentialVersion.update(state="destroyed", destroyed_at=now_ms()).where(
        (CredentialVersion.credential_id == credential_id)
        & CredentialVersion.number.in_(list(numbers))
    ).execute()


def _newer_copy(credential_id: str, number: int) -> CredentialVersion | None:
    """The same value, wrapped anew."""
    older = CredentialVersion.alias()
    found: CredentialVersion | None = (
        CredentialVersion.select()
        .join(
            older,
            on=(older.credential_id == CredentialVersion.credential_id)
            & (older.write_id == CredentialVersion.write_id),
        )
        .where(
            (older.credential_id == credential_id)
            & (older.number == number)
            & (CredentialVersion.number > number)
            & (CredentialVersion.state != "destroyed")
        )
        .first()
    )
    return found


def _only_older_is_held(copy: CredentialVersion, number: int) -> bool:
    secrets, path, write_id = openbao.secrets(), copy.credential_id, copy.write_id
    return not secrets.appears(path, version=copy.number, write_id=write_id) and secrets.holds(
        path, version=number, write_id=write_id
    )


def _stand_again(copy: CredentialVersion, number: int) -> bool:
    """Let the older number be what its copy is; False if that was changed meanwhile."""
    path, copies = copy.credential_id, CredentialVersion.credential_id == copy.credential_id
    with transaction():
        Credential.update(secret_version=number).where(
            (Credential.id == path)
            & (Credential.secret_version == copy.number)
            & (Credential.write_id == copy.write_id)
        ).execute()
        ended = (
            CredentialVersion.update(state="destroyed", destroyed_at=now_ms())
            .where(
                copies
                & (CredentialVersion.number == copy.number)
                & (CredentialVersion.state == copy.state)
            )
            .execute()
        )
        if ended:
            CredentialVersion.update(state=copy.state, ends_at=copy.ends_at).where(
                copies & (CredentialVersion.number == number)
            ).execute()
    return bool(ended)
