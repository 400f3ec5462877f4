"""What hangs on an ended instance by `foreach`: it is queued when that succeeded, else skipped.

An instance of a `foreach` node belongs to instance `idx // own` of its parent. Its row is made in
the transaction that ends the parent, so that no dependent can be forgotten. An instance that did
not succeed skips all below it, down the chain: with a row each where they are few, else as numbers
in the counters alone.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from airavata_scheduler.models.counters import CounterChanges, NodeStanding
from airavata_scheduler.models.ids import new_ids
from airavata_scheduler.models.node_facts import NodeFacts, facts_of, node_facts
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.task_rows import TaskRow

# A node may have at most so many instances per instance of its parent: they are made in one go.
OWN_LIMIT = 1000
SKIPPED_ROWS_LIMIT = 100  # below one instance that failed; more are counted without rows

NEW_TASK_COLUMNS = (
    "id", "experiment_id", "node_id", "idx", "generation", "compute_id", "state", "priority",
    "available_at", "cpu", "ram_mb", "gpu", "gate_open", "reason", "finished_at", "created_at",
)  # fmt: skip


class Standing(Protocol):
    """What has to be known of an experiment."""

    @property
    def state(self) -> ExperimentState: ...
    @property
    def plan(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An instance that has just got its final state."""

    row: TaskRow
    state: TaskState


def add_dependents(
    ended: Iterable[Ended],
    nodes: Mapping[str, NodeStanding],
    experiments: Mapping[str, Standing],
    changes: CounterChanges,
    now: int,
) -> set[str]:
    """Queue or skip what hangs on the ended instances; the compute resources with new work.

    `nodes` holds the locked nodes of the whole `foreach` chains below.
    """
    writer = _Writer(nodes, experiments, changes, now)
    for one in ended:
        node = node_facts(one.row.node_id)
        if one.state is TaskState.COMPLETED:
            writer.queue(node, one.row)
        else:
            writer.skip(node, one)
    writer.store()
    return writer.computes


class _Writer:
    """Collects rows and counts, and writes all rows at once."""

    def __init__(
        self,
        nodes: Mapping[str, NodeStanding],
        experiments: Mapping[str, Standing],
        changes: CounterChanges,
        now: int,
    ) -> None:
        self.nodes, self.experiments = nodes, experiments
        self.changes, self.now = changes, now
        self.rows: list[tuple[object, ...]] = []
        self.taken: Counter[str] = Counter()
        self.computes: set[str] = set()

    def queue(self, node: NodeFacts, parent: TaskRow) -> None:
        """The instances of all child nodes that belong to a parent that succeeded."""
        for child in facts_of(node.children).values():
            # After a cancel or a stop the rest of the node is settled in bulk: nothing is left to
            # add.
            if not self._take(child.id, child.own):
                continue
            standing = self.nodes[child.id]
            running = self.experiments[child.experiment_id].state is ExperimentState.RUNNING
            ready = running and standing.state is NodeState.OPEN
            state = TaskState.QUEUED if ready else TaskState.PENDING
            compute_id = place(self.experiments[child.experiment_id].plan, child.name, parent)
            for idx in range(parent.idx * child.own, (parent.idx + 1) * child.own):
                # Dependents stand just before their parent's place in the queue, and so before the
                # instances that have not begun: what was started is finished first.
                self._row(child, idx, state, (compute_id, parent.priority, parent.available_at - 1))
            self.changes.add(child.id, state, child.own)
            if state is TaskState.QUEUED and compute_id is not None:
                self.computes.add(compute_id)

    def skip(self, node: NodeFacts, ended: Ended) -> None:
        """Everything below an instance that did not succeed."""
        below = list(below_instances(node, ended.row.idx, 1))
        few = sum(count for _, _, count in below) <= SKIPPED_ROWS_LIMIT
        reason = f"{node.name}[{ended.row.idx}] ended {ended.state.name}"
        for child, start, count in below:
            if not self._take(child.id, count):
                continue
            self.changes.add(child.id, TaskState.SKIPPED, count)
            if few:
                for idx in range(start, start + count):
                    self._row(child, idx, TaskState.SKIPPED, (None, 0, self.now), reason)

    def _take(self, node_id: str, count: int) -> bool:
        """Whether `count` instances of the node are still to come."""
        if self.nodes[node_id].waiting - self.taken[node_id] < count:
            return False
        self.taken[node_id] += count
        return True

    def _row(
        self,
        child: NodeFacts,
        idx: int,
        state: TaskState,
        queued: tuple[str | None, int, int],
        reason: str | None = None,
    ) -> None:
        """Note a row; `queued` is its compute resource, priority and time."""
        compute_id, priority, available_at = queued
        self.rows.append(
            (
                *(child.experiment_id, child.id, idx, self.nodes[child.id].generation, compute_id),
                *(int(state), priority, available_at, *child.needs, child.gate_open, reason),
                *(self.now if state.is_terminal else None, self.now),
            )
        )

    def store(self) -> None:
        """Insert the collected rows."""
        ids = new_ids(len(self.rows))
        insert_rows(
            "tasks",
            NEW_TASK_COLUMNS,
            [(task_id, *row) for task_id, row in zip(ids, self.rows, strict=True)],
        )


def below_instances(
    node: NodeFacts, start: int, count: int
) -> Iterable[tuple[NodeFacts, int, int]]:
    """(node, first instance, count) of what hangs on `count` instances, for all nodes below."""
    for child in facts_of(node.children).values():
        yield child, start * child.own, count * child.own
        yield from below_instances(child, start * child.own, count * child.own)


def place(plan: str | None, node: str, parent: TaskRow) -> str | None:
    """Where a dependent runs: where its parent ran and left its files, if it may run there."""
    eligible = eligible_computes(plan, node)
    if parent.compute_id in eligible or not eligible:
        return parent.compute_id
    return eligible[parent.idx % len(eligible)]


def eligible_computes(plan: str | None, node: str) -> tuple[str, ...]:
    """The ids of the compute resources that the plan found able to run a node."""
    return _eligible(plan).get(node, ()) if plan else ()


@lru_cache(maxsize=1024)
def _eligible(plan: str) -> dict[str, tuple[str, ...]]:
    by_node: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, entry in json.loads(plan).get("nodes", {}).items():
        by_node[name] = tuple(choice["compute_id"] for choice in entry["computes"])
    return dict(by_node)
