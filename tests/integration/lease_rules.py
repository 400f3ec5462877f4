"""The reference's records and rules: who holds a task, who may take it back, how it goes on.

Times are classes: a lease is `young` (given out within the last minute) or not; a task may be
claimed now, in the order of the `place`s, or `waits_ms` first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airavata_scheduler.models.lease_records import LeaseName
from airavata_scheduler.models.states import TaskState as T

PHASES = {None: T.LEASED, "running": T.RUNNING, "finalizing": T.FINALIZING}
WAITING = (T.PENDING, T.QUEUED)
NEVER_ENDED = ("LOST", "EXPIRED")
LOSSES = 3  # attempts that infrastructure may cost a task
POISON = 3  # agents on which it was lost
REFUSALS = 2


def backoff_ms(times: int) -> int:
    """How long a task waits after it failed so often: 2 s, 4 s, 8 s …"""
    return 1000 * int(2**times)


class Refused(Exception):
    """The whole request is refused, with this code."""


@dataclass(kw_only=True)
class Ended:
    """An attempt that is over: whose it was, how it ended, and what its report said, if any did."""

    agent: str
    outcome: str
    said: object = None


@dataclass(kw_only=True)
class Task:
    """One task as its row should be."""

    id: str
    experiment: str
    retries: int
    closed: bool  # its gate
    place: int  # in the queue
    made_in: int  # the epoch
    state: T = T.QUEUED
    waits_ms: int = 0  # before it may be claimed
    attempt: int = 0
    lease: str | None = None
    agent: str | None = None
    session: str | None = None
    claim: str | None = None
    passed: bool = False
    cancelled: bool = False
    failures: int = 0
    losses: int = 0
    refusals: int = 0
    leased_in: int | None = None  # the epoch
    young: bool = False
    ended: dict[str, Ended] = field(default_factory=dict)  # by lease id

    @property
    def held(self) -> LeaseName | None:
        """The current lease."""
        if not self.state.is_leased or self.lease is None:
            return None
        return LeaseName(self.id, self.attempt, self.lease)

    def is_newest(self, lease: LeaseName, agent: str) -> bool:
        """Whether this is the last lease that was given out and not given back."""
        return (self.attempt, self.lease, self.agent) == (lease.attempt, lease.lease_id, agent)


@dataclass(kw_only=True)
class Session:
    """One start of an agent."""

    id: str
    agent: str
    compute: str
    seq: int = 0
    beats: int = 0
    silent: int = 0  # when it was last heard of, where that is long ago
    ended: str | None = None
    settled: int | None = None  # the epoch that was told everything again


@dataclass(kw_only=True)
class Rules:
    """What the database should hold, and the rules by which it changes."""

    compute: str  # where the tasks are
    experiments: list[str] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)  # agent → its session
    claims: dict[str, str] = field(default_factory=dict)  # claim id → agent
    epoch: int = 0
    grace: bool = False  # nothing expires
    holds: bool = False  # older tasks wait until every agent has told what was forgotten
    paused: set[str] = field(default_factory=set)  # experiments
    cancelled: set[str] = field(default_factory=set)
    last_place: int = 0

    def session(self, session_id: str) -> Session:
        """The live session. Raises Refused."""
        found = self.sessions.get(session_id)
        if found is None:
            raise Refused("session_unknown")
        if found.ended is not None:
            raise Refused("session_ended" if found.ended == "stopped" else f"session_{found.ended}")
        return found

    # ------------------------------------------------------------------ how a task goes on

    def next_place(self) -> int:
        """The end of the queue."""
        self.last_place += 1
        return self.last_place

    def requeue(self, task: Task, waits_ms: int = 0, *, keeps_lease: bool = False) -> None:
        """The task may be claimed again, unless a user has said otherwise meanwhile."""
        if task.cancelled or task.experiment in self.cancelled:
            task.state = T.CANCELLED
            return
        task.state = T.PENDING if task.experiment in self.paused else T.QUEUED
        task.waits_ms, task.place, task.passed = waits_ms, self.next_place(), False
        if not keeps_lease:
            task.lease = task.session = None

    def lose(self, task: Task, agent: str, *, keeps_lease: bool = False) -> None:
        """An attempt ended by no fault of the task."""
        lost_on = {agent}
        if task.losses:
            lost_on |= {e.agent for e in task.ended.values() if e.outcome in NEVER_ENDED}
        if task.cancelled:
            task.state = T.CANCELLED
            return
        task.losses += 1
        if len(lost_on) >= POISON or task.losses > LOSSES:
            task.state = T.FAILED
            return
        self.requeue(task, backoff_ms(task.losses), keeps_lease=keeps_lease)

    # ------------------------------------------------------------------ the fence

    def is_current(self, task: Task, lease: LeaseName, agent: str) -> bool:
        """The task is leased, and this is the lease."""
        return task.state.is_leased and task.is_newest(lease, agent)

    def is_believed(self, task: Task, lease: LeaseName, session: Session) -> bool:
        """Whether a lease that is not current may take the task back.

        The newest one, while nobody else has claimed the task; and one that a failover made the
        database forget: then nothing was given out since, and it is later than all that is known.
        """
        if task.state in WAITING and task.is_newest(lease, session.agent):
            return True
        lost_commits = task.made_in < self.epoch and session.compute == self.compute
        given_since = task.leased_in is not None and task.leased_in >= self.epoch
        is_later = lease.attempt > task.attempt and not task.state.is_terminal
        return lost_commits and not given_since and is_later

    def hold(self, task: Task, lease: LeaseName, session: Session, state: T) -> None:
        """The session holds the lease from now on."""
        task.ended.pop(lease.lease_id, None)
        task.state, task.attempt, task.lease = state, lease.attempt, lease.lease_id
        task.agent, task.session = session.agent, session.id
        if task.leased_in is None:  # forgotten: it was given out before the failover
            task.leased_in, task.young = self.epoch - 1, True
