"""Collecting what OpenBao holds and no row names: the remains of deeds that were cut off.

A path without a row was a creation whose process died between its two steps, or a deletion between
its two; a version without a row a rotation. A value that was just written waits for its row, so
only what is older than that can take is touched: by OpenBao's own clock, whatever the database's.

What another deployment wrote has no row here either: a mark in the engine says whose it is, and
nothing is touched in an engine that is another one's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from airavata_scheduler.backends import openbao, relay, secret_copies
from airavata_scheduler.backends.secret_values import ROW_WITHIN_S
from airavata_scheduler.models import deployment
from airavata_scheduler.models.database import execute, now_ms
from airavata_scheduler.models.errors import ConfigurationError, Conflict
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import Credential

ORPHAN_MS: Final = int(2 * ROW_WITHIN_S * 1000)
PATHS_PER_QUERY: Final = 200
CREDENTIALS_PER_RUN: Final = 200  # whose versions are looked at; the next run goes on behind them

MARK: Final = "deployment"  # the path of the mark: no credential's, for it is no id
_POSITION: Final = "secrets:collected"
_BEFORE_ALL: Final = "00000000-0000-0000-0000-000000000000"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a run took away."""

    paths: int
    versions: int


def collect() -> Collected:
    """Delete orphaned paths, destroy orphaned versions and those whose time is over.

    Raises SecretsUnavailable, SecretsRefused; what is not done is done by the next run. Raises
    ConfigurationError where the engine holds the secrets of another deployment.
    """
    _check_ours()
    secrets = openbao.secrets()
    before = secrets.now_ms() - ORPHAN_MS
    paths = sum(_collect_paths(part, before) for part in _parts(secrets.paths()))
    return Collected(paths=paths, versions=_destroy_ended() + _collect_versions(before))


def _check_ours() -> None:
    """See that the mark is this deployment's; the first one that collects makes it."""
    secrets, ours = openbao.secrets(), relay.deployment_id()
    if secrets.holds(MARK, version=1, write_id=ours):
        return
    try:
        secrets.write(MARK, {}, write_id=ours, expected=0)
    except Conflict:
        mount = secrets.server.credentials
        raise ConfigurationError(
            f"OpenBao's {mount}/ holds the secrets of another deployment: nothing was collected.",
            hint="Set OPENBAO_CREDENTIALS_PATH to an engine of this one's own. Where the database "
            f"was made anew on purpose: bao kv metadata delete -mount={mount} {MARK}",
        ) from None


def _parts(paths: Iterator[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for path in paths:
        if is_id(path):  # other things may lie in the same engine; they are none of ours
            part.append(path)
        if len(part) == PATHS_PER_QUERY:
            yield part
            part = []
    if part:
        yield part


def _collect_paths(paths: Sequence[str], before: int) -> int:
    """Delete those of `paths` that no active credential has, if they were written `before`."""
    secrets, states = openbao.secrets(), _states(paths)
    orphans = [path for path in paths if states.get(path) != "active"]
    count = 0
    for path in orphans:
        newest = max((stored.created_ms for stored in secrets.versions(path)), default=0)
        is_old = newest < before and not _states([path])  # its row may have come meanwhile
        if path in states or is_old:
            secrets.delete(path)
            _log.info("secrets: %s, which no credential has, was deleted", path)
            count += 1
    return count


def _states(ids: Sequence[str]) -> dict[str, str]:
    """The states of those credentials that have a row."""
    rows = Credential.select(Credential.id, Credential.state).where(Credential.id.in_(ids))
    return {str(row.id): str(row.state) for row in rows}


def _destroy_ended() -> int:
    """Destroy previous values whose time is over."""
    rows = execute(
        "SELECT credential_id, number FROM credential_versions "
        "WHERE state = 'previous' AND ends_at <= %s ORDER BY ends_at LIMIT %s",
        (now_ms(), CREDENTIALS_PER_RUN),
    )
    return sum(secret_copies.end(str(credential_id), int(number)) for credential_id, number in rows)


def _collect_versions(before: int) -> int:
    """Destroy versions that no row names, written `before`, of a few credentials each run."""
    behind = deployment.read(_POSITION) or ""
    found = execute(
        "SELECT id FROM credentials WHERE state = 'active' AND id > %s ORDER BY id LIMIT %s",
        (behind if is_id(behind) else _BEFORE_ALL, CREDENTIALS_PER_RUN),
    )
    deployment.write(_POSITION, str(found[-1][0]) if len(found) == CREDENTIALS_PER_RUN else "")
    return sum(_collect_versions_of(str(row[0]), before) for row in found)


def _collect_versions_of(credential_id: str, before: int) -> int:
    secrets = openbao.secrets()
    there = secrets.versions(credential_id)
    # Looked for after what OpenBao has: a row that came meanwhile is seen.
    rows = execute(
        "SELECT number FROM credential_versions WHERE credential_id = %s", (credential_id,)
    )
    known = {int(row[0]) for row in rows}
    orphans = [
        stored.version
        for stored in there
        if stored.version not in known and not stored.destroyed and stored.created_ms < before
    ]
    if orphans:
        secrets.destroy(credential_id, orphans)
        _log.info(
            "secrets: versions %s of %s, which no row names, were destroyed", orphans, credential_id
        )
    return len(orphans)
