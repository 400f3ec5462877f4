"""The tables as SQL text: what creates a database, and what `db/schema*.sql` hold.

The text is made from the tables here and nowhere else: a migrated database, a loaded file and the
models cannot differ. `make schema` writes the files again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import peewee

from airavata_scheduler.models.database import NOW_SQL
from airavata_scheduler.models.database_url import Dialect
from airavata_scheduler.models.fields import Index, Table
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.tables import TABLES

VERSION = 2  # of the schema that this text creates; migrations.py has the steps to it
INITIAL = "initial"  # the name under which a schema made in one go is recorded

_TYPES: dict[str, tuple[str, str, str]] = {
    # field type → PostgreSQL, MySQL, SQLite
    "ID": ("UUID", "CHAR(36)", "TEXT"),
    "VARCHAR": ("VARCHAR({0})", "VARCHAR({0})", "VARCHAR({0})"),
    "TEXT": ("TEXT", "LONGTEXT", "TEXT"),  # MySQL's own TEXT ends at 64 KiB
    "BLOB": ("BYTEA", "LONGBLOB", "BLOB"),
    "BIGINT": ("BIGINT", "BIGINT", "INTEGER"),
    "INT": ("INTEGER", "INTEGER", "INTEGER"),
    "SMALLINT": ("SMALLINT", "SMALLINT", "INTEGER"),
    "BOOL": ("BOOLEAN", "BOOLEAN", "BOOLEAN"),
    "DOUBLE": ("DOUBLE PRECISION", "DOUBLE", "REAL"),
}
_POSITION: dict[Dialect, int] = {"postgresql": 0, "mysql": 1, "sqlite": 2}

# Names must compare exactly: no case folding, no equal trailing blanks. The two servers spell the
# collation differently and each skips the other's comment.
_MYSQL_TABLE = (
    " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
    " /*!80017 COLLATE=utf8mb4_0900_bin */ /*M!100203 COLLATE=utf8mb4_nopad_bin */"
)
FILES: dict[Dialect, str] = {"postgresql": "schema.sql", "mysql": "schema.mysql.sql"}


def ddl(dialect: Dialect) -> str:
    """The SQL that creates the whole schema in an empty database and records its version."""
    record = (
        "INSERT INTO schema_version (version, name, applied_at) "
        f"VALUES ({VERSION}, '{INITIAL}', {NOW_SQL[dialect]})"
    )
    texts = [*statements(dialect), record]
    if dialect == "postgresql":
        # All or nothing, and psql tells a failure by its exit status.
        texts = ["\\set ON_ERROR_STOP on\nBEGIN", *texts, "COMMIT"]
    return _heading(dialect) + "".join(f"\n{text};\n" for text in texts)


def statements(dialect: Dialect, *, without: Collection[str] = ()) -> list[str]:
    """The statements that create the tables and indexes, except for the tables `without`."""
    found = []
    for table in TABLES:
        if table._meta.table_name in without:
            continue
        found.append(_create_table(table, dialect))
        if dialect != "mysql":  # there they are part of CREATE TABLE, so that a table is one step
            found += [f"CREATE {_index(index, dialect, table)}" for index in table.INDEXES]
    return found


def add_column(table: type[Table], field: peewee.Field, dialect: Dialect) -> str:
    """The statement that adds a column of `table` to a database made before there was one."""
    name = _quoted(table._meta.table_name, dialect)
    return f"ALTER TABLE {name} ADD COLUMN {_column(field, dialect)}"


def add_index(table: type[Table], index: Index, dialect: Dialect) -> str:
    """The statement that adds an index of `table` to a database made before there was one."""
    return f"CREATE {_index(index, dialect, table)}"


def column_type(field: peewee.Field, dialect: Dialect) -> str:
    """The SQL type of a column."""
    modifiers = field.get_modifiers() or []
    return _TYPES[field.field_type][_POSITION[dialect]].format(*modifiers)


def _heading(dialect: Dialect) -> str:
    how = {
        "postgresql": "psql -U airavata -d airavata_scheduler -f db/schema.sql",
        "mysql": "mysql -u airavata -p airavata_scheduler < db/schema.mysql.sql",
        "sqlite": "sqlite3 airavata.db < schema.sqlite.sql",
    }[dialect]
    lines = [
        "-- The tables of Airavata Scheduler; made from models/ by `make schema`, not edited.",
        f"-- Load it into an empty database that the user owns:  {how}",
        "-- Times (*_at) are milliseconds since the epoch, UTC, by the database's clock.",
        "-- tasks.state: " + ", ".join(f"{state.value} {state.name}" for state in TaskState),
    ]
    return "\n".join(lines) + "\n"


def _quoted(name: str, dialect: Dialect) -> str:
    # MySQL's own client does not set ANSI_QUOTES.
    return f"`{name}`" if dialect == "mysql" else f'"{name}"'


def _create_table(table: type[Table], dialect: Dialect) -> str:
    meta = table._meta
    lines = [_column(field, dialect) for field in meta.sorted_fields]
    names = ", ".join(_quoted(field.column_name, dialect) for field in _key(table))
    lines.append(f"PRIMARY KEY ({names})")
    lines += [
        f"CONSTRAINT {_quoted(f'{meta.table_name}_{field.column_name}', dialect)} "
        f"UNIQUE ({_quoted(field.column_name, dialect)})"
        for field in meta.sorted_fields
        if field.unique
    ]
    lines += [
        f"CONSTRAINT {_quoted(f'{meta.table_name}_{column}_fk', dialect)} "
        f"FOREIGN KEY ({_quoted(column, dialect)}) "
        f"REFERENCES {_quoted(target, dialect)} ({_quoted('id', dialect)})"
        for column, target in table.REFERENCES.items()
    ]
    if dialect == "mysql":
        lines += [_index(index, dialect) for index in table.INDEXES]
    body = ",\n    ".join(lines)
    ending = _MYSQL_TABLE if dialect == "mysql" else ""
    return f"CREATE TABLE {_quoted(meta.table_name, dialect)} (\n    {body}\n){ending}"


def _key(table: type[Table]) -> Sequence[peewee.Field]:
    return table._meta.get_primary_keys()  # type: ignore[no-untyped-call,no-any-return]


def _column(field: peewee.Field, dialect: Dialect) -> str:
    parts = [_quoted(field.column_name, dialect), column_type(field, dialect)]
    if not field.null:
        parts.append("NOT NULL")
    default = _default(field, dialect)
    if default is not None:
        parts.append(f"DEFAULT {default}")
    return " ".join(parts)


def _default(field: peewee.Field, dialect: Dialect) -> str | None:
    value = field.default
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str) and not (dialect == "mysql" and field.field_type == "TEXT"):
        return f"'{value}'"
    return None


def _index(index: Index, dialect: Dialect, table: type[Table] | None = None) -> str:
    """The definition of an index: `on` its table as a statement, without as part of a table."""
    columns = index.columns
    if dialect == "mysql" and index.mysql_columns:
        columns = index.mysql_columns
    terms = []
    for column in columns:
        name = column.removesuffix(" DESC")
        terms.append(_quoted(name, dialect) + column[len(name) :])
    on = "" if table is None else f" ON {_quoted(table._meta.table_name, dialect)}"
    where = f" WHERE {index.where}" if index.where and dialect != "mysql" else ""
    unique = "UNIQUE " if index.unique else ""
    return f"{unique}INDEX {_quoted(index.name, dialect)}{on} ({', '.join(terms)}){where}"
