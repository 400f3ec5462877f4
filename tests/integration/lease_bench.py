"""The real side of the lease machine: its tables, put back at a failover and compared at each step.

Time passes by moving rows' times, never by waiting. A task's `available_at` is made its place in
the queue (a small number), or far away while it waits, so that claims are granted in a known order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.models import deployment, epoch, tables
from airavata_scheduler.models.database import change, execute, now_ms, transaction
from airavata_scheduler.models.fields import Table
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.states import TaskState
from tests.integration.lease_rules import Rules, Task
from tests.integration.world import check_counters

FAR_MS = 4_000_000_000_000  # in the year 2096: nothing that waits until then is ever claimed
MINUTES_MS = 600_000  # more than any grace

# What the calls under test write; a failover puts back all of it.
MOVING: tuple[type[Table], ...] = (
    *(tables.Deployment, tables.Agent, tables.AgentSession, tables.Claim, tables.Experiment),
    *(tables.Node, tables.Task, tables.Attempt, tables.Log, tables.Event, tables.TaskStat),
)
_TASKS = (
    "SELECT id, state, attempt, lease_id, agent_id, session_id, claim_id, failures, "
    "infra_failures, refusals, started_at, cancel_requested_at FROM tasks ORDER BY id"
)
_ATTEMPTS = "SELECT task_id, lease_id, agent_id, outcome, report_digest FROM attempts"
_SESSIONS = "SELECT id, agent_id, ended_at, end_reason, last_claim_seq FROM agent_sessions"

Saved = dict[type[Table], tuple[list[str], list[tuple[Any, ...]]]]


def save() -> Saved:
    """Every row that the calls under test may have written."""
    saved: Saved = {}
    for table in MOVING:
        columns = [column.column_name for column in table._meta.sorted_fields]
        names = ", ".join(f'"{column}"' for column in columns)
        saved[table] = columns, execute(f'SELECT {names} FROM "{table._meta.table_name}"')
    return saved


def put_back(saved: Saved) -> None:
    """Forget what was committed since."""
    with transaction():
        for table in reversed(MOVING):
            table.delete().execute()
        for table, (columns, rows) in saved.items():
            insert_rows(table._meta.table_name, columns, rows)


def minutes_pass() -> None:
    """What was made and given out so far is minutes old, and so is the epoch; no grace is left."""
    epoch.tick()
    change(
        "UPDATE tasks SET created_at = created_at - %s, leased_at = leased_at - %s",
        [MINUTES_MS, MINUTES_MS],
    )
    change("UPDATE deployment SET at = at - %s WHERE name = %s", [MINUTES_MS, epoch.BEGAN])
    deployment.write("grace_until", str(now_ms() - 1))


def fall_silent(session_id: str, order: int) -> None:
    """The session's last heartbeat is long ago; `order` says which was silent first."""
    change("UPDATE agent_sessions SET heartbeat_at = %s WHERE id = %s", [order, session_id])


@dataclass
class Queue:
    """Where each task was put in the queue."""

    put: dict[str, tuple[int, int]] = field(default_factory=dict)

    def keep_order(self, rules: Rules, since_ms: int) -> None:
        """Give the tasks that were requeued since then their place; first see that they wait."""
        now = now_ms()
        for task in rules.tasks.values():
            place = task.place, task.waits_ms
            if task.state.is_terminal or self.put.get(task.id) == place:
                continue
            available_at = execute("SELECT available_at FROM tasks WHERE id = %s", [task.id])[0][0]
            if task.id in self.put and task.waits_ms:
                earliest, latest = since_ms + task.waits_ms, now + task.waits_ms
                assert earliest <= available_at <= latest, f"{task}: {available_at - since_ms} ms"
            else:
                assert available_at <= now, f"{task} waits {available_at - now} ms"
            self.let(task)

    def let(self, task: Task) -> None:
        """Write the task's place."""
        self.put[task.id] = task.place, task.waits_ms
        change(
            "UPDATE tasks SET available_at = %s WHERE id = %s",
            [task.place + (FAR_MS if task.waits_ms else 0), task.id],
        )


def compare(rules: Rules) -> None:
    """The rows are what the reference says, and the counters are what the rows say."""
    found = {row[0]: _found(*row[1:]) for row in execute(_TASKS)}
    differing = [
        f"task {number}: {name} is {has!r}, not {should!r}"
        for number, task in enumerate(rules.tasks.values())
        for name, has, should in zip(_COMPARED, found[task.id], _wanted(task), strict=True)
        if has != should
    ]
    assert not differing, differing
    attempts = {
        (t.id, lease_id, e.agent, e.outcome, e.said is not None)
        for t in rules.tasks.values()
        for lease_id, e in t.ended.items()
    }
    ended = {(*row[:4], row[4] is not None) for row in execute(_ATTEMPTS)}
    assert ended == attempts, f"{ended}, not {attempts}"
    sessions = {(s.id, s.agent, s.ended, s.seq) for s in rules.sessions.values()}
    told = {(row[0], row[1], row[2] and row[3], row[4]) for row in execute(_SESSIONS)}
    assert told == sessions, f"{told}, not {sessions}"
    check_counters()


_COMPARED = (
    *("state", "attempt", "lease", "agent", "session", "claim", "failures", "losses", "refusals"),
    *("passed", "cancelled"),
)


def _found(state: int, *values: Any) -> tuple[object, ...]:
    *kept, started_at, cancelled_at = values
    passed = None if TaskState(state).is_terminal else started_at is not None
    return TaskState(state), *kept, passed, cancelled_at is not None


def _wanted(task: Task) -> tuple[object, ...]:
    passed = None if task.state.is_terminal else task.passed
    return (
        *(task.state, task.attempt, task.lease, task.agent, task.session, task.claim),
        *(task.failures, task.losses, task.refusals, passed, task.cancelled),
    )
