"""Writing and reading the values of credentials, in the one order that survives a kill.

Write: the value to OpenBao, then the row. Delete: the row, then the value. Whatever dies in between
leaves something in OpenBao that no row names, and `secret_collector` finds that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from peewee import fn

from airavata_scheduler.backends import openbao
from airavata_scheduler.backends.credential_fields import Value
from airavata_scheduler.backends.openbao import OpenBao, SecretStoreBehind
from airavata_scheduler.backends.openbao_http import PAUSE_S
from airavata_scheduler.models.credentials import Written
from airavata_scheduler.models.database import ConnectionLost
from airavata_scheduler.models.errors import AiravataError, Unavailable
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import Credential, CredentialVersion

# A value without a row is collected after twice this time: by then its row was never to come.
ROW_WITHIN_S: Final = 5.0

_log = logging.getLogger(__name__)
_R = TypeVar("_R")


def write_first(credential_id: str, value: Value, store: Callable[[Written], _R]) -> _R:
    """Write the first value of a credential, then run `store`, which commits its row.

    If `store` fails the value is taken away again. Raises what OpenBao and `store` raise.
    """
    # The id is new, so nobody else writes at its path.
    return _written(
        credential_id, value, 0, store, lambda secrets, _: secrets.delete(credential_id)
    )


def write_next(credential_id: str, value: Value, store: Callable[[Written], _R]) -> _R:
    """Write another value beside the one that counts, then run `store`, which makes it count.

    Raises Conflict `secret_raced` where somebody else does so at the same moment.
    """
    return _written(
        credential_id,
        value,
        _newest(credential_id),
        store,
        lambda secrets, number: secrets.destroy(credential_id, [number]),
    )


def _newest(credential_id: str) -> int:
    """The newest version in OpenBao; a standby that is behind is given a moment.

    Not what the database says: an OpenBao that was restored goes on from where it is.
    """
    secrets, deadline = openbao.secrets(), time.monotonic() + openbao.BEHIND_FOR_S
    known = (
        CredentialVersion.select(fn.MAX(CredentialVersion.number))
        .where(CredentialVersion.credential_id == credential_id)
        .scalar()
    )
    while True:
        found = secrets.current_version(credential_id)
        if found >= (known or 0) or time.monotonic() > deadline:
            return found
        time.sleep(PAUSE_S)


def _written(
    credential_id: str,
    value: Value,
    expected: int,
    store: Callable[[Written], _R],
    take_back: Callable[[OpenBao, int], None],
) -> _R:
    secrets, write_id, began = openbao.secrets(), new_id(), time.monotonic()
    number = secrets.write(credential_id, value.secret, write_id=write_id, expected=expected)
    written = Written(
        number=number, write_id=write_id, public=value.public, expires_at=value.expires_at
    )
    try:
        if time.monotonic() - began > ROW_WITHIN_S:
            raise Unavailable("Writing the secret took too long; nothing was kept. Try again.")
        stored = store(written)
    except ConnectionLost:
        # The COMMIT may have taken place: the collector looks for the row, and takes it from there.
        raise
    except Exception:
        with suppress(AiravataError):  # what this misses is collected later
            take_back(secrets, number)
        raise
    if time.monotonic() - began > ROW_WITHIN_S and not secrets.holds(
        credential_id, version=number, write_id=write_id
    ):
        # This process slept for so long between the two that the value was collected as nobody's.
        raise SecretStoreBehind
    return stored


def read(row: Credential) -> dict[str, str]:
    """The value that counts now. Raises SecretStoreBehind, SecretsUnavailable."""
    secrets = openbao.secrets()
    try:
        return secrets.read(row.id, version=row.secret_version, write_id=row.write_id)
    except SecretStoreBehind:
        now = Credential.get_or_none(Credential.id == row.id)
        if now is None or now.secret_version == row.secret_version:
            raise
        # It was replaced or wrapped anew since the row was read.
        return secrets.read(now.id, version=now.secret_version, write_id=now.write_id)


def read_version(row: CredentialVersion) -> dict[str, str]:
    """The value of one version that has not ended yet."""
    secrets, path = openbao.secrets(), row.credential_id
    try:
        return secrets.read(path, version=row.number, write_id=row.write_id)
    except SecretStoreBehind:
        now = CredentialVersion.get_or_none(
            (CredentialVersion.credential_id == path)
            & (CredentialVersion.write_id == row.write_id)
            & (CredentialVersion.number > row.number)
            & (CredentialVersion.state != "destroyed")
        )
        if now is None:
            raise
        # It was wrapped anew since the row was read.
        return secrets.read(path, version=now.number, write_id=now.write_id)


def is_there(row: Credential) -> bool:
    """Whether OpenBao holds the value that counts now; the value is not looked at."""
    secrets = openbao.secrets()
    if secrets.holds(row.id, version=row.secret_version, write_id=row.write_id):
        return True
    now = Credential.get_or_none(Credential.id == row.id)
    return now is not None and secrets.holds(
        now.id, version=now.secret_version, write_id=now.write_id
    )


def delete(credential_id: str) -> None:
    """Delete every value of a credential whose row is a tombstone; what fails is done later."""
    try:
        openbao.secrets().delete(credential_id)
    except AiravataError as error:
        _log.warning("credential %s: its values are deleted later: %s", credential_id, error)


def destroy_ended(credential_id: str, numbers: list[int]) -> bool:
    """Destroy versions that nobody may use any more; False if that has to be done later."""
    try:
        openbao.secrets().destroy(credential_id, numbers)
    except AiravataError as error:
        _log.warning("credential %s: old values are destroyed later: %s", credential_id, error)
        return False
    return True
