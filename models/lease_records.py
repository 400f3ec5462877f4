"""The records that go in and out of the lease functions.

All are frozen and keyword-only; durations are milliseconds, memory is MiB, as in the tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.wakeups import Wakeups

_LEASE = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([1-9][0-9]{0,3})\.([0-9a-f]{32})", re.ASCII
)

Phase = Literal["running", "finalizing"]
OutcomeWord = Literal["completed", "failed", "cancelled", "refused", "lost"]
# `later` is said to nobody: the item is left unanswered, and its agent asks again.
StartVerdict = Literal["ok", "cancel", "superseded", "finished", "gone", "later"]
ReportWord = Literal["accepted", "duplicate", "conflict", "superseded", "gone", "invalid", "later"]
ReleaseVerdict = Literal["released", "superseded", "finished", "gone", "started", "later"]
HoldVerdict = Literal["keep", "cancel", "superseded", "report_again", "gone"]


@dataclass(frozen=True, order=True)
class LeaseName:
    """One agent's right to run one attempt: the task, the attempt's number, 128 random bits."""

    task_id: str
    attempt: int
    lease_id: str

    def __str__(self) -> str:
        """The name as it travels in URLs, bodies and journals."""
        return f"{self.task_id}.{self.attempt}.{self.lease_id}"

    @classmethod
    def parse(cls, text: str) -> LeaseName:
        """The lease that `text` names. Raises BadInput when it has another form."""
        match = _LEASE.fullmatch(text)
        if match is None:
            raise BadInput(
                "That is not the name of a lease.",
                code="lease_malformed",
                field="lease",
                hint="A lease is named <task id>.<attempt>.<32 hexadecimal digits>.",
            )
        return cls(match[1], int(match[2]), match[3])


@dataclass(frozen=True, kw_only=True)
class Free:
    """What an agent has free for one more task."""

    cpu: int
    ram_mb: int
    gpu: int = 0
    disk_mb: int = 0


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One granted lease and what the agent's answer is made of."""

    lease: LeaseName
    experiment_id: str
    node_id: str
    node: str
    idx: int
    generation: int
    arguments: str | None
    gate_open: bool
    leased_at: int

    @property
    def task_id(self) -> str:
        """The leased task."""
        return self.lease.task_id

    @property
    def attempt(self) -> int:
        """The attempt's number, from 1."""
        return self.lease.attempt


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """The answer to one claim; `dead` names leases of a replayed claim that ended meanwhile."""

    grants: list[Grant] = field(default_factory=list)
    dead: list[LeaseName] = field(default_factory=list)
    replay: bool = False
    wakeups: Wakeups = field(default_factory=Wakeups)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A verdict for each lease that asked to pass the gate, in the order of the request."""

    verdicts: list[StartVerdict]
    wakeups: Wakeups = field(default_factory=Wakeups)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A phase that a lease's payload has reached, as a heartbeat tells it."""

    lease: LeaseName
    phase: Phase
    started_ms_ago: int = 0


@dataclass(frozen=True, kw_only=True)
class ReportedArtifact:
    """One output file that the attempt says it uploaded."""

    output: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class InlineLog:
    """A stream short enough to come with the report."""

    stream: str
    size: int
    data: bytes
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one attempt ended, in the agent's words."""

    lease: LeaseName
    outcome: OutcomeWord
    failure_kind: str | None = None
    failure_code: str | None = None
    message: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    duration_ms: int = 0
    age_ms: int = 0
    cpu_ms: int = 0
    max_rss_kb: int = 0
    result: dict[str, Any] | None = None
    artifacts: tuple[ReportedArtifact, ...] = ()
    logs: tuple[InlineLog, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportVerdict:
    """What became of one report; `message` says why when it was not accepted.

    `lacks` are the uploads that it names and that no row tells of.
    """

    verdict: ReportWord
    message: str | None = None
    lacks: tuple[ReportedArtifact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A verdict for each report, in the order of the request."""

    verdicts: list[ReportVerdict]
    wakeups: Wakeups = field(default_factory=Wakeups)


@dataclass(frozen=True, kw_only=True)
class Released:
    """A verdict for each lease that the agent gave back, in the order of the request."""

    verdicts: list[ReleaseVerdict]
    wakeups: Wakeups = field(default_factory=Wakeups)


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """A verdict for each lease that the agent says it holds, in the order of the request."""

    verdicts: list[HoldVerdict]
    wakeups: Wakeups = field(default_factory=Wakeups)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the server holds to be true of one lease, for `doctor` and re-adoption."""

    state: TaskState | None  # the task's state; None when there is no such task
    verdict: HoldVerdict
    cancel_requested: bool
