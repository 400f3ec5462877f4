"""Task rows as plain named tuples, and the one way to lock them: by ascending id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from airavata_scheduler.models.database import dialect, execute, marks, skip_locked
from airavata_scheduler.models.states import TaskState


class TaskRow(NamedTuple):
    """The columns that decide what may happen to a task."""

    id: str
    experiment_id: str
    node_id: str
    idx: int
    generation: int
    compute_id: str | None
    state: TaskState
    priority: int
    available_at: int
    attempt: int
    failures: int
    infra_failures: int
    refusals: int
    lease_id: str | None
    agent_id: str | None
    session_id: str | None
    claim_id: str | None
    gate_open: bool
    leased_at: int | None
    started_at: int | None
    cancel_requested_at: int | None
    created_at: int


TASK_COLUMNS = ", ".join(TaskRow._fields)
_STATE = TaskRow._fields.index("state")
_GATE_OPEN = TaskRow._fields.index("gate_open")
LEASED = "(2, 3, 4)"  # LEASED, RUNNING, FINALIZING: literal, so that partial indexes match
WAITING = "(0, 1)"  # PENDING, QUEUED


def task_row(row: Sequence[Any]) -> TaskRow:
    """The columns of `TASK_COLUMNS` as a TaskRow."""
    values = list(row)
    values[_STATE] = TaskState(values[_STATE])
    values[_GATE_OPEN] = bool(values[_GATE_OPEN])
    return TaskRow(*values)


def for_update() -> str:
    """What to append to a SELECT so that its rows are locked; SQLite has one writer anyway."""
    return "" if dialect() == "sqlite" else " FOR UPDATE"


def lock_tasks(task_ids: Iterable[str], *, leaves_locked: bool = False) -> dict[str, TaskRow]:
    """The named tasks that exist, locked in the order of their ids until the transaction ends.

    With `leaves_locked` only those that nobody else has locked; nothing is waited for.
    """
    wanted = sorted(set(task_ids))
    if not wanted:
        return {}
    lock = skip_locked() if leaves_locked else for_update()
    rows = execute(
        f"SELECT {TASK_COLUMNS} FROM tasks WHERE id IN ({marks(wanted)}) ORDER BY id{lock}",
        wanted,
    )
    return {row[0]: task_row(row) for row in rows}


def read_tasks(task_ids: Iterable[str]) -> dict[str, TaskRow]:
    """The same without locks."""
    wanted = sorted(set(task_ids))
    if not wanted:
        return {}
    rows = execute(
        f"SELECT {TASK_COLUMNS} FROM tasks WHERE id IN ({marks(wanted)})",
        wanted,
    )
    return {row[0]: task_row(row) for row in rows}
