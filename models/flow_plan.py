"""Planning: where an experiment's nodes may run, and opening the first of them."""

from __future__ import annotations

from typing import Any

from airavata_scheduler.models import events
from airavata_scheduler.models.counters import nodes_of
from airavata_scheduler.models.database import change, retried, transaction
from airavata_scheduler.models.experiment_rows import (
    ExperimentRow,
    experiment_row,
    set_experiment,
)
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.node_facts import NodeFacts, graph_of
from airavata_scheduler.models.placement import Choice, choose, usable_computes
from airavata_scheduler.models.states import ExperimentState, NodeState
from airavata_scheduler.models.wakeups import Wakeups


@retried
def plan(experiment_id: str) -> Wakeups:
    """PLANNING → RUNNING: choose compute resources, store why, open the nodes without a barrier.

    An experiment that nothing can ever run ends FAILED with a sentence; one whose agents are away
    just waits for them. In any other state this does nothing. Raises NotFound.
    """
    with transaction():
        experiment = experiment_row(experiment_id, lock=True)
        if experiment.state is not ExperimentState.PLANNING:
            return Wakeups()
        graph = graph_of(experiment_id)
        computes = usable_computes(experiment.project_id, experiment.compute)
        choices = {node.name: choose(node.spec, computes) for node in graph}
        impossible = [name for name, chosen in choices.items() if not _able(chosen)]
        if impossible:
            return _fail(experiment, impossible[0], choices[impossible[0]])
        return _open(experiment, graph, choices)


def _able(choices: list[Choice]) -> list[Choice]:
    return [choice for choice in choices if choice.able]


def plan_document(choices: dict[str, list[Choice]]) -> dict[str, Any]:
    """What is stored in `experiments.plan` and shown by `explain`."""
    return {
        "nodes": {
            name: {
                "computes": [_said(c) for c in chosen if c.able],
                "refused": [_said(c) for c in chosen if not c.able],
            }
            for name, chosen in choices.items()
        }
    }


def _said(choice: Choice) -> dict[str, Any]:
    return {
        "compute_id": choice.compute.id,
        "name": choice.compute.name,
        "share": round(choice.share, 4),
        "why": choice.why,
    }


def _fail(experiment: ExperimentRow, node: str, choices: list[Choice]) -> Wakeups:
    """End the experiment: no compute resource can run one of its nodes, now or later."""
    reasons = "; ".join(f"{c.compute.name}: {c.why}" for c in choices)
    error = f"No compute resource can run {node}. " + (
        f"{reasons}." if reasons else "The project has none: create a compute resource first."
    )
    now = experiment.now
    for standing in nodes_of(experiment.id, lock=True).values():
        change(
            "UPDATE nodes SET skipped = skipped + %s, state = %s, finished_at = %s WHERE id = %s",
            [standing.waiting, NodeState.FINISHED.value, now, standing.id],
        )
    state = ExperimentState.FAILED.value
    set_experiment(experiment.id, now, state=state, error=error, finished_at=now)
    events.add(experiment.id, "ended", state=state, error=error)
    return Wakeups(experiments={experiment.id})


def _open(
    experiment: ExperimentRow, graph: list[NodeFacts], choices: dict[str, list[Choice]]
) -> Wakeups:
    wakeups = Wakeups(experiments={experiment.id}, finish={experiment.id})
    for node in sorted(graph, key=lambda node: node.id):
        if not node.after:
            change(
                "UPDATE nodes SET state = %s, opened_at = %s WHERE id = %s AND state = %s",
                [NodeState.OPEN.value, experiment.now, node.id, NodeState.WAITING.value],
            )
            if node.parent_id is None:
                wakeups.expand.add(node.id)
    set_experiment(
        experiment.id,
        experiment.now,
        state=ExperimentState.RUNNING.value,
        started_at=experiment.now,
        plan=canonical_json(plan_document(choices)),
    )
    events.add(experiment.id, "planned", nodes={n: len(_able(c)) for n, c in choices.items()})
    return wakeups
