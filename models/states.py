"""The states of experiments, nodes and tasks, and what may follow what.

One enum a kind, one table of transitions. Every move of a task is held to the table where it is
counted (`counters.CounterChanges`); the documentation prints the same tables (`docs/states.md`,
checked by a test).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class TaskState(IntEnum):
    """A task's state, stored as a small integer so that the claim's index stays narrow."""

    PENDING = 0  # exists, but may not be claimed: its node waits, or its experiment is paused
    QUEUED = 1  # may be claimed by an agent of its compute resource
    LEASED = 2  # granted to an agent's session; the payload has not started as far as we know
    RUNNING = 3  # the agent said that the payload started
    FINALIZING = 4  # the payload ended; the agent uploads artifacts and logs
    COMPLETED = 5  # one accepted result: success
    FAILED = 6  # one accepted result: failure, or a budget is used up
    CANCELLED = 7  # a user's cancel came before an accepted result
    SKIPPED = 8  # never runs: an instance or a barrier that it depends on failed

    @property
    def is_terminal(self) -> bool:
        """Whether the task has its one accepted result."""
        return self >= TaskState.COMPLETED

    @property
    def is_leased(self) -> bool:
        """Whether an agent holds a lease on the task."""
        return TaskState.LEASED <= self <= TaskState.FINALIZING


_T = TaskState
_LEASED = {_T.LEASED, _T.RUNNING, _T.FINALIZING}
_ENDED = {_T.COMPLETED, _T.FAILED, _T.CANCELLED}
TASK_TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    # What waits may go on, or end, without a claim: while unclaimed the newest lease is attached
    # again, and its late report is accepted.
    _T.PENDING: frozenset({_T.QUEUED, *_LEASED, *_ENDED, _T.SKIPPED}),
    _T.QUEUED: frozenset({_T.PENDING, *_LEASED, *_ENDED, _T.SKIPPED}),
    # Back to PENDING instead of QUEUED where the experiment is paused meanwhile.
    _T.LEASED: frozenset({_T.RUNNING, _T.FINALIZING, _T.QUEUED, _T.PENDING, *_ENDED}),
    _T.RUNNING: frozenset({_T.FINALIZING, _T.QUEUED, _T.PENDING, *_ENDED}),
    _T.FINALIZING: frozenset({_T.QUEUED, _T.PENDING, *_ENDED}),
    _T.COMPLETED: frozenset(),
    _T.FAILED: frozenset(),
    _T.CANCELLED: frozenset(),
    _T.SKIPPED: frozenset(),
}


class ExperimentState(StrEnum):
    """An experiment's state."""

    CREATED = "CREATED"  # stored and valid; nothing runs before submit
    PLANNING = "PLANNING"  # submitted; the plan job has not opened its first node yet
    RUNNING = "RUNNING"  # instances are queued, running or still to be expanded
    PAUSED = "PAUSED"  # nothing new is queued or claimed; what runs goes on
    COMPLETED = "COMPLETED"  # every instance ended and none failed
    FAILED = "FAILED"  # every instance ended and at least one failed, or it could not be planned
    CANCELLED = "CANCELLED"  # a user cancelled it


_E = ExperimentState
EXPERIMENT_TRANSITIONS: dict[ExperimentState, frozenset[ExperimentState]] = {
    _E.CREATED: frozenset({_E.PLANNING, _E.CANCELLED}),
    _E.PLANNING: frozenset({_E.RUNNING, _E.PAUSED, _E.FAILED, _E.CANCELLED}),
    _E.RUNNING: frozenset({_E.PAUSED, _E.COMPLETED, _E.FAILED, _E.CANCELLED}),
    # Paused before it was planned, it is planned when it goes on.
    _E.PAUSED: frozenset({_E.PLANNING, _E.RUNNING, _E.COMPLETED, _E.FAILED, _E.CANCELLED}),
    # Retrying opens an ended experiment again, or plans it where it never was; its tasks stay
    # ended for good. A completed one may have skipped instances.
    _E.COMPLETED: frozenset({_E.RUNNING}),
    _E.FAILED: frozenset({_E.PLANNING, _E.RUNNING}),
    _E.CANCELLED: frozenset({_E.PLANNING, _E.RUNNING}),
}


class NodeState(StrEnum):
    """The state of one node of an experiment's graph."""

    WAITING = "WAITING"  # a barrier (`depends_on`) is not passed; its rows, if any, are PENDING
    OPEN = "OPEN"  # instances are queued as windows or as their parents complete
    FINISHED = "FINISHED"  # every instance is terminal


class Outcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "COMPLETED"  # the payload succeeded and its result was accepted
    FAILED = "FAILED"  # the payload failed: the user's budget (`retries`) pays
    LOST = "LOST"  # host, agent or site failed: the infrastructure budget pays
    REFUSED = "REFUSED"  # the agent could not or may not run it (policy, Python version, disk)
    CANCELLED = "CANCELLED"  # stopped because of a user's cancel
    EXPIRED = "EXPIRED"  # the session was silent for longer than `requeue_after`
    SUPERSEDED = "SUPERSEDED"  # a newer attempt holds the task; kept as evidence


def may_follow(before: TaskState, after: TaskState) -> bool:
    """Whether a task in state `before` may go to `after`; staying where it is goes without say."""
    return before is after or after in TASK_TRANSITIONS[before]
