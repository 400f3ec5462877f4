"""The database's incarnation, and the grace after an outage of our side.

A database that comes back from a failover or a backup may have forgotten commits that we
acknowledged. The epoch tells agents: it changes with the server's identity (PostgreSQL: system
identifier and timeline; MySQL: `server_uuid`, MariaDB: `server_uid`, each with `server_id`) and
with an operator's `bump`. SQLite and an old MariaDB have no identity: a value in the database
stands in, and after a restore the operator must `bump`. Agents then send all they hold, and report
again what was acknowledged. No epoch comes twice, not even when a former server takes over again.

Whoever first speaks to the changed server notes it, before anything is decided there: a server that
has just taken over must not give away what agents will report again. Nothing is asked of it while
no connection is new, for a server cannot change behind a connection.

The sweeper calls `tick` every five seconds, and each process that serves agents says as often that
it is `reachable`. If the newest of either is older than 30 s, or the epoch changed, nothing expires
for the grace period: an outage of ours is not the agents' silence.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any, TypeGuard

import peewee

from airavata_scheduler.models import deployment
from airavata_scheduler.models.database import (
    ConnectionLost,
    database,
    dialect,
    execute,
    is_mariadb,
    now_ms,
    retried,
    transaction,
)

TICK_STALE_S = 30.0
OUTAGE_GRACE_S = 300.0
CACHE_S = 5.0
EPOCH_LENGTH = 12

_INCARNATION, _TOKEN, _REASON = "incarnation", "epoch_token", "epoch_reason"
_TICK, _GRACE, _IDENTITY = "sweep_tick", "grace_until", "identity"
_REACHABLE = "agents_api_tick"


# Since when the present epoch lasts (its `at`), unless it is the first one: older tasks may have
# lost commits. The value is the last sign of life before it, in milliseconds.
BEGAN = "epoch_began"
_NEWEST_DEEDS = (
    "SELECT MAX(heartbeat_at) FROM agent_sessions",
    "SELECT MAX(created_at) FROM claims",
    "SELECT created_at FROM tasks ORDER BY id DESC LIMIT 1",
)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """An epoch that was read: from which pool, after how many of its connections, and when."""

    pool: Any
    made: int
    epoch: str
    began_at: int | None  # the database's time (ms); None for the first one
    at_s: float  # monotonic


_lock = threading.Lock()
_seen: _Seen | None = None


def current() -> str:
    """The epoch: 12 characters, equal as long as nothing was forgotten.

    Read anew with every new connection to the database, and every five seconds in each process;
    `tick` and `bump` read it too.
    """
    seen = _seen
    return seen.epoch if _is_fresh(seen) else _read()


def begun_at(began_at: int | None) -> str:
    """The epoch that began then, as the database says: not one that another process has ended."""
    seen = _seen
    return seen.epoch if _is_fresh(seen) and seen.began_at == began_at else _read()


def notice() -> None:
    """See that a change of the server's identity is noted before anything is decided on it.

    Inside a transaction it is noted by that; at once where no connection is new.
    """
    if not _is_fresh(_seen):
        _read()


def _is_fresh(seen: _Seen | None) -> TypeGuard[_Seen]:
    return (
        seen is not None
        and seen.pool is database.obj
        and seen.made == database.obj.made
        and time.monotonic() - seen.at_s < CACHE_S
    )


def _read() -> str:
    global _seen  # noqa: PLW0603  the one cache of this module
    pool, made = database.obj, database.obj.made
    incarnation, is_new = _noted()
    # Before the token: what is kept must not be an epoch of before under the time of this one.
    began_at = deployment.written_at(BEGAN)
    epoch = _epoch(incarnation, deployment.read(_TOKEN))
    if not (is_new and database.in_transaction()):  # what is noted in one may be taken back
        with _lock:
            _seen = _Seen(
                pool=pool, made=made, epoch=epoch, began_at=began_at, at_s=time.monotonic()
            )
    return epoch


def _noted() -> tuple[str, bool]:
    """The server's identity, and whether it was not on record: then a new epoch begins."""
    incarnation = _incarnation()
    known = deployment.read(_INCARNATION)
    if known == incarnation:
        return incarnation, False
    with transaction():
        if known is None:
            deployment.write_once(_INCARNATION, incarnation)
        elif deployment.swap(_INCARNATION, known, incarnation):  # else another was first
            _begin()
    return incarnation, True


def _begin() -> None:
    ticks = (int(deployment.read(name) or 0) for name in (_TICK, _REACHABLE))
    last_sign = max(last_sign_before(), *ticks)  # no tick where the epoch before had not lasted
    # Random, for anything else would come back with a backup, or with a server that was in charge
    # before: agents would take it for an epoch to which they have told everything.
    deployment.write(_TOKEN, secrets.token_hex(16))
    deployment.write(BEGAN, str(last_sign), not_before=max(last_sign, _newest_deed()) + 1)
    # Whatever its clock says, no tick of the sweep was in this epoch: the next one begins a grace.
    deployment.write(_TICK, "0")


