"""Named values of the whole deployment, and locks by name that every replica respects.

One row each in the table `deployment`: few, small, read by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airavata_scheduler.models.database import (
    change,
    execute,
    now_ms,
    now_sql,
    skip_locked,
    transaction,
)
from airavata_scheduler.models.rows import insert_rows


def read(name: str) -> str | None:
    """The value of `name`, or None if it was never written."""
    rows = execute("SELECT value FROM deployment WHERE name = %s", (name,))
    return str(rows[0][0]) if rows else None


def write(name: str, value: str) -> None:
    """Set `name` to `value` at the database's present time."""
    sql = f"UPDATE deployment SET value = %s, at = {now_sql()} WHERE name = %s"
    if change(sql, (value, name)) == 0:
        write_once(name, value)
        change(sql, (value, name))  # another may have been first


def write_once(name: str, value: str) -> str:
    """Set `name` to `value` unless it has one; the value that it has afterwards."""
    row = (name, value, now_ms())
    insert_rows("deployment", ("name", "value", "at"), [row], on_conflict="nothing")
    return read(name) or value


@contextmanager
def only_one(name: str) -> Iterator[bool]:
    """A transaction that holds the lock `name`: True for one caller at a time, False for others.

    Nobody waits: who gets False leaves the work to the one who has it. (SQLite has one writer:
    there a second caller waits for its turn and gets True.) The lock ends with the block.
    """
    row_name = f"lock:{name}"
    sql = f"SELECT name FROM deployment WHERE name = %s{skip_locked()}"
    if not execute("SELECT 1 FROM deployment WHERE name = %s", (row_name,)):
        write_once(row_name, "")
    with transaction():
        yield bool(execute(sql, (row_name,)))
