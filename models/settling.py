"""Settling: leases end, and all that follows from it, in the caller's transaction.

A report, an expired session, a lease given back, a cancelled task: each decides how its tasks go on
(`Settlement`), and this module writes it: the tasks in one UPDATE, the instances that depend on
them (`foreach`), the counters, the statistics. The caller holds the tasks' locks; nodes are locked
here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from airavata_scheduler.models.counters import (
    CounterChanges,
    NodeStanding,
    lock_nodes,
    read_nodes,
)
from airavata_scheduler.models.database import execute, marks
from airavata_scheduler.models.dependents import Ended, add_dependents
from airavata_scheduler.models.node_facts import NodeFacts, facts_of
from airavata_scheduler.models.rows import update_rows
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.task_rows import TaskRow
from airavata_scheduler.models.wakeups import Wakeups

_COLUMNS = (
    "state",
    "attempt",
    "agent_id",
    "available_at",
    "failures",
    "infra_failures",
    "refusals",
    "lease_id",
    "session_id",
    "started_at",
    "finished_at",
    "reason",
)


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How one task goes on: to a final state, or back to QUEUED.

    `keep_lease` leaves the lease's name on a requeued row, by which the newest lease is recognised
    while nobody else has claimed the task.
    """

    row: TaskRow
    state: TaskState
    reason: str | None = None
    failures: int = 0  # to add
    infra_failures: int = 0  # to add
    refusals: int = 0  # to add
    delay_ms: int = 0  # before a requeued task may be claimed again
    keep_lease: bool = False


def settle(settlements: Iterable[Settlement], now: int) -> Wakeups:
    """Write the settlements; the tasks' rows must be locked. `now` is the database's clock."""
    settled = list(settlements)
    if not settled:
        return Wakeups()
    facts = facts_of(s.row.node_id for s in settled)
    changes = CounterChanges()
    if any(not s.state.is_terminal or facts[s.row.node_id].children for s in settled):
        nodes = lock_nodes(_concerned(facts.values()))
        states = _experiment_states(node.experiment_id for node in facts.values())
        settled = [_standing_settlement(s, nodes, states) for s in settled]
        ended = [
            Ended(row=s.row, state=s.state)
            for s in settled
            if s.state.is_terminal and facts[s.row.node_id].children
        ]
        computes = add_dependents(ended, nodes, states, changes, now)
    else:
        computes = set()
    _write(settled, now)
    for s in settled:
        changes.move(s.row.node_id, s.row.state, s.state)
    changes.apply()
    return after_changes(changes) | _woken(settled, computes)


def _concerned(facts: Iterable[NodeFacts]) -> set[str]:
    """The nodes of the tasks and all that hang on them by `foreach`."""
    found: set[str] = set()
    front = list(facts)
    while front:
        found |= {node.id for node in front}
        front = list(facts_of(child for node in front for child in node.children).values())
    return found


@dataclass(frozen=True)
class ExperimentStanding:
    """What an experiment's state lets its tasks do."""

    state: ExperimentState
    is_cancelled: bool
    plan: str | None


def _experiment_states(experiment_ids: Iterable[str]) -> dict[str, ExperimentStanding]:
    """Read after the nodes are locked: pause and cancel take the same locks before they commit."""
    wanted = sorted(set(experiment_ids))
    rows = execute(
        "SELECT id, state, cancel_requested_at, plan FROM experiments "
        f"WHERE id IN ({marks(wanted)})",
        wanted,
    )
    return {
        row[0]: ExperimentStanding(ExperimentState(row[1]), row[2] is not None, row[3])
        for row in rows
    }


def _standing_settlement(
    settlement: Settlement,
    nodes: dict[str, NodeStanding],
    states: dict[str, ExperimentStanding],
) -> Settlement:
    """A requeue as the experiment's state lets it be: queued, held back, or cancelled."""
    if settlement.state is not TaskState.QUEUED:
        return settlement
    row = settlement.row
    experiment = states[row.experiment_id]
    if experiment.is_cancelled or row.cancel_requested_at is not None:
        reason = settlement.reason or "cancelled"
        return replace(settlement, state=TaskState.CANCELLED, reason=reason)
    node_open = nodes[row.node_id].state is NodeState.OPEN
    if experiment.state is ExperimentState.PAUSED or not node_open:
        return replace(settlement, state=TaskState.PENDING)
    return settlement


def _write(settled: list[Settlement], now: int) -> None:
    rows = []
    for s in settled:
        row, final = s.row, s.state.is_terminal
        kept = final or s.keep_lease
        rows.append(
            (
                row.id,
                int(s.state),
                row.attempt,
                row.agent_id,
                row.available_at if final else now + s.delay_ms,
                row.failures + s.failures,
                row.infra_failures + s.infra_failures,
                row.refusals + s.refusals,
                row.lease_id if kept else None,
                row.session_id if kept else None,
                row.started_at if final else None,
                now if final else None,
                s.reason,
            )
        )
    update_rows("tasks", ["id"], _COLUMNS, rows)


def after_changes(changes: CounterChanges) -> Wakeups:
    """Which nodes want rows and which experiments may have come to an end, seen after `apply`."""
    wakeups = Wakeups()
    facts = facts_of(changes.node_ids)
    for node in read_nodes(changes.node_ids).values():
        wakeups.experiments.add(node.experiment_id)
        if facts[node.id].is_calls:
            continue
        stops = facts[node.id].stops_on_failure and node.counts["failed"] > 0
        if node.has_ended or stops:
            wakeups.finish.add(node.experiment_id)
        elif node.wants_rows():
            wakeups.expand.add(node.id)
    return wakeups


def _woken(settled: list[Settlement], computes: set[str]) -> Wakeups:
    wakeups = Wakeups(computes=set(computes))
    for s in settled:
        if s.state.is_terminal:
            wakeups.tasks.add(s.row.id)
        elif s.state is TaskState.QUEUED and s.row.compute_id is not None:
            wakeups.computes.add(s.row.compute_id)
    return wakeups
