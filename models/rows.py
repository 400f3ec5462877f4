"""Many rows in one statement, alike on every database.

PostgreSQL and SQLite join an UPDATE with a VALUES list; MySQL and MariaDB join it with SELECTs put
together by UNION ALL. The hot paths (claim, start, report) are written with these few functions,
and rows go in as tuples: no row object is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Literal

import peewee

from airavata_scheduler.models.database import change, database, dialect, transaction
from airavata_scheduler.models.schema import column_type
from airavata_scheduler.models.tables import TABLES

ROWS_PER_STATEMENT = 500

Row = Sequence[Any]


def values_table(
    table: str, columns: Sequence[str], rows: Sequence[Row], *, alias: str = "v"
) -> tuple[str, list[Any]]:
    """`rows` as a derived table to join with: `(SQL for FROM, its parameters)`.

    `columns` are columns of `table`, whose types the values take; one row at least,
    `ROWS_PER_STATEMENT` at most.
    """
    parameters = [value for row in rows for value in row]
    names = ", ".join(f'"{column}"' for column in columns)
    if dialect() == "mysql":
        first = ", ".join(f'%s AS "{column}"' for column in columns)
        rest = f" UNION ALL SELECT {_marks(len(columns))}"
        return f"(SELECT {first}{rest * (len(rows) - 1)}) AS {alias}", parameters
    lines = f", ({_marks(len(columns))})" * (len(rows) - 1)
    if dialect() == "sqlite":
        named = ", ".join(
            f'column{position} AS "{column}"' for position, column in enumerate(columns, 1)
        )
        text = f"(SELECT {named} FROM (VALUES ({_marks(len(columns))}){lines})) AS {alias}"
        return text, parameters
    # The first row's types are the list's.
    types = _types(table)
    first = ", ".join(f"CAST(%s AS {types[column]})" for column in columns)
    return f"(VALUES ({first}){lines}) AS {alias} ({names})", parameters


def update_rows(
    table: str,
    key_columns: Sequence[str],
    value_columns: Sequence[str],
    rows: Iterable[Row],
    *,
    set_sql: str = "",
    where_sql: str = "",
) -> int:
    """Give each row its own values; how many rows were matched.

    Each of `rows` holds the values of `key_columns`, then of `value_columns`. `set_sql` are further
    assignments (`"finished_at" = …`), `where_sql` a further condition; in both the table is `t`,
    the given row `v`, and neither has parameters. One statement for each `ROWS_PER_STATEMENT` rows,
    in the order of the keys, so that two writers lock in the same order.
    """
    columns = [*key_columns, *value_columns]
    matched = " AND ".join(f't."{column}" = v."{column}"' for column in key_columns)
    condition = f"{matched} AND ({where_sql})" if where_sql else matched
    # On the left side of an assignment only MySQL takes (and needs) the table's name.
    owner = "t." if dialect() == "mysql" else ""
    changes = [f'{owner}"{column}" = v."{column}"' for column in value_columns]
    assignments = ", ".join([*changes, set_sql] if set_sql else changes)
    total = 0
    for batch in _batches(rows, len(key_columns)):
        source, parameters = values_table(table, columns, batch)
        if dialect() == "mysql":
            # By the key, or a small table is read whole, and rows of others are waited for.
            whole = f'"{table}" AS t FORCE INDEX (PRIMARY)'
            sql = f"UPDATE {source} STRAIGHT_JOIN {whole} ON {matched} SET {assignments}"
            sql += f" WHERE {where_sql}" if where_sql else ""
        else:
            sql = f'UPDATE "{table}" AS t SET {assignments} FROM {source} WHERE {condition}'
        total += change(sql, parameters)
    return total


def insert_rows(
    table: str,
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    on_conflict: Literal["nothing"] | None = None,
) -> int:
    """Insert `rows`; how many are new.

    A row whose key is there already raises peewee's IntegrityError, or is left out with
    `on_conflict="nothing"`.
    """
    names = ", ".join(f'"{column}"' for column in columns)
    total = 0
    for batch in _batches(rows, 0):
        line = f"({_marks(len(columns))})"
        values = f"({names}) VALUES {line}" + f", {line}" * (len(batch) - 1)
        parameters = [value for row in batch for value in row]
        if on_conflict is None:
            total += change(f'INSERT INTO "{table}" {values}', parameters)
        elif dialect() == "mysql":
            total += _mysql_insert_new(table, values, parameters, len(batch))
        else:
            sql = f'INSERT INTO "{table}" {values} ON CONFLICT DO NOTHING'
            total += change(sql, parameters)
    return total


def _mysql_insert_new(table: str, values: str, parameters: list[Any], rows: int) -> int:
    """INSERT IGNORE, which alone counts right, without its forgiveness.

    It also turns a value that is too long or a broken reference into a warning; then there are more
    warnings than rows left out, and all is taken back.
    """
    with transaction():
        cursor = database.execute_sql(f'INSERT IGNORE INTO "{table}" {values}', parameters)
        added = int(cursor.rowcount)
        if cursor.warning_count > rows - added:
            raise peewee.DataError(f"a row for {table} breaks a rule of the table")
    return added


def insert_or_add(
    table: str, key_columns: Sequence[str], add_columns: Sequence[str], rows: Iterable[Row]
) -> None:
    """Insert counters, or add to those whose key is there already.

    Each of `rows` holds the values of `key_columns`, then the numbers to add. Rows of the same key
    are added up first.
    """
    width = len(key_columns)
    sums: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        numbers = sums.setdefault(tuple(row[:width]), [0] * len(add_columns))
        for position, value in enumerate(row[width:]):
            numbers[position] += value
    names = ", ".join(f'"{column}"' for column in [*key_columns, *add_columns])
    if dialect() == "mysql":
        # VALUES() is MariaDB's only way, and MySQL's older one.
        added = ", ".join(f'"{column}" = "{column}" + VALUES("{column}")' for column in add_columns)
        conflict = f"ON DUPLICATE KEY UPDATE {added}"
    else:
        added = ", ".join(
            f'"{column}" = "{table}"."{column}" + EXCLUDED."{column}"' for column in add_columns
        )
        keys = ", ".join(f'"{column}"' for column in key_columns)
        conflict = f"ON CONFLICT ({keys}) DO UPDATE SET {added}"
    line = f"({_marks(width + len(add_columns))})"
    for batch in _batches(((*key, *numbers) for key, numbers in sums.items()), width):
        values = line + f", {line}" * (len(batch) - 1)
        change(
            f'INSERT INTO "{table}" ({names}) VALUES {values} {conflict}',
            [value for row in batch for value in row],
        )


def _batches(rows: Iterable[Row], key_width: int) -> Iterator[list[Row]]:
    """`rows` in slices of `ROWS_PER_STATEMENT`, sorted by their first `key_width` values."""
    pending = list(rows)
    if key_width:
        pending.sort(key=lambda row: tuple(row[:key_width]))
    for start in range(0, len(pending), ROWS_PER_STATEMENT):
        yield pending[start : start + ROWS_PER_STATEMENT]


def _marks(count: int) -> str:
    return ", ".join(["%s"] * count)


@cache
def _types(table: str) -> dict[str, str]:
    """PostgreSQL's type of each column of `table`."""
    for model in TABLES:
        if model._meta.table_name == table:
            return {
                field.column_name: column_type(field, "postgresql")
                for field in model._meta.sorted_fields
            }
    raise KeyError(table)
