"""A witness of the lease machine: what agents and users were told, held to the invariants.

It knows no rule by which a request is judged; the numbers are those of PROTOCOL.md, section 1.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from airavata_scheduler.models.database import execute
from airavata_scheduler.models.lease_records import LeaseName, Report
from airavata_scheduler.models.states import TaskState

ACKNOWLEDGED = ("accepted", "duplicate")


@dataclass(frozen=True)
class Row:
    """What the witness looks at."""

    state: TaskState
    lease: LeaseName | None


def rows() -> dict[str, Row]:
    """Every task's row."""
    found = execute("SELECT id, state, attempt, lease_id FROM tasks")
    return {
        task_id: Row(TaskState(state), lease_id and LeaseName(task_id, attempt, lease_id))
        for task_id, state, attempt, lease_id in found
    }


def stored() -> set[str]:
    """The leases whose report is stored."""
    return {
        row[0] for row in execute("SELECT lease_id FROM attempts WHERE report_digest IS NOT NULL")
    }


@dataclass(kw_only=True)
class Witness:
    """What was told, and what was seen."""

    ended: dict[str, Row] = field(default_factory=dict)  # as they were first seen
    cancelled: set[str] = field(default_factory=set)  # by a user, before a result
    claimed: dict[str, LeaseName] = field(default_factory=dict)  # the last, in this epoch
    acknowledged: dict[LeaseName, Report] = field(default_factory=dict)  # in this epoch
    ever_acknowledged: dict[LeaseName, tuple[str, Report]] = field(default_factory=dict)

    def granted(self, lease: LeaseName) -> None:
        """A claim got this lease: never one that was given out before."""
        assert self.claimed.get(lease.task_id) != lease
        self.claimed[lease.task_id] = lease

    def passed(self, lease: LeaseName) -> None:
        """An agent was told that it may run this lease, or go on: then it holds the task."""
        row = rows()[lease.task_id]
        assert row.state.is_leased and row.lease == lease, f"{lease} may run, and {row} says not"

    def judged(self, agent: str, report: Report, verdict: str) -> None:
        """A report was answered. I2: what is accepted is no older lease."""
        lease = report.lease
        if verdict == "accepted":
            last = self.claimed.get(lease.task_id, lease)
            assert last == lease, f"I2: {lease} was accepted after {last} was given out"
        if verdict in ACKNOWLEDGED:
            self.acknowledged[lease] = report
            self.ever_acknowledged[lease] = agent, report

    def look(self) -> None:
        """See that the rows keep what was told."""
        now = rows()
        for task_id, row in self.ended.items():
            assert now[task_id] == row, f"I1: {row} became {now[task_id]}"
        self.ended = {task_id: row for task_id, row in now.items() if row.state.is_terminal}
        kept = stored()
        for lease, report in self.acknowledged.items():
            assert lease.lease_id in kept, f"I3: {lease} was acknowledged and is forgotten"
            if report.outcome == "completed":
                self.see_result(lease, now[lease.task_id])
        for task_id in self.cancelled:
            state = now[task_id].state
            assert state.is_leased or state is TaskState.CANCELLED, (
                f"I6: {task_id} was cancelled and is {state.name}"
            )

    def see_result(self, lease: LeaseName, row: Row) -> None:
        """I3: a success that was acknowledged is the task's result, unless a cancel came first."""
        is_cancelled = lease.task_id in self.cancelled
        wanted = Row(TaskState.CANCELLED if is_cancelled else TaskState.COMPLETED, lease)
        assert row == wanted, f"I3: {lease} succeeded, and {row} says otherwise"

    def results(self) -> dict[LeaseName, Row]:
        """The acknowledged successes that are stored now."""
        return {
            row.lease: row
            for row in rows().values()
            if row.lease in self.ever_acknowledged and row.state is TaskState.COMPLETED
        }

    def saved(self) -> Witness:
        """What is to be seen of the rows as they are now."""
        return deepcopy(self)

    def failed_over(self, saved: Witness) -> None:
        """The rows are those of then; what agents were told they know still."""
        self.ended, self.cancelled = saved.ended, saved.cancelled
        self.acknowledged, self.claimed = {}, {}
