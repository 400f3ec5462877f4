"""The three drivers behind one behaviour: pooled, thread-safe, UTC, READ COMMITTED, strict.

Whatever goes wrong with a connection becomes `Unavailable` here and nowhere else. Values come out
of every driver alike: ids as `str`, bytes as `bytes`, whole decimals (a SUM) as `int`.
"""

from __future__ import annotations

import select
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

import peewee
from playhouse import pool  # type: ignore[import-untyped]

from airavata_scheduler.models.database_faults import ConnectionLost, DatabaseAway, translated
from airavata_scheduler.models.database_url import DatabaseAddress

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 60
LOCK_TIMEOUT_S = 5
SQLITE_BUSY_TIMEOUT_S = 10
SQLITE_CACHE_KIB = 16384
SQLITE_WAL_RETRY_S = 0.02
POOL_WAIT_S = 10
# After a connect that took this long in vain, others fail at once for as long, one tries again.
SLOW_CONNECT_S = 1.0

_DRIVERS = ("psycopg2", "pymysql", "sqlite3")
_PG_UUID, _PG_UUID_ARRAY, _PG_BYTEA, _PG_NUMERIC = 2950, 2951, 17, 1700
_PG_BOUNDS = (
    "SELECT set_config(name, ours, false) FROM pg_settings JOIN (VALUES "
    "('statement_timeout', %(statement)s), ('lock_timeout', %(lock)s), "
    "('idle_in_transaction_session_timeout', %(statement)s)) AS bounds (name, ours) USING (name) "
    "WHERE source <> 'client' AND CAST(setting AS BIGINT) NOT BETWEEN 1 AND CAST(ours AS BIGINT)"
)
_MYSQL_MODE = ",".join(
    (
        "ANSI_QUOTES",  # "signal" is a column, as in the other dialects
        "PIPES_AS_CONCAT",
        "ONLY_FULL_GROUP_BY",
        "STRICT_ALL_TABLES",
        "NO_ZERO_IN_DATE",
        "NO_ZERO_DATE",
        "ERROR_FOR_DIVISION_BY_ZERO",
        "NO_ENGINE_SUBSTITUTION",
    )
)


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


class _Borrowed:
    """A connection that a thread has; given back when the thread ends without closing it."""

    def __init__(self, database: _Guarded, connection: object) -> None:
        self._database = database
        self._connection = connection
        self._lent = database.lending(connection)

    def __del__(self) -> None:
        # Closed and lent again meanwhile: then it is another thread's.
        if self._lent is not None and self._database.lending(self._connection) is self._lent:
            self._database._close(self._connection)


