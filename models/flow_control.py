"""What a user does to a running experiment: pause, resume, cancel; and to a single task.

Each takes a `note`, which is written in the transaction of the change, and only if one was made.
"""

from __future__ import annotations

from airavata_scheduler.models import events
from airavata_scheduler.models.counters import nodes_of
from airavata_scheduler.models.database import change, now_ms, retried, transaction
from airavata_scheduler.models.errors import Conflict, NotFound
from airavata_scheduler.models.events import Note, no_note
from airavata_scheduler.models.experiment_rows import (
    ExperimentRow,
    experiment_row,
    set_experiment,
)
from airavata_scheduler.models.flow_finish import finish
from airavata_scheduler.models.flow_plan import plan
from airavata_scheduler.models.flow_rows import hold_queued
from airavata_scheduler.models.settling import Settlement, settle
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.task_rows import lock_tasks
from airavata_scheduler.models.wakeups import Wakeups

_PAUSABLE = (ExperimentState.PLANNING, ExperimentState.RUNNING)


def pause(experiment_id: str, note: Note = no_note) -> Wakeups:
    """Nothing new is queued or claimed any more; what is leased goes on. Twice is once.

    Raises NotFound, or Conflict (`experiment_not_running`).
    """
    _set_paused(experiment_id, note)
    return hold_queued(experiment_id) | Wakeups(experiments={experiment_id})


@retried
def _set_paused(experiment_id: str, note: Note) -> None:
    with transaction():
        experiment = _real(experiment_row(experiment_id, lock=True))
        if experiment.state is ExperimentState.PAUSED:
            return
        if experiment.state not in _PAUSABLE or experiment.cancel_requested_at is not None:
            raise Conflict(
                f"Only a running experiment can be paused; this one is {_shown(experiment)}.",
                code="experiment_not_running",
            )
        # Whoever queues rows holds a node's lock and then reads this state: none can slip through.
        nodes_of(experiment_id, lock=True)
        set_experiment(experiment_id, experiment.now, state=ExperimentState.PAUSED.value)
        events.add(experiment_id, "paused")
        note()


def resume(experiment_id: str, note: Note = no_note) -> Wakeups:
    """A paused experiment goes on. Twice is once.

    Raises NotFound, or Conflict (`experiment_not_paused`).
    """
    wakeups = _set_running(experiment_id, note)
    return wakeups | plan(experiment_id)


@retried
def _set_running(experiment_id: str, note: Note) -> Wakeups:
    with transaction():
        experiment = _real(experiment_row(experiment_id, lock=True))
        if experiment.state in _PAUSABLE:
            return Wakeups()
        if experiment.state is not ExperimentState.PAUSED:
            raise Conflict(
                f"Only a paused experiment can be resumed; this one is {_shown(experiment)}.",
                code="experiment_not_paused",
            )
        nodes = nodes_of(experiment_id, lock=True)
        planned = experiment.plan is not None
        state = ExperimentState.RUNNING if planned else ExperimentState.PLANNING
        set_experiment(experiment_id, experiment.now, state=state.value)
        events.add(experiment_id, "resumed")
        note()
        return Wakeups(
            experiments={experiment_id},
            finish={experiment_id},
            expand={node.id for node in nodes.values() if node.state is NodeState.OPEN},
        )


def cancel(experiment_id: str, note: Note = no_note) -> Wakeups:
    """End an experiment: what has not begun ends CANCELLED now, what runs as soon as it is stopped.

    Instances that were never expanded cost one number. A result that is accepted before its task is
    stopped counts. Cancelling twice is once, and an ended experiment stays as it is. Raises
    NotFound.
    """
    if _set_cancelled(experiment_id, note):
        return finish(experiment_id) | Wakeups(experiments={experiment_id})
    return Wakeups()


@retried
def _set_cancelled(experiment_id: str, note: Note) -> bool:
    """Whether the experiment goes towards CANCELLED now (or did so before)."""
    with transaction():
        experiment = _real(experiment_row(experiment_id, lock=True))
        if experiment.has_ended:
            return False
        if experiment.cancel_requested_at is not None:
            return True
        unplanned = experiment.plan is None
        for node in nodes_of(experiment_id, lock=True).values():
            change(
                "UPDATE nodes SET cancelled = cancelled + %s, state = %s, finished_at = %s "
                "WHERE id = %s",
                [
                    node.waiting,
                    (NodeState.FINISHED if unplanned else node.state).value,
                    experiment.now if unplanned else None,
                    node.id,
                ],
            )
        set_experiment(experiment_id, experiment.now, cancel_requested_at=experiment.now)
        events.add(experiment_id, "cancel_requested")
        note()
        if unplanned:
            state = ExperimentState.CANCELLED.value
            set_experiment(experiment_id, experiment.now, state=state, finished_at=experiment.now)
            events.add(experiment_id, "ended", state=state)
        return True


@retried
def cancel_task(task_id: str, note: Note = no_note) -> Wakeups:
    """Cancel one task (a call, say). One that runs is stopped by its agent; an ended one stays so.

    Raises NotFound (`task_unknown`).
    """
    with transaction():
        row = lock_tasks([task_id]).get(task_id)
        if row is None:
            raise NotFound("There is no such task.", code="task_unknown")
        now = now_ms()
        if row.state.is_terminal:
            return Wakeups()
        if row.cancel_requested_at is None:
            note()
        if row.state.is_leased:
            change(
                "UPDATE tasks SET cancel_requested_at = COALESCE(cancel_requested_at, %s) "
                "WHERE id = %s",
                [now, task_id],
            )
            return Wakeups(sessions={row.session_id} if row.session_id else set())
        cancelled = TaskState.CANCELLED
        return settle([Settlement(row=row, state=cancelled, reason="cancelled by a user")], now)


def _real(experiment: ExperimentRow) -> ExperimentRow:
    """The experiment, unless it only holds calls, which nobody sees as an experiment."""
    if experiment.is_calls:
        raise NotFound("There is no such experiment.", code="experiment_unknown")
    return experiment


def _shown(experiment: ExperimentRow) -> str:
    cancelling = experiment.cancel_requested_at is not None and not experiment.has_ended
    return "being cancelled" if cancelling else experiment.state.value
