"""The database: connecting, running SQL, transactions, the one clock.

Every other module of this room says `execute` and `transaction`. SQL is written with `%s` for a
parameter and `"quoted"` identifiers where a word is reserved, and runs on PostgreSQL, MySQL/MariaDB
and SQLite. A literal per cent sign does not belong into SQL: pass it as a parameter.
"""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import peewee

from airavata_scheduler.models.database_faults import ConnectionLost, Contended, DatabaseAway
from airavata_scheduler.models.database_url import Dialect, read_database_url
from airavata_scheduler.models.drivers import MySQL, PostgreSQL, SQLite, open_pool

__all__ = [
    "NOW_SQL",
    "ConnectionLost",
    "Contended",
    "DatabaseAway",
    "Dialect",
    "change",
    "checked_connection",
    "connect",
    "connected",
    "database",
    "dialect",
    "disconnect",
    "execute",
    "is_mariadb",
    "marks",
    "now_ms",
    "now_sql",
    "retried",
    "skip_locked",
    "transaction",
]

database = peewee.DatabaseProxy()

MAX_CONNECTIONS = 48  # API_THREADS and a few: a process that needs more says so
CONTENTION_TRIES = 8
RETRIED_FOR_S = 5.0  # no try begins later: whoever asked is told to come again instead
LOST_TRIES = 2
BACKOFF_START_S = 0.005
BACKOFF_CEILING_S = 0.5

_P = ParamSpec("_P")
_R = TypeVar("_R")

NOW_SQL: dict[Dialect, str] = {
    # statement_timestamp() is stable, so that a comparison with it can use an index, and it moves
    # on inside a long transaction, which now() does not.
    "postgresql": "CAST(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) AS BIGINT)",
    "mysql": "CAST(FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000) AS SIGNED)",
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
}


def connect(url: str, *, max_connections: int = MAX_CONNECTIONS) -> PostgreSQL | MySQL | SQLite:
    """Bind `database` to the database at `url`, and see that it answers.

    A pool that was bound before is closed. Raises ConfigurationError for a malformed address and
    Unavailable where nothing answers.
    """
    address = read_database_url(url)
    disconnect()
    opened = open_pool(address, max_connections=max_connections)
    database.initialize(opened)
    try:
        with connected():
            checked_connection()
    except DatabaseAway as error:
        # Whoever starts a program may know what the driver says; the users of its API may not.
        said = str(error.__cause__ or error.detail).strip().splitlines()
        raise DatabaseAway(
            f"The database cannot be reached: {said[0] if said else 'no answer'}",
            hint="See that the server runs, and that DATABASE_URL names it, its user and password.",
            retry_after_s=error.retry_after_s,
        ) from error
    return opened


def disconnect() -> None:
    """Close every connection of the bound pool, if there is one."""
    if database.obj is not None:
        database.close_all()


def _abandon_after_fork() -> None:
    if database.obj is not None:
        database.abandon()


os.register_at_fork(after_in_child=_abandon_after_fork)


def dialect() -> Dialect:
    """Which SQL the bound database speaks; MariaDB counts as `mysql`."""
    if isinstance(database.obj, PostgreSQL):
        return "postgresql"
    return "mysql" if isinstance(database.obj, MySQL) else "sqlite"


def is_mariadb() -> bool:
    """Whether the bound database is MariaDB, whose SQL is `mysql`'s nearly everywhere."""
    return isinstance(database.obj, MySQL) and bool(database.obj.is_mariadb)


@contextmanager
def connected() -> Iterator[None]:
    """Hold one connection for the block (a request, a pass of a loop); afterwards the pool has it.

    Inside a block that holds one already this does nothing.
    """
    opened = database.connect(reuse_if_open=True)
    try:
        yield
    finally:
        if opened and not database.is_closed():
            database.close()


def checked_connection() -> None:
    """One round trip to the server. Raises Unavailable if there is no answer."""
    execute("SELECT 1")


def execute(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement; the rows it returns (none for a statement that returns nothing).

    Raises Unavailable where the database is away or too busy; peewee's IntegrityError, DataError
    and ProgrammingError otherwise.
    """
    cursor = database.execute_sql(_spelt(sql), params)
    return cast("list[tuple[Any, ...]]", list(cursor.fetchall())) if cursor.description else []


def change(sql: str, params: Sequence[Any] = ()) -> int:
    """Run one INSERT, UPDATE or DELETE; how many rows it matched."""
    return int(database.execute_sql(_spelt(sql), params).rowcount)


def _spelt(sql: str) -> str:
    return sql.replace("%s", "?") if isinstance(database.obj, SQLite) else sql


def marks(values: Sequence[object]) -> str:
    """Placeholders for an IN list: `%s, %s, %s`. The list may not be empty."""
    return ", ".join(["%s"] * len(values))


def skip_locked() -> str:
    """What to append to a SELECT so that it locks its rows and leaves out those of others.

    SQLite has one writer: there the transaction itself is the lock.
    """
    return "" if dialect() == "sqlite" else " FOR UPDATE SKIP LOCKED"


def now_sql() -> str:
    """The SQL of the database's clock: milliseconds since the epoch as an integer.

    One value for the whole statement.
    """
    return NOW_SQL[dialect()]


def now_ms() -> int:
    """The database's clock, in milliseconds since the epoch."""
    return int(execute(f"SELECT {now_sql()}")[0][0])


@contextmanager
def transaction() -> Iterator[None]:
    """All of the block is stored, or nothing.

    SQLite takes its write lock at once, so that a transaction which reads first cannot fail when it
    writes. Inside another transaction it is a savepoint: an error undoes the inner block only,
    except for Contended and ConnectionLost, after which the outer transaction is done again.
    """
    if database.in_transaction():
        with _savepoint():
            yield
        return
    begin = ("IMMEDIATE",) if dialect() == "sqlite" else ()
    try:
        with database.transaction(*begin):
            yield
    except ConnectionLost:
        # Also one that still answers: a server that has become read-only is not ours any more.
        database.obj.discard_connection()
        raise


@contextmanager
def _savepoint() -> Iterator[None]:
    savepoint = database.savepoint()
    savepoint.__enter__()
    try:
        yield
    except (Contended, ConnectionLost):
        # The server has dropped the transaction with all its savepoints, or us.
        raise
    except BaseException:
        savepoint.rollback(False)
        raise
    savepoint.commit(False)


def retried(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run `function` again after a deadlock, a serialisation failure, a lock time-out (8 tries with
    full jitter) or a lost connection (once), but not after 5 s.

    Only for functions that may be repeated as a whole: after a lost connection nobody knows whether
    the COMMIT took place. Inside an open transaction nothing is repeated, the outermost does it.
    """

    @functools.wraps(function)
    def repeating(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if database.in_transaction():
            return function(*args, **kwargs)
        busy = lost = 0
        deadline_s = time.monotonic() + RETRIED_FOR_S
        while True:
            try:
                return function(*args, **kwargs)
            except Contended:
                busy += 1
                if busy >= CONTENTION_TRIES or time.monotonic() > deadline_s:
                    raise
            except ConnectionLost:
                lost += 1
                if lost >= LOST_TRIES or time.monotonic() > deadline_s:
                    raise
            ceiling_s = min(BACKOFF_CEILING_S, BACKOFF_START_S * 2 ** (busy + lost))
            time.sleep(random.uniform(0, ceiling_s))  # noqa: S311  jitter is no secret

    return repeating
