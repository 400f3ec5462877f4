"""Rows that wait, moved in parts: held back by a pause, or ended by a cancel, a stop, a barrier."""

from __future__ import annotations

from collections.abc import Callable

from airavata_scheduler.models.counters import CounterChanges
from airavata_scheduler.models.database import change, execute, marks, now_ms, retried, transaction
from airavata_scheduler.models.settling import Settlement, settle
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.task_rows import (
    LEASED,
    TASK_COLUMNS,
    WAITING,
    TaskRow,
    for_update,
    task_row,
)
from airavata_scheduler.models.wakeups import Wakeups

PART = 500
PARTS_A_CALL = 40  # what is left then is found again by the reconciler


@retried
def _end_part(
    experiment_id: str, node_id: str | None, fresh_only: bool, state: TaskState, reason: str
) -> tuple[int, Wakeups]:
    with transaction():
        conditions, params = f"experiment_id = %s AND state IN {WAITING}", [experiment_id]
        if node_id is not None:
            conditions, params = conditions + " AND node_id = %s", [*params, node_id]
        if fresh_only:
            conditions += " AND attempt = 0"
        rows = [
            task_row(row)
            for row in execute(
                f"SELECT {TASK_COLUMNS} FROM tasks WHERE {conditions} "
                f"ORDER BY id LIMIT {PART}{for_update()}",
                params,
            )
        ]
        return len(rows), settle([_ended(row, state, reason) for row in rows], now_ms())


def _ended(row: TaskRow, state: TaskState, reason: str) -> Settlement:
    return Settlement(row=row, state=state, reason=reason)


def end_waiting(
    experiment_id: str,
    state: TaskState,
    reason: str,
    *,
    node_id: str | None = None,
    fresh_only: bool = False,
) -> Wakeups:
    """End the waiting rows of an experiment (or one node) as CANCELLED or SKIPPED, in parts.

    `fresh_only` leaves rows alone that have been tried before.
    """
    return _in_parts(lambda: _end_part(experiment_id, node_id, fresh_only, state, reason))


def _in_parts(part: Callable[[], tuple[int, Wakeups]]) -> Wakeups:
    wakeups = Wakeups()
    for _ in range(PARTS_A_CALL):
        count, woken = part()
        wakeups.merge(woken)
        if count < PART:
            break
    return wakeups


def hold_queued(experiment_id: str) -> Wakeups:
    """QUEUED → PENDING, a part at a time."""
    return _in_parts(lambda: _hold_part(experiment_id))


@retried
def _hold_part(experiment_id: str) -> tuple[int, Wakeups]:
    with transaction():
        rows = execute(
            "SELECT id, node_id FROM tasks WHERE experiment_id = %s AND state = 1 "
            f"ORDER BY id LIMIT {PART}{for_update()}",
            [experiment_id],
        )
        if rows:
            ids = [row[0] for row in rows]
            change(f"UPDATE tasks SET state = 0 WHERE id IN ({marks(ids)})", ids)
            changes = CounterChanges()
            for _, node_id in rows:
                changes.move(node_id, TaskState.QUEUED, TaskState.PENDING)
            changes.apply()
    return len(rows), Wakeups(experiments={experiment_id})


@retried
def ask_to_cancel(experiment_id: str) -> Wakeups:
    """Note on every leased row that a user wants it cancelled; the sessions that should hear it."""
    with transaction():
        rows = execute(
            "SELECT id, session_id FROM tasks WHERE experiment_id = %s "
            f"AND state IN {LEASED} AND cancel_requested_at IS NULL ORDER BY id{for_update()}",
            [experiment_id],
        )
        now = now_ms()
        for start in range(0, len(rows), PART):
            ids = [row[0] for row in rows[start : start + PART]]
            change(
                f"UPDATE tasks SET cancel_requested_at = %s WHERE id IN ({marks(ids)})", [now, *ids]
            )
    return Wakeups(sessions={row[1] for row in rows if row[1] is not None})
