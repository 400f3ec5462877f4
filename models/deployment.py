"""Named values of the whole deployment: one row each in the table `deployment`."""

from __future__ import annotations

from airavata_scheduler.models.database import change, execute, now_ms, now_sql
from airavata_scheduler.models.rows import insert_rows


def read(name: str) -> str | None:
    """The value of `name`, or None if it was never written."""
    rows = execute("SELECT value FROM deployment WHERE name = %s", (name,))
    return str(rows[0][0]) if rows else None


def written_at(name: str) -> int | None:
    """When `name` was written, by the database's clock (ms); None if it never was."""
    rows = execute("SELECT at FROM deployment WHERE name = %s", (name,))
    return int(rows[0][0]) if rows else None


def written_within(name: str, ms: int) -> bool:
    """Whether `name` was written in the last `ms` milliseconds, by the database's clock."""
    sql = f"SELECT 1 FROM deployment WHERE name = %s AND at > {now_sql()} - %s"
    return bool(execute(sql, (name, ms)))


def write(name: str, value: str, *, not_before: int = 0) -> None:
    """Set `name` to `value` at the database's present time, or at `not_before` (ms) if later."""
    at = max(now_ms(), not_before) if not_before else None
    sql = f"UPDATE deployment SET value = %s, at = COALESCE(%s, {now_sql()}) WHERE name = %s"
    if change(sql, (value, at, name)) == 0:
        write_once(name, value)
        change(sql, (value, at, name))  # another may have been first


def swap(name: str, before: str, after: str) -> bool:
    """Set `name` to `after` if its value is `before`; whether it was."""
    sql = f"UPDATE deployment SET value = %s, at = {now_sql()} WHERE name = %s AND value = %s"
    return change(sql, (after, name, before)) == 1


def write_once(name: str, value: str) -> str:
    """Set `name` to `value` unless it has one; the value that it has afterwards."""
    row = (name, value, now_ms())
    insert_rows("deployment", ("name", "value", "at"), [row], on_conflict="nothing")
    return read(name) or value
