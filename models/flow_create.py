"""Storing an experiment: one record for each node, however many instances it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airavata_scheduler.models import events, outbox
from airavata_scheduler.models.counters import nodes_of
from airavata_scheduler.models.database import now_ms, retried, transaction
from airavata_scheduler.models.dependents import OWN_LIMIT
from airavata_scheduler.models.errors import BadInput, Conflict
from airavata_scheduler.models.events import Note, no_note
from airavata_scheduler.models.experiment_rows import experiment_row, set_experiment
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.node_facts import graph_of
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.sweep import MAX_EXPERIMENT_TASKS
from airavata_scheduler.models.wakeups import Wakeups


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Only the instances that ended one way in another experiment of the same shape."""

    experiment_id: str
    ended: Literal["failed", "successful"]


@retried
def create_experiment(
    *,
    project_id: str,
    owner_id: str,
    name: str,
    document: Mapping[str, Any],
    source: str,
    nodes: Sequence[NodeSpec],
    compute: Sequence[str] = (),
    storage_id: str | None = None,
    priority: int = 0,
    on_failure: str = "continue",
    derived_from: str | None = None,
    only: Selection | None = None,
    max_tasks: int = MAX_EXPERIMENT_TASKS,
) -> str:
    """Store an experiment in state CREATED; its id.

    `compute` are ids of the resources that may run it (empty: any that its project may use). `only`
    leaves out instances of the nodes that begin the graph. Nothing is expanded: the cost does not
    depend on the number of instances. Raises BadInput when there are more than `max_tasks`, more
    instances per `foreach` parent than can be made at once, or none at all.
    """
    with transaction():
        picked = _picked(only)
        totals = _totals(nodes, {name: count for name, (_, count) in picked.items()})
        total = sum(totals.values())
        if total > max_tasks:
            raise BadInput(
                f"The experiment has {total} tasks; at most {max_tasks} are taken.",
                code="too_many_tasks",
                field="tasks",
                hint="Make the axes shorter, or split the sweep into several experiments.",
            )
        experiment_id, now = new_id(), now_ms()
        insert_rows(
            "experiments",
            (
                *("id", "project_id", "owner_id", "kind", "name", "state", "spec", "source"),
                *("total", "on_failure", "compute", "storage_id", "priority", "derived_from"),
                *("version", "created_at", "updated_at"),
            ),
            [
                (
                    *(experiment_id, project_id, owner_id, "experiment", name),
                    *(ExperimentState.CREATED.value, canonical_json(dict(document)), source),
                    *(total, on_failure, canonical_json(list(compute)), storage_id, priority),
                    *(derived_from, 1, now, now),
                )
            ],
        )
        outbox.created("experiment", experiment_id, project_id=project_id, owner_id=owner_id)
        rows = [
            node_row(experiment_id, position, node, totals[node.name], picked.get(node.name))
            for position, node in enumerate(nodes)
        ]
        insert_rows("nodes", NODE_COLUMNS, rows)
        events.add(experiment_id, "created", total=total)
    return experiment_id


NODE_COLUMNS = (
    *("id", "experiment_id", "name", "position", "state", "spec", "total", "next_index"),
    *("selection", "generation", "pending", "queued", "leased", "running", "finalizing"),
    *("completed", "failed", "cancelled", "skipped"),
)


def node_row(
    experiment_id: str,
    position: int,
    node: NodeSpec,
    total: int,
    picked: tuple[dict[str, Any], int] | None = None,
) -> tuple[Any, ...]:
    """The row of a node that has not begun."""
    # Instances of a `foreach` node are made by their parents' ends: its own cursor is at the end.
    cursor = total if node.foreach is not None or picked is not None else 0
    selection = None if picked is None else canonical_json(picked[0])
    spec = canonical_json(node.to_json())
    state = NodeState.WAITING.value
    numbers = (total, cursor, selection, 0, *[0] * len(TaskState))
    return (new_id(), experiment_id, node.name, position, state, spec, *numbers)


def _totals(nodes: Sequence[NodeSpec], picked: Mapping[str, int]) -> dict[str, int]:
    by_name = {node.name: node for node in nodes}
    totals: dict[str, int] = {}

    def total_of(node: NodeSpec) -> int:
        if node.name not in totals:
            parent = by_name[node.foreach] if node.foreach is not None else None
            counted = node.count(total_of(parent)) if parent is not None else node.count()
            totals[node.name] = picked.get(node.name, counted)
        return totals[node.name]

    for node in nodes:
        if node.foreach is not None and node.own > OWN_LIMIT:
            raise BadInput(
                f"{node.name} has {node.own} instances for each instance of {node.foreach}; "
                f"at most {OWN_LIMIT} are taken.",
                code="too_many_per_parent",
                field=f"tasks.{node.name}.task_inputs",
                hint="Let it depend on the other node by depends_on, or shorten its axes.",
            )
        total_of(node)
    if nodes and not any(totals.values()):
        raise BadInput("No instance is left to run.", code="nothing_to_run", field="tasks")
    return totals


def _picked(only: Selection | None) -> dict[str, tuple[dict[str, Any], int]]:
    """For each node that begins the other experiment's graph, by name: its selection and count."""
    if only is None:
        return {}
    state = TaskState.FAILED if only.ended == "failed" else TaskState.COMPLETED
    if not experiment_row(only.experiment_id).has_ended:
        raise Conflict(
            "The experiment has not ended, so which of its instances count is not settled.",
            code="experiment_not_ended",
            hint="Wait for its end, or cancel it.",
        )
    counts = nodes_of(only.experiment_id)
    return {
        node.name: (
            {"source": node.id, "state": int(state), "cursor": -1},
            counts[node.id].counts[state.name.lower()],
        )
        for node in graph_of(only.experiment_id)
        if node.parent_id is None and not node.after
    }


@retried
def submit(experiment_id: str, note: Note = no_note) -> Wakeups:
    """CREATED → PLANNING; the plan job does the rest. Submitting twice changes nothing.

    `note` is written in the transaction of the change, if there is one.

    Raises NotFound, or Conflict (`experiment_ended`) when it has ended.
    """
    with transaction():
        experiment = experiment_row(experiment_id, lock=True)
        if experiment.has_ended:
            raise Conflict(
                f"The experiment has ended {experiment.state.value}.",
                code="experiment_ended",
                hint="Retry it, or derive a new one from it.",
            )
        if experiment.state is ExperimentState.CREATED:
            state = ExperimentState.PLANNING.value
            set_experiment(experiment_id, experiment.now, state=state, submitted_at=experiment.now)
            events.add(experiment_id, "submitted")
            note()
    return Wakeups(experiments={experiment_id})