def _newest_deed() -> int:
    """The time (ms) of the newest task, claim and heartbeat.

    A server that takes over may have a clock that is behind, and all that is older than its epoch
    must look so.
    """
    return max(int(row[0] or 0) for deed in _NEWEST_DEEDS for row in execute(deed))


def last_sign_before() -> int:
    """When there was a last sign of life in the epoch before this one (ms); 0 if unknown."""
    said = deployment.read(BEGAN) or ""
    return int(said) if said.isdecimal() else 0


def _epoch(incarnation: str, token: str | None) -> str:
    # A digest: the identity of our server is nobody else's business.
    return hashlib.sha256(f"{incarnation}/{token}".encode()).hexdigest()[:EPOCH_LENGTH]


@retried
def bump(reason: str, *, grace_s: float = OUTAGE_GRACE_S) -> str:
    """Start a new epoch by hand, after a restore that the server's identity does not show.

    The new epoch. Nothing expires for `grace_s`.
    """
    with transaction():
        deployment.write(_REASON, reason)
        _begin()
        _begin_grace(grace_s)
    return _read()


@retried
def tick(*, grace_s: float = OUTAGE_GRACE_S) -> bool:
    """Note that the sweeper lives; whether a grace period began with this tick.

    It begins when the last tick is older than 30 s (we were down: agents could not reach us), when
    the agents' API has not been there for as long, when the server's identity changed, and not with
    the very first tick of an empty deployment. It goes on until `grace_s` after all is well again.
    """
    with transaction():
        _noted()
        last, now = deployment.read(_TICK), now_ms()
        away = _is_stale(last, now) or _is_stale(deployment.read(_REACHABLE), now)
        began = away and now >= int(deployment.read(_GRACE) or 0)
        if away:
            _begin_grace(grace_s)
        deployment.write(_TICK, str(now_ms()))
    _read()
    return began


@retried
def reachable() -> None:
    """Note that agents can reach the API; each process that serves them says so every 5 s."""
    deployment.write(_REACHABLE, str(now_ms()))


def _begin_grace(grace_s: float) -> None:
    deployment.write(_GRACE, str(now_ms() + round(grace_s * 1000)))


def in_grace() -> bool:
    """Whether nothing may expire now: a grace period runs, or the next tick will begin one.

    The second half matters to whoever sweeps before the first tick after an outage.
    """
    _noted()
    now, last = now_ms(), deployment.read(_TICK)
    if now < int(deployment.read(_GRACE) or 0):
        return True
    return _is_stale(last, now) or _is_stale(deployment.read(_REACHABLE), now)


def _is_stale(last_tick: str | None, now: int) -> bool:
    return last_tick is not None and now - int(last_tick) > TICK_STALE_S * 1000


def _incarnation() -> str:
    """The identity of the server that answers, as text that is not shown to anybody."""
    kind = dialect()
    if kind == "postgresql":
        return _postgresql_identity()
    if kind == "mysql":
        return _mysql_identity()
    return _stored_identity()


def _postgresql_identity() -> str:
    # The timeline of the WAL that is written now: the control file shows a promotion only later.
    rows = execute(
        "SELECT CASE WHEN NOT pg_is_in_recovery() "
        "THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END"
    )
    timeline = rows[0][0]
    if timeline is None:  # a standby that has not taken over yet: what it says may be old
        raise ConnectionLost
    try:
        with transaction():  # a savepoint where one is open: a refusal must not spoil it
            system = execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    except peewee.ProgrammingError:
        # Some managed services forbid this function to everybody.
        system = _stored_identity()
    return f"postgresql/{system}/{timeline}"


def _mysql_identity() -> str:
    name = "server_uid" if is_mariadb() else "server_uuid"
    rows = execute("SHOW GLOBAL VARIABLES WHERE variable_name IN (%s, 'server_id')", (name,))
    said = {str(row[0]): str(row[1]) for row in rows}
    # MariaDB before 10.11 has no server_uid: then as with SQLite. A server whose files were copied
    # from another's may share it; servers of one replication differ in their server_id.
    return f"{name}/{said[name]}/{said['server_id']}" if said.get(name) else _stored_identity()


def _stored_identity() -> str:
    """An identity kept in the database itself: it moves with a copy, so it shows no restore."""
    stored = deployment.read(_IDENTITY)
    if stored is None:
        stored = deployment.write_once(_IDENTITY, secrets.token_hex(16))
    return f"stored/{stored}"
