"""After the transit key was rotated: every kept value is wrapped by its newest version.

A value is written again under the next number and stays what it is; only OpenBao sees it. The row
is changed when that is done, and only if it still names the value that was wrapped. So whatever
dies in between leaves everything readable, and a second run does what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from airavata_scheduler.backends import openbao, secret_copies
from airavata_scheduler.backends.openbao import SecretStoreBehind
from airavata_scheduler.models.database import execute, now_ms, transaction
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.tables import Credential, CredentialVersion

CREDENTIALS_PER_QUERY: Final = 200
_BEFORE_ALL: Final = "00000000-0000-0000-0000-000000000000"

_log = logging.getLogger(__name__)


class _Overtaken(Exception):
    """The value was replaced, or its credential deleted, while it was wrapped anew."""


@dataclass(frozen=True, kw_only=True)
class Rewrapped:
    """What a run did; `behind` are values that OpenBao does not hold as the database names them."""

    values: int = 0
    behind: int = 0

    def __add__(self, other: Rewrapped) -> Rewrapped:
        return Rewrapped(values=self.values + other.values, behind=self.behind + other.behind)


def rewrap_all(newest: int, progress: Callable[[Rewrapped], None] = lambda _: None) -> Rewrapped:
    """Rewrap the values of every credential that an older key than `newest` wraps.

    Raises SecretsUnavailable, SecretsRefused; what is not done is done by the next run.
    """
    done, behind_id = Rewrapped(), _BEFORE_ALL
    while True:
        rows = execute(
            "SELECT id FROM credentials WHERE state = 'active' AND id > %s ORDER BY id LIMIT %s",
            (behind_id, CREDENTIALS_PER_QUERY),
        )
        for (credential_id,) in rows:
            done += _rewrap(str(credential_id), newest)
            progress(done)
        if len(rows) < CREDENTIALS_PER_QUERY:
            return done
        behind_id = str(rows[-1][0])


def _rewrap(credential_id: str, newest: int) -> Rewrapped:
    """Every value of one credential that may still be used: the previous ones first."""
    versions = CredentialVersion.select().where(
        (CredentialVersion.credential_id == credential_id)
        & (CredentialVersion.state != "destroyed")
        & (CredentialVersion.ends_at.is_null() | (CredentialVersion.ends_at > now_ms()))
    )
    done = Rewrapped()
    for version in list(versions.order_by(CredentialVersion.number)):
        try:
            done += Rewrapped(values=_rewrap_version(version, newest))
        except SecretStoreBehind:
            if _is_still_there(version):
                _log.warning(
                    "secrets: %s: OpenBao does not hold version %d as the database names it",
                    credential_id,
                    version.number,
                )
                done += Rewrapped(behind=1)
    return done


def _rewrap_version(version: CredentialVersion, newest: int) -> int:
    """Rewrap one value; how many were done: 0 where it is wrapped by the newest key already."""
    secrets, path, write_id = openbao.secrets(), version.credential_id, version.write_id
    if secrets.key_version(path, version=version.number, write_id=write_id) >= newest:
        return 0
    try:
        number = secrets.rewrap(path, version=version.number, write_id=write_id)
        while _is_named(path, number):
            # An OpenBao that was restored gives a number again. Unlike a new value this is none to
            # forget the row for: it may be the one that counts, whose value is lost and refused.
            secrets.destroy(path, [number])
            number = secrets.rewrap(path, version=version.number, write_id=write_id)
        _take_over(version, number)
    except Conflict:
        return 1  # somebody writes a value at this moment: the next run sees what came of it
    except _Overtaken:
        secrets.destroy(path, [number])
        return 1
    # Else this process slept for so long that the collector took the new number for nobody's.
    return 1 if secret_copies.end(path, version.number) else _rewrap_version(version, newest)


def _is_named(credential_id: str, number: int) -> bool:
    """Whether a row has the number already."""
    return bool(
        CredentialVersion.select()
        .where(
            (CredentialVersion.credential_id == credential_id)
            & (CredentialVersion.number == number)
        )
        .exists()
    )


def _take_over(version: CredentialVersion, number: int) -> None:
    """Let the value be the one of this number, if it is still what it was, else _Overtaken.

    The former number is `previous` and has ended: whoever dies now, the collector destroys it.
    """
    now, state = now_ms(), version.state
    with transaction():
        if state == "current" and not _point_at(version, number):
            raise _Overtaken
        moved = (
            CredentialVersion.update(state="previous", ends_at=now)
            .where(
                (CredentialVersion.credential_id == version.credential_id)
                & (CredentialVersion.number == version.number)
                & (CredentialVersion.state == state)
            )
            .execute()
        )
        if not moved:
            raise _Overtaken
        CredentialVersion.insert(
            credential_id=version.credential_id,
            number=number,
            write_id=version.write_id,
            reason="rewrap",
            state=state,
            created_at=now,
            ends_at=version.ends_at,
        ).execute()


def _point_at(version: CredentialVersion, number: int) -> bool:
    """The row's own version stays: nothing that a user sees has changed."""
    return bool(
        Credential.update(secret_version=number)
        .where(
            (Credential.id == version.credential_id)
            & (Credential.state == "active")
            & (Credential.secret_version == version.number)
        )
        .execute()
    )


def _is_still_there(version: CredentialVersion) -> bool:
    """Whether the row names this value still: else it was replaced or deleted meanwhile."""
    return (
        CredentialVersion.select()
        .where(
            (CredentialVersion.credential_id == version.credential_id)
            & (CredentialVersion.number == version.number)
            & (CredentialVersion.state == version.state)
        )
        .exists()
    )
