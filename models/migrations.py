"""The way from any older schema, or from nothing, to the one that this code speaks.

Each migration is a number, a name and a function; the table `schema_version` records those that
were applied. Number 1 is the whole schema of the first release, as `schema.py` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airavata_scheduler.models import schema
from airavata_scheduler.models.database import (
    Contended,
    change,
    connected,
    database,
    dialect,
    execute,
    now_sql,
    transaction,
)
from airavata_scheduler.models.errors import ConfigurationError, Unavailable
from airavata_scheduler.models.fields import Table
from airavata_scheduler.models.tables import (
    AuditEntry,
    ComputeResource,
    Login,
    OutboxEntry,
    User,
)

LOCK_NAME = "airavata_scheduler_upgrade"
PG_LOCK_KEY = 7233391540127481  # any number that nobody else takes for an advisory lock
LOCK_WAIT_S = 60  # within the time that a driver waits for an answer


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One step of the schema; a transaction around `apply` where the database has that for DDL."""

    version: int
    name: str
    apply: Callable[[], None]


def _create_all() -> None:
    # Tables can be there already where a first try was cut off (MySQL, see `_apply`).
    for statement in schema.statements(dialect(), without=database.get_tables()):
        execute(statement)


def _add_trust() -> None:
    """Groups, shares, credentials and tokens; second factors; the audit's chain; the outbox.

    What stood in the outbox is dropped: SpiceDB is filled from the rows themselves.
    """
    _create_all()
    for table in (User, Login, OutboxEntry, AuditEntry, ComputeResource):
        _complete(table)
    execute("DELETE FROM outbox WHERE object_kind = ''")


def _complete(table: type[Table]) -> None:
    """Add the columns and indexes of `table` that the database lacks."""
    name = table._meta.table_name
    columns = {column.name for column in database.get_columns(name)}
    for field in table._meta.sorted_fields:
        if field.column_name not in columns:
            execute(schema.add_column(table, field, dialect()))
    indexes = {index.name for index in database.get_indexes(name)}
    for index in table.INDEXES:
        if index.name not in indexes:
            execute(schema.add_index(table, index, dialect()))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(version=1, name=schema.INITIAL, apply=_create_all),
    Migration(version=2, name="trust", apply=_add_trust),
)


def version() -> int:
    """The schema's version in the database; 0 for an empty one."""
    if "schema_version" not in database.get_tables():
        return 0
    rows = execute("SELECT MAX(version) FROM schema_version")
    return int(rows[0][0] or 0)


def check() -> None:
    """See that the database has exactly the schema of this code.

    Raises ConfigurationError with one sentence that says what to do.
    """
    with connected():
        found = version()
    if found == 0:
        raise ConfigurationError(
            "The database is empty: run `airavata-scheduler db upgrade`, or load db/schema.sql "
            "(MySQL: db/schema.mysql.sql).",
            field="DATABASE_URL",
        )
    if found < schema.VERSION:
        raise ConfigurationError(
            f"The database has schema version {found} and this program needs {schema.VERSION}: "
            "make a backup, then run `airavata-scheduler db upgrade`.",
            field="DATABASE_URL",
        )
    _refuse_newer(found)


def _refuse_newer(found: int) -> None:
    if found > schema.VERSION:
        raise ConfigurationError(
            f"The database has schema version {found}, made by a newer program; this one knows "
            f"{schema.VERSION}. Install the newer version, or restore the backup made before the "
            "upgrade.",
            field="DATABASE_URL",
        )


def upgrade() -> list[str]:
    """Apply every migration that is missing; their names, in order (empty: nothing to do).

    Several processes may call this at once: one works, the others wait and find it done. Raises
    ConfigurationError if the database is newer than the code, Unavailable if another process holds
    the lock for longer than a minute.
    """
    with connected(), _alone():
        found = version()
        _refuse_newer(found)
        missing = [migration for migration in MIGRATIONS if migration.version > found]
        for migration in missing:
            _apply(migration)
    return [migration.name for migration in missing]


def _apply(migration: Migration) -> None:
    # MySQL commits before each DDL statement, so there a migration that was cut off stays half
    # done: its function must be repeatable.
    with transaction():
        migration.apply()
        record(migration.version, migration.name)


def record(number: int, name: str) -> None:
    """Note in the database that a migration was applied, now."""
    change(
        f"INSERT INTO schema_version (version, name, applied_at) VALUES (%s, %s, {now_sql()})",
        (number, name),
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the database's own lock for upgrades; DDL may take as long as it takes meanwhile."""
    kind = dialect()
    if kind == "sqlite":
        with transaction():  # BEGIN IMMEDIATE: the one writer
            yield
    elif kind == "mysql":
        with _mysql_lock():
            yield
    else:
        with _postgresql_lock():
            yield


@contextmanager
def _postgresql_lock() -> Iterator[None]:
    execute("SET statement_timeout = 0")
    execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
    try:
        execute("SELECT pg_advisory_lock(%s)", (PG_LOCK_KEY,))
    except Contended as error:
        raise _taken() from error
    try:
        execute("SET lock_timeout = 0")
        yield
    finally:
        execute("SELECT pg_advisory_unlock(%s)", (PG_LOCK_KEY,))
        execute("RESET statement_timeout")
        execute("RESET lock_timeout")
        database.obj.bound_waits(database.connection())


@contextmanager
def _mysql_lock() -> Iterator[None]:
    if execute("SELECT GET_LOCK(%s, %s)", (LOCK_NAME, LOCK_WAIT_S)) != [(1,)]:
        raise _taken()
    try:
        yield
    finally:
        execute("SELECT RELEASE_LOCK(%s)", (LOCK_NAME,))


def _taken() -> Unavailable:
    return Unavailable(
        "Another process is upgrading the database and has not finished; wait for it.",
        retry_after_s=30,
    )