class _Guarded:
    """A mixin in front of peewee's pooled databases: every driver error passes through here."""

    _away_until_s = 0.0  # on the monotonic clock
    _abandoned: list[object]

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            unavailable = translated(error)
            if unavailable is None:
                raise
            if isinstance(unavailable, ConnectionLost) and not self.in_transaction():  # type: ignore[attr-defined]
                self.discard_connection()
            if unavailable is error:
                raise
            raise unavailable from error

    def discard_connection(self) -> None:
        """Close this thread's connection instead of giving it back to the pool, and the idle ones.

        Those lead to where this one led: to a server that is gone, or that takes no writes.
        """
        with suppress(Exception):  # a dead connection may refuse everything, and is gone anyway
            self.manual_close()  # type: ignore[attr-defined]
        self.close_idle()  # type: ignore[attr-defined]

    def abandon(self) -> None:
        """Forget every connection without closing it: after a fork they are the parent's.

        Closing would send the server a goodbye on the parent's socket, or drop its SQLite locks.
        """
        kept = [self._connections, self._in_use, self._state.conn]  # type: ignore[attr-defined]
        self._abandoned = [*getattr(self, "_abandoned", []), kept]
        self.dispose()  # type: ignore[attr-defined]

    def _connect(self) -> Any:
        if time.monotonic() < self._away_until_s:
            raise DatabaseAway(retry_after_s=SLOW_CONNECT_S)
        started_s = time.monotonic()
        try:
            return super()._connect()  # type: ignore[misc]
        except Exception as error:
            if not (isinstance(error, OSError) or type(error).__module__.startswith(_DRIVERS)):
                raise
            ended_s = time.monotonic()
            if ended_s - started_s >= SLOW_CONNECT_S:
                # Connecting is serialised: a black hole must not cost each thread a time-out.
                self._away_until_s = ended_s + SLOW_CONNECT_S
            raise DatabaseAway(retry_after_s=5.0) from error

    def lending(self, connection: object) -> object:
        """The pool's record of `connection` while a thread has it, else None."""
        return self._in_use.get(self.conn_key(connection))  # type: ignore[attr-defined]

    def connect(self, reuse_if_open: bool = False) -> bool:
        was_closed = self.is_closed()  # type: ignore[attr-defined]
        with self._translating():
            try:
                opened = bool(super().connect(reuse_if_open))  # type: ignore[misc]
            except Exception:
                if was_closed and not self.is_closed():  # type: ignore[attr-defined]
                    self.discard_connection()  # one that was not made ready may not be used
                raise
        if opened:
            state = self._state  # type: ignore[attr-defined]
            state.borrowed = _Borrowed(self, state.conn)  # goes with the thread
        return opened

    def _close(self, conn: Any, close_conn: bool = False) -> None:
        super()._close(conn, close_conn)  # type: ignore[misc]

    def _execute_cursor(self, sql: str, params: Any, **options: Any) -> Any:
        with self._translating():
            return super()._execute_cursor(sql, params, **options)  # type: ignore[misc]

    def begin(self, *args: Any) -> None:
        with self._translating():
            super().begin(*args)  # type: ignore[misc]

    def commit(self) -> None:
        with self._translating():
            super().commit()  # type: ignore[misc]

    def rollback(self) -> None:
        # A lost connection has rolled back already; the first error is the one to tell.
        with suppress(ConnectionLost), self._translating():
            if not self.is_closed():  # type: ignore[attr-defined]
                super().rollback()  # type: ignore[misc]


class _Counting:
    """A mixin behind a pool: how many connections it has made."""

    made = 0

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        self.made += 1  # the pool makes one at a time
        return connection


