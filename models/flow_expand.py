"""Expanding: the next window of a node's instances gets rows, and finds its compute resources."""

from __future__ import annotations

from collections import Counter

from airavata_scheduler.models import epoch
from airavata_scheduler.models.counters import (
    CounterChanges,
    NodeStanding,
    lock_nodes,
    read_nodes,
    window_rows,
)
from airavata_scheduler.models.database import change, execute, marks, retried, transaction
from airavata_scheduler.models.dependents import (
    NEW_TASK_COLUMNS,
    below_instances,
    eligible_computes,
)
from airavata_scheduler.models.experiment_rows import ExperimentRow, experiment_row
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.flow_instances import next_instances
from airavata_scheduler.models.ids import new_ids
from airavata_scheduler.models.node_facts import NodeFacts, node_facts
from airavata_scheduler.models.placement import choose, usable_computes
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.task_rows import for_update
from airavata_scheduler.models.wakeups import Wakeups

PART = 1000  # rows moved in one transaction


def expand(node_id: str, *, window: int | None = None) -> Wakeups:
    """Fill a node's window: release rows that were held back, then make rows for what comes next.

    At most `window` (else SWEEP_WINDOW) rows of a node wait to be claimed, and one call makes no
    more than that, so its cost does not depend on the size of the sweep. Where there is more to do
    at once, `expand` of the answer names the node again. Repeating a call is harmless; an unknown
    node does nothing.
    """
    try:
        node = node_facts(node_id)
    except KeyError:
        return Wakeups()
    if node.is_calls:
        return _move_from_dead(node, _weights_of_calls(node))
    weights = _weights(node)
    wakeups = _release_held(node)
    wakeups.merge(_move_from_dead(node, weights))
    wakeups.merge(_make_rows(node, window or window_rows(), weights))
    return wakeups


def _weights(node: NodeFacts) -> dict[str, int]:
    """The compute resources that the plan allows, each with its cores that are there now.

    Read before any lock is taken. Where none is there, all weigh the same.
    """
    experiment = experiment_row(node.experiment_id)
    eligible = eligible_computes(experiment.plan, node.name)
    if len(eligible) < 2:
        return dict.fromkeys(eligible, 1)
    live = {c.id: c.live_cpu for c in usable_computes(experiment.project_id, eligible)}
    weights = {compute_id: live.get(compute_id, 0) for compute_id in eligible}
    return weights if any(weights.values()) else dict.fromkeys(eligible, 1)


def _weights_of_calls(node: NodeFacts) -> dict[str, int]:
    """As `_weights`; where calls may run is not planned, so it is asked anew."""
    computes = usable_computes(experiment_row(node.experiment_id).project_id)
    choices = choose(node.spec, computes)
    return {c.compute.id: c.compute.live_cpu if c.able else 0 for c in choices}


def runs(experiment: ExperimentRow) -> bool:
    """Whether new work of an experiment may be queued."""
    running = experiment.state is ExperimentState.RUNNING
    return running and experiment.cancel_requested_at is None


@retried
def _release_held(node: NodeFacts) -> Wakeups:
    """PENDING → QUEUED for a node that is open in an experiment that runs."""
    if not read_nodes([node.id])[node.id].counts["pending"]:
        return Wakeups()
    with transaction():
        rows = execute(
            "SELECT id, compute_id FROM tasks WHERE experiment_id = %s AND state = 0 "
            f"AND node_id = %s ORDER BY id LIMIT %s{for_update()}",
            [node.experiment_id, node.id, PART],
        )
        standing = lock_nodes([node.id])[node.id]
        if not rows or standing.state is not NodeState.OPEN:
            return Wakeups()
        if not runs(experiment_row(node.experiment_id)):
            return Wakeups()
        ids = [row[0] for row in rows]
        change(f"UPDATE tasks SET state = 1 WHERE id IN ({marks(ids)})", ids)
        changes = CounterChanges()
        changes.move(node.id, TaskState.PENDING, TaskState.QUEUED, len(ids))
        changes.apply()
        more = standing.counts["pending"] > len(ids)
        return Wakeups(
            computes={row[1] for row in rows if row[1] is not None},
            experiments={node.experiment_id},
            expand={node.id} if more else set(),
        )


