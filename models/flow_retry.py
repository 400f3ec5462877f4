"""Retrying: an ended experiment opens again for the instances that did not succeed.

Ended rows stay as they are: an instance that runs again gets a row of a new generation. At the
moment of the retry only numbers change (the counters of what ended without success go back to zero,
so that those instances wait again); rows are made window by window, as in the first run.
"""

from __future__ import annotations

from airavata_scheduler.models import events
from airavata_scheduler.models.counters import NodeStanding, nodes_of
from airavata_scheduler.models.database import change, retried, transaction
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.events import Note, no_note
from airavata_scheduler.models.experiment_rows import ExperimentRow, experiment_row, set_experiment
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.node_facts import graph_of
from airavata_scheduler.models.states import ExperimentState, NodeState
from airavata_scheduler.models.wakeups import Wakeups


@retried
def retry(experiment_id: str, failed_only: bool = True, note: Note = no_note) -> Wakeups:
    """Run again what failed and what was skipped because of it, and with `failed_only=False` also
    what was cancelled. What completed stays. `note` is written in the same transaction.

    Raises NotFound, or Conflict: `experiment_not_ended`, `nothing_to_retry`, or `retry_cancelled`
    when `failed_only` meets cancelled instances (what was skipped cannot be told apart then).
    """
    with transaction():
        experiment = experiment_row(experiment_id, lock=True)
        nodes = nodes_of(experiment_id, lock=True)
        _check(experiment, nodes, failed_only)
        open_again = {i for i, node in nodes.items() if node.counts["completed"] < node.total}
        for node in sorted(graph_of(experiment_id), key=lambda node: node.id):
            if node.id in open_again:
                parent = nodes[node.parent_id] if node.parent_id else None
                _reopen(nodes[node.id], parent, waits=bool(open_again & set(node.after)))
        planned = experiment.plan is not None
        state = ExperimentState.RUNNING if planned else ExperimentState.PLANNING
        set_experiment(
            experiment_id,
            experiment.now,
            state=state.value,
            finished_at=None,
            cancel_requested_at=None,
            error=None,
        )
        again = sum(nodes[i].total - nodes[i].counts["completed"] for i in open_again)
        events.add(experiment_id, "retried", failed_only=failed_only, tasks=again)
        note()
        return Wakeups(
            experiments={experiment_id},
            finish={experiment_id},
            expand=open_again if planned else set(),
        )


def _check(experiment: ExperimentRow, nodes: dict[str, NodeStanding], failed_only: bool) -> None:
    if experiment.is_calls or not experiment.has_ended:
        raise Conflict(
            f"The experiment is {experiment.state.value}; only an ended one can be retried.",
            code="experiment_not_ended",
            hint="Wait for its end, or cancel it.",
        )
    if all(node.counts["completed"] >= node.total for node in nodes.values()):
        raise Conflict("Every instance completed.", code="nothing_to_retry")
    cancelled = sum(node.counts["cancelled"] for node in nodes.values())
    if failed_only and cancelled:
        raise Conflict(
            f"{cancelled} instances were cancelled, and what was skipped because of them cannot be "
            "told apart from what was skipped because of failures.",
            code="retry_cancelled",
            hint="Type: airavata experiment retry NAME --all; what did not complete runs again.",
        )


def _reopen(standing: NodeStanding, parent: NodeStanding | None, *, waits: bool) -> None:
    """Let the node's instances wait again that did not complete."""
    # The parent's next generation begins now, and makes its dependents itself.
    before = 0 if parent is None else parent.generation + 1
    selection = (standing.selection or {}) | {"retry": {"cursor": -1, "before": before}}
    state = NodeState.WAITING if waits else NodeState.OPEN
    change(
        "UPDATE nodes SET failed = 0, cancelled = 0, skipped = 0, generation = generation + 1, "
        "selection = %s, state = %s, finished_at = NULL WHERE id = %s",
        [canonical_json(selection), state.value, standing.id],
    )