def _hung_up(descriptor: int) -> bool:
    """Whether the server spoke or closed while the connection idled: either way it is no use.

    One poll of the socket, in place of a round trip for each check-out.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


class _Bounded:
    """A mixin behind PostgreSQL's pool: nothing is waited for without end.

    What the role, the database or the address says stays where it is stricter than ours; what the
    address says stays in any case.
    """

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        try:
            self.bound_waits(connection)
        except Exception:
            connection.close()
            raise
        return connection

    def bound_waits(self, connection: Any) -> None:
        """Set the limits of this connection, also after a RESET."""
        ours = {"statement": STATEMENT_TIMEOUT_S, "lock": LOCK_TIMEOUT_S}
        with connection.cursor() as cursor:
            cursor.execute(_PG_BOUNDS, {name: f"{s * 1000:.0f}" for name, s in ours.items()})


class PostgreSQL(
    _Guarded,
    pool._PooledPostgresqlDatabase,  # type: ignore[misc]
    _Counting,
    _Bounded,
    peewee.PostgresqlDatabase,
):
    """PostgreSQL 14 or later by psycopg2."""

    def _add_casters(self, connection: Any) -> None:
        from psycopg2 import BINARY  # noqa: PLC0415  loaded for its own dialect only
        from psycopg2.extensions import new_array_type, new_type, register_type  # noqa: PLC0415

        uuid_text = new_type((_PG_UUID,), "UUID_TEXT", lambda value, _cursor: value)
        casters = (
            uuid_text,
            new_array_type((_PG_UUID_ARRAY,), "UUID_TEXT_ARRAY", uuid_text),
            new_type(
                (_PG_BYTEA,),
                "BYTES",
                lambda value, cursor: None if value is None else bytes(BINARY(value, cursor)),
            ),
            new_type(
                (_PG_NUMERIC,),
                "NUMBER",
                lambda value, _cursor: None if value is None else _number(Decimal(str(value))),
            ),
        )
        for caster in casters:
            register_type(caster, connection)

    def _is_closed(self, conn: Any) -> bool:
        return bool(conn.closed) or _hung_up(conn.fileno())

    def _initialize_connection(self, conn: Any) -> None:
        super()._initialize_connection(conn)
        self._add_casters(conn)


class MySQL(_Guarded, pool._PooledMySQLDatabase, _Counting, peewee.MySQLDatabase):  # type: ignore[misc]
    """MySQL 8.0.17 or later, or MariaDB 10.6 or later, by PyMySQL."""

    is_mariadb: bool | None = None  # known after the first connection

    def _connect(self) -> Any:
        return super()._connect()

    def _initialize_connection(self, conn: Any) -> None:
        super()._initialize_connection(conn)
        if getattr(conn, "airavata_ready", False):
            return
        self.is_mariadb = "mariadb" in str(conn.server_version).lower()
        collation = "utf8mb4_nopad_bin" if self.is_mariadb else "utf8mb4_0900_bin"
        with conn.cursor() as cursor:
            # The collation of the columns: a comparison with a parameter then keeps its index.
            cursor.execute(f"SET NAMES utf8mb4 COLLATE {collation}")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                f"SET SESSION sql_mode = '{_MYSQL_MODE}', time_zone = '+00:00', "
                f"innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}"
            )
        conn.airavata_ready = True

    def _is_closed(self, conn: Any) -> bool:
        return not conn.open or _hung_up(conn._sock.fileno())

    def _can_reuse(self, conn: Any) -> bool:
        from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS  # noqa: PLC0415

        if not conn.open:
            return False
        if conn.server_status & SERVER_STATUS_IN_TRANS:
            return bool(super()._can_reuse(conn))
        return True


class SQLite(_Guarded, pool._PooledSqliteDatabase, _Counting, peewee.SqliteDatabase):  # type: ignore[misc]
    """SQLite 3.35 or later in one file, in WAL mode."""

    def _set_pragmas(self, conn: sqlite3.Connection) -> None:
        # Only one process can turn a new file to WAL; the others are told "locked" at once, for the
        # busy time-out does not hold here.
        deadline_s = time.monotonic() + SQLITE_BUSY_TIMEOUT_S
        while True:
            try:
                super()._set_pragmas(conn)
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline_s:
                    raise
            time.sleep(SQLITE_WAL_RETRY_S)


def open_pool(address: DatabaseAddress, *, max_connections: int) -> PostgreSQL | MySQL | SQLite:
    """A pool for `address`; nothing is connected yet."""
    shared: dict[str, Any] = {"max_connections": max_connections, "timeout": POOL_WAIT_S}
    if address.dialect == "postgresql":
        return _postgresql(address, shared)
    if address.dialect == "mysql":
        return _mysql(address, shared)
    database = SQLite(
        address.name,
        max_connections=max_connections,
        pragmas={
            "journal_mode": "wal",
            "synchronous": "full",  # what was acknowledged survives a power loss
            "foreign_keys": 1,
            "busy_timeout": SQLITE_BUSY_TIMEOUT_S * 1000,
            "cache_size": -SQLITE_CACHE_KIB,
        },
        check_same_thread=False,  # the pool hands a connection from thread to thread
    )
    database._wait_timeout = POOL_WAIT_S  # "timeout" is SQLite's own word for its busy time-out
    return database


def _postgresql(address: DatabaseAddress, shared: dict[str, Any]) -> PostgreSQL:
    parameters = dict(address.parameters)
    settings = "-c TimeZone=UTC -c default_transaction_isolation=read\\ committed "
    parameters["options"] = settings + str(parameters.get("options", ""))
    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "airavata-scheduler",
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    return PostgreSQL(address.name, **shared, **(defaults | parameters))


def _mysql(address: DatabaseAddress, shared: dict[str, Any]) -> MySQL:
    from pymysql.constants import CLIENT, FIELD_TYPE  # noqa: PLC0415
    from pymysql.converters import conversions  # noqa: PLC0415

    def number(text: str) -> int | float:
        return _number(Decimal(text))

    return MySQL(
        address.name,
        **shared,
        **address.parameters,
        charset="utf8mb4",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=STATEMENT_TIMEOUT_S + LOCK_TIMEOUT_S,
        write_timeout=STATEMENT_TIMEOUT_S,
        # An UPDATE tells how many rows it matched, as in the other dialects, not how many changed.
        client_flag=CLIENT.FOUND_ROWS,
        conv={**conversions, FIELD_TYPE.DECIMAL: number, FIELD_TYPE.NEWDECIMAL: number},
    )
