"""Which of a driver's errors mean "again", "reconnect" or "away".

The three drivers say the same things in different words. Everything that is not named here (a
broken constraint, a mistake in SQL) is left as it is.
"""

from __future__ import annotations

import sqlite3

import peewee

from airavata_scheduler.models.errors import Unavailable

RETRY_AFTER_S = 5.0

# SQLSTATE: serialisation failure, deadlock, lock_timeout.
_PG_CONTENTION = frozenset({"40001", "40P01", "55P03"})
# Read-only transaction: after a failover we may still be connected to the old, demoted server.
_PG_LOST = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
# Statement cancelled by its timeout; no connection free; start refused.
_PG_AWAY_CODES = frozenset({"57014"})
_PG_AWAY_CLASSES = ("53", "58", "28", "3D")

# Lock wait timeout, deadlock, row changed since last read (MariaDB), NOWAIT.
_MYSQL_CONTENTION = frozenset({1205, 1213, 1020, 3572})
# Client: gone away, lost; server: shutdown, killed, network errors, idle disconnect, read-only.
_MYSQL_LOST = frozenset({0, 1053, 1158, 1159, 1160, 1161, 1290, 1836, 1927, 2006, 2013, 2055, 4031})
# Disk or table full, too many connections, access denied, no such database, statement time-outs.
_MYSQL_AWAY = frozenset(
    {1021, 1040, 1041, 1044, 1045, 1049, 1114, 1203, 1969, 2002, 2003, 2005, 3024}
)


class Contended(Unavailable):
    """The database was too busy with other writers; try again."""

    code = "database_busy"


class ConnectionLost(Unavailable):
    """The connection to the database was lost; try again."""

    code = "database_lost"


class DatabaseAway(Unavailable):
    """The database cannot be reached now; try again."""

    code = "database_away"


def translated(error: BaseException) -> Unavailable | None:
    """The Unavailable that `error` (peewee's or the driver's) means, or None for any other fault.

    The message is ours: a driver's text may contain the user name, the host or values of a row.
    """
    if isinstance(error, Unavailable):
        return error
    if type(error).__name__ == "MaxConnectionsExceeded":
        return DatabaseAway(
            "Every connection to the database is in use; try again.", retry_after_s=1.0
        )
    if not isinstance(error, peewee.PeeweeException | sqlite3.Error):
        return None
    # peewee keeps the driver's own error in front of its arguments.
    kind = _kind(getattr(error, "orig", None) or error)
    return None if kind is None else kind(retry_after_s=RETRY_AFTER_S)


def _kind(original: BaseException) -> type[Unavailable] | None:
    module = type(original).__module__.partition(".")[0]
    if module == "psycopg2":
        return _postgresql(original)
    if module == "pymysql":
        return _mysql(original)
    if module == "sqlite3":
        return _sqlite(original)
    return None


def _postgresql(original: BaseException) -> type[Unavailable] | None:
    code: str | None = getattr(original, "pgcode", None)
    name = type(original).__name__
    if code is None:
        # Without a SQLSTATE the server did not answer: the socket failed, or was closed before.
        if name == "OperationalError":
            return ConnectionLost
        closed = "closed" in str(original) or "SSL" in str(original)
        return ConnectionLost if closed and name in ("InterfaceError", "DatabaseError") else None
    if code in _PG_CONTENTION:
        return Contended
    if code in _PG_LOST or code.startswith("08"):
        return ConnectionLost
    if code in _PG_AWAY_CODES or code.startswith(_PG_AWAY_CLASSES):
        return DatabaseAway
    return None


def _mysql(original: BaseException) -> type[Unavailable] | None:
    code = original.args[0] if original.args else None
    if code in _MYSQL_CONTENTION:
        return Contended
    if code in _MYSQL_LOST:
        return ConnectionLost
    return DatabaseAway if code in _MYSQL_AWAY else None


def _sqlite(original: BaseException) -> type[Unavailable] | None:
    code = getattr(original, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF  # the upper bits of an extended result code say more than is needed
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Contended
    if primary in (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    ):
        return DatabaseAway
    return None
