"""Finishing: nodes end, barriers are passed or skipped, experiments come to their end.

Level-triggered: whatever was missed, one more call finds it. Two steps take turns until nothing
moves: the nodes' states in one transaction, then rows that must not run any more, a part at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airavata_scheduler.models import events
from airavata_scheduler.models.counters import NodeStanding, nodes_of
from airavata_scheduler.models.database import change, retried, transaction
from airavata_scheduler.models.experiment_rows import (
    ExperimentRow,
    experiment_row,
    set_experiment,
)
from airavata_scheduler.models.flow_rows import ask_to_cancel, end_waiting
from airavata_scheduler.models.node_facts import NodeFacts, graph_of
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.wakeups import Wakeups

MAX_TURNS = 50  # more than nodes of a chain that can fall one after the other in one call


def finish(experiment_id: str) -> Wakeups:
    """Bring an experiment as far as its ended instances allow. Raises NotFound."""
    wakeups = Wakeups()
    for _ in range(MAX_TURNS):
        turn = _turn(experiment_id)
        wakeups.merge(turn.wakeups)
        if turn.ended:
            break
        ended = _end_rows(experiment_id, turn)
        wakeups.merge(ended)
        if not ended.tasks:
            break
    wakeups.finish.discard(experiment_id)
    return wakeups


def _end_rows(experiment_id: str, turn: _Turn) -> Wakeups:
    """End the rows that wait but must not run any more."""
    wakeups = Wakeups()
    if turn.is_cancelled:
        wakeups.merge(end_waiting(experiment_id, TaskState.CANCELLED, "cancelled by a user"))
        # Only now: a row that was claimed meanwhile is leased by now, and none is queued any more.
        wakeups.merge(ask_to_cancel(experiment_id))
    for node_id, reason in turn.barred.items():
        wakeups.merge(end_waiting(experiment_id, TaskState.SKIPPED, reason, node_id=node_id))
    if turn.stop_reason is not None:
        # What was tried before may be tried again: a retry is no new instance.
        reason = turn.stop_reason
        wakeups.merge(end_waiting(experiment_id, TaskState.SKIPPED, reason, fresh_only=True))
    return wakeups


@dataclass(kw_only=True)
class _Turn:
    """What one look at the nodes found."""

    wakeups: Wakeups = field(default_factory=Wakeups)
    ended: bool = False
    is_cancelled: bool = False
    stop_reason: str | None = None
    barred: dict[str, str] = field(default_factory=dict)  # nodes with held rows → why they skip


@retried
def _turn(experiment_id: str) -> _Turn:
    with transaction():
        experiment = experiment_row(experiment_id, lock=True)
        active = experiment.state in (ExperimentState.RUNNING, ExperimentState.PAUSED)
        if experiment.is_calls or not active or experiment.plan is None:
            return _Turn(ended=True)
        return _Nodes(experiment).turn()


class _Nodes:
    """The nodes of one experiment under their locks."""

    def __init__(self, experiment: ExperimentRow) -> None:
        self.experiment = experiment
        self.graph = {node.id: node for node in graph_of(experiment.id)}
        self.standing = nodes_of(experiment.id, lock=True)
        self.result = _Turn(is_cancelled=experiment.cancel_requested_at is not None)

    def turn(self) -> _Turn:
        """Move every node as far as it goes."""
        result = self.result
        self._stop()
        moving = True
        while moving:  # a node that ends may open, or bar, the next
            moving = sum(self._move(node) for node in self.graph.values()) > 0
        if all(node.state is NodeState.FINISHED for node in self.standing.values()):
            self._end_experiment()
            return result
        return result

    def _stop(self) -> None:
        """`on_failure: stop`: after the first final failure nothing new begins."""
        failed = [node for node in self.standing.values() if node.counts["failed"]]
        if self.experiment.on_failure != "stop" or not failed:
            return
        name = self.graph[failed[0].id].name
        self.result.stop_reason = f"stopped: an instance of {name} failed (on_failure: stop)"
        for node_id in self.graph:
            self._skip_rest(node_id)

    def _move(self, node: NodeFacts) -> bool:
        """One step of one node; whether there was one."""
        standing = self.standing[node.id]
        if standing.state is NodeState.FINISHED:
            return False
        if standing.has_ended:
            return self._set(standing, NodeState.FINISHED)
        if standing.state is NodeState.OPEN or self.result.stop_reason or self.result.is_cancelled:
            return False
        barriers = [self.standing[before] for before in node.after]
        if any(before.state is not NodeState.FINISHED for before in barriers):
            return False
        reason = _barred(node, barriers, self.graph)
        if reason is None:
            return self._set(standing, NodeState.OPEN)
        self.result.barred[node.id] = reason
        return self._skip_rest(node.id)

    def _set(self, standing: NodeStanding, state: NodeState) -> bool:
        node = self.graph[standing.id]
        column = "opened_at" if state is NodeState.OPEN else "finished_at"
        change(
            f"UPDATE nodes SET state = %s, {column} = %s WHERE id = %s",
            [state.value, self.experiment.now, standing.id],
        )
        self._again(standing.id, standing.counts, state)
        self.result.wakeups.experiments.add(self.experiment.id)
        if state is NodeState.OPEN:
            self.result.wakeups.expand.add(standing.id)
            events.add(self.experiment.id, "node_opened", node=node.name)
        else:
            ended = {name: standing.counts[name] for name in _ENDED if standing.counts[name]}
            events.add(self.experiment.id, "node_finished", node=node.name, **ended)
        return True

    def _skip_rest(self, node_id: str, most: int | None = None) -> bool:
        """Instances without a row end SKIPPED, here and below `foreach`; whether there were any."""
        standing = self.standing[node_id]
        count = standing.waiting if most is None else min(most, standing.waiting)
        if count <= 0:
            return False
        change("UPDATE nodes SET skipped = skipped + %s WHERE id = %s", [count, node_id])
        counts = standing.counts | {"skipped": standing.counts["skipped"] + count}
        self._again(node_id, counts, standing.state)
        self.result.wakeups.experiments.add(self.experiment.id)
        for child in self.graph[node_id].children:
            self._skip_rest(child, count * self.graph[child].own)
        return True

    def _again(self, node_id: str, counts: dict[str, int], state: NodeState) -> None:
        """Note in memory what was written."""
        old = self.standing[node_id]
        self.standing[node_id] = NodeStanding(
            id=old.id,
            experiment_id=old.experiment_id,
            state=state,
            total=old.total,
            next_index=old.next_index,
            generation=old.generation,
            selection=old.selection,
            counts=counts,
        )

    def _end_experiment(self) -> None:
        counts = {
            name: sum(node.counts[name] for node in self.standing.values()) for name in _ENDED
        }
        state = _final_state(counts, is_cancelled=self.result.is_cancelled)
        now = self.experiment.now
        set_experiment(self.experiment.id, now, state=state.value, finished_at=now)
        events.add(self.experiment.id, "ended", state=state.value, **counts)
        self.result.ended = True
        self.result.wakeups.experiments.add(self.experiment.id)


_ENDED = ("completed", "failed", "cancelled", "skipped")


def _final_state(counts: Mapping[str, int], *, is_cancelled: bool) -> ExperimentState:
    """How an experiment ends. A cancel that came when all had succeeded changes nothing."""
    if is_cancelled and counts["cancelled"]:
        return ExperimentState.CANCELLED
    return ExperimentState.FAILED if counts["failed"] else ExperimentState.COMPLETED


def _barred(
    node: NodeFacts, barriers: list[NodeStanding], graph: Mapping[str, NodeFacts]
) -> str | None:
    """Why a node may not open though its barriers have ended, or None."""
    needs_all = node.spec.get("requires") == "all"
    for before in barriers:
        completed, name = before.counts["completed"], graph[before.id].name
        if needs_all and completed < before.total:
            return (
                f"{before.total - completed} of {before.total} instances of {name} did not succeed"
            )
        if not completed:
            return f"no instance of {name} succeeded"
    return None