@retried
def _move_from_dead(node: NodeFacts, weights: dict[str, int]) -> Wakeups:
    """Queued rows of resources without an agent go to the one that has most cores there.

    Not in the grace after an outage of ours: those agents may only not have been heard of yet, and
    may hold what a failover forgot.
    """
    dead = sorted(compute_id for compute_id, weight in weights.items() if not weight)
    if not dead or not any(weights.values()) or epoch.in_grace():
        return Wakeups()
    best = max(weights, key=lambda compute_id: weights[compute_id])
    with transaction():
        rows = execute(
            "SELECT id FROM tasks WHERE experiment_id = %s AND state = 1 AND node_id = %s "
            f"AND pinned = %s AND compute_id IN ({marks(dead)}) ORDER BY id LIMIT %s{for_update()}",
            [node.experiment_id, node.id, False, *dead, PART],
        )
        if not rows:
            return Wakeups()
        ids = [row[0] for row in rows]
        change(f"UPDATE tasks SET compute_id = %s WHERE id IN ({marks(ids)})", [best, *ids])
    return Wakeups(computes={best}, expand={node.id} if len(ids) == PART else set())


@retried
def _make_rows(node: NodeFacts, window: int, weights: dict[str, int]) -> Wakeups:
    with transaction():
        both = lock_nodes([node.id] + ([node.parent_id] if node.parent_id else []))
        standing = both[node.id]
        experiment = experiment_row(node.experiment_id)
        if standing.state is not NodeState.OPEN or not runs(experiment):
            return Wakeups()
        room = min(standing.room(window), standing.waiting)
        if room <= 0 or not standing.may_expand or _stopped(node):
            return Wakeups()
        parent = both.get(node.parent_id) if node.parent_id else None
        found = next_instances(node, standing, room, parent)
        computes = _insert(node, standing, found.indices, experiment, weights)
        selection = None if found.selection is None else canonical_json(found.selection)
        change(
            "UPDATE nodes SET next_index = %s, selection = %s, queued = queued + %s WHERE id = %s",
            [found.next_index, selection, len(found.indices), node.id],
        )
        left = standing.waiting - len(found.indices)
        moved = (found.next_index, found.selection) != (standing.next_index, standing.selection)
        if left and found.selection is None and found.next_index >= standing.total:
            _skip_missing(node, left)
        return Wakeups(
            computes=computes,
            experiments={node.experiment_id},
            expand={node.id} if left and moved and len(found.indices) < room else set(),
            finish=set() if found.indices else {node.experiment_id},
        )


def _skip_missing(node: NodeFacts, count: int) -> None:
    """Instances that the selection promised and that are no more: the other experiment changed."""
    if node.parent_id is not None:
        return  # these are still to come from their parents
    changes = CounterChanges()
    changes.add(node.id, TaskState.SKIPPED, count)
    for child, _, below in below_instances(node, 0, count):
        changes.add(child.id, TaskState.SKIPPED, below)
    changes.apply()


def _stopped(node: NodeFacts) -> bool:
    """Whether `on_failure: stop` has come into force."""
    if not node.stops_on_failure:
        return False
    rows = execute("SELECT SUM(failed) FROM nodes WHERE experiment_id = %s", [node.experiment_id])
    return bool(rows[0][0])


def _insert(
    node: NodeFacts,
    standing: NodeStanding,
    indices: list[int],
    experiment: ExperimentRow,
    weights: dict[str, int],
) -> set[str]:
    """Queue rows for the instances; the compute resources that got some."""
    placed = _placed(node, len(indices), weights)
    now = experiment.now
    needs, gate_open, queued = node.needs, node.gate_open, int(TaskState.QUEUED)
    insert_rows(
        "tasks",
        NEW_TASK_COLUMNS,
        [
            (
                *(task_id, node.experiment_id, node.id, idx, standing.generation, compute_id),
                *(queued, experiment.priority, now, *needs, gate_open, None, None, now),
            )
            for task_id, idx, compute_id in zip(new_ids(len(indices)), indices, placed, strict=True)
        ],
    )
    return {compute_id for compute_id in placed if compute_id is not None}


def _placed(node: NodeFacts, count: int, weights: dict[str, int]) -> list[str | None]:
    """A compute resource for each of `count` rows.

    What waits at each already is seen too, so that one which drains faster gets more: together they
    hold rows in the ratio of their weights.
    """
    if len(weights) < 2:
        return [next(iter(weights), None)] * count
    # At most a window of rows: QUEUED ones of this experiment, by its own index.
    waiting = Counter(
        dict(
            execute(
                "SELECT compute_id, COUNT(*) FROM tasks WHERE experiment_id = %s AND state = 1 "
                "AND node_id = %s GROUP BY compute_id",
                [node.experiment_id, node.id],
            )
        )
    )
    placed: list[str | None] = []
    able = sorted(compute_id for compute_id, weight in weights.items() if weight)
    for _ in range(count):
        best = min(able, key=lambda compute_id: (waiting[compute_id] + 1) / weights[compute_id])
        waiting[best] += 1
        placed.append(best)
    return placed
