"""The rules by which a report is judged: which verdict it gets, and how its task goes on.

Pure functions over a task's row; `reporting.py` reads and writes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from airavata_scheduler.models.agent_session import Session
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.lease_records import LeaseName, Report, ReportVerdict
from airavata_scheduler.models.settling import Settlement
from airavata_scheduler.models.states import Outcome, TaskState
from airavata_scheduler.models.task_rows import TaskRow

INFRASTRUCTURE_BUDGET = 3  # attempts lost to hosts and sites before the task fails for good
REFUSAL_LIMIT = 2  # refusals before the specification counts as invalid
POISON_AGENTS = 3  # a task that was lost on so many agents is taken for the cause
RETRY_DELAY_MS = 2_000  # doubled with each failure, up to the ceiling
RETRY_CEILING_MS = 300_000
REFUSED_DELAY_MS = 5_000

OUTCOMES = {
    "completed": Outcome.COMPLETED,
    "failed": Outcome.FAILED,
    "cancelled": Outcome.CANCELLED,
    "refused": Outcome.REFUSED,
    "lost": Outcome.LOST,
}


def digest(report: Report) -> str:
    """What two reports of one lease must have in common to be the same report (SHA-256, hex)."""
    said: dict[str, Any] = {
        "outcome": report.outcome,
        "failure": [report.failure_kind, report.failure_code],
        "exit": [report.exit_code, report.signal],
        "result": report.result,
        "artifacts": sorted([a.output, a.path, a.size, a.sha256] for a in report.artifacts),
    }
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()


def is_current(row: TaskRow, lease: LeaseName, agent_id: str) -> bool:
    """The fence: attempt and lease id and the agent, on a task that is leased."""
    return row.state.is_leased and is_newest(row, lease, agent_id)


def is_newest(row: TaskRow, lease: LeaseName, agent_id: str) -> bool:
    """Whether this is the last lease that the task gave out, current or ended."""
    same = (row.attempt, row.lease_id) == (lease.attempt, lease.lease_id)
    return same and row.agent_id == agent_id


def may_reattach(row: TaskRow, lease: LeaseName, session: Session) -> bool:
    """Whether a lease that is not current may take its task back: while nobody else has claimed it.

    Either it is the newest lease (it lapsed or its session expired), or the database lost its
    newest commits since: then a lease of a later attempt, on a task from before that, is believed;
    what became of the attempts that the row has counted is known. Without such a loss nobody may
    speak for a lease that is not on the row.
    """
    if row.state.is_terminal:
        return False
    if not row.state.is_leased and is_newest(row, lease, session.agent_id):
        return True
    began_at = session.epoch_began_at
    return (
        began_at is not None
        and row.created_at < began_at
        and row.compute_id == session.compute_id
        # A lease given back, or given out since, is no lost commit.
        and (row.leased_at is None or row.leased_at < began_at)
        and lease.attempt > row.attempt
    )


def refusal_of(row: TaskRow | None, lease: LeaseName, agent_id: str) -> ReportVerdict:
    """The verdict for a report whose lease is neither current nor to be attached again."""
    if row is None:
        return ReportVerdict(verdict="gone", message="There is no such task.")
    if row.state.is_terminal and is_newest(row, lease, agent_id):
        return ReportVerdict(
            verdict="superseded", message=f"The task ended {row.state.name} before this report."
        )
    return ReportVerdict(
        verdict="superseded", message="A newer attempt, or another agent, holds the task."
    )


def settlement_of(row: TaskRow, report: Report, retries: int, lost_on: int) -> Settlement:
    """How the task goes on after an accepted report.

    `retries` is the user's budget; `lost_on` counts the distinct agents that lost the task, this
    one included.
    """
    if row.cancel_requested_at is not None:  # whoever cancelled was told so before this came
        return Settlement(row=row, state=TaskState.CANCELLED, reason="cancelled by a user")
    if report.outcome == "completed":
        return Settlement(row=row, state=TaskState.COMPLETED)
    said = _said(report)
    if report.outcome == "refused":
        return _refused(row, said)
    if report.outcome == "failed" and report.failure_kind != "infrastructure":
        return _failed(row, said, retries)
    return lost(row, said, lost_on)


def lost(row: TaskRow, said: str, lost_on: int, *, keep_lease: bool = False) -> Settlement:
    """An attempt ended by no fault of the task: the infrastructure budget pays."""
    if row.cancel_requested_at is not None:
        return Settlement(row=row, state=TaskState.CANCELLED, reason="cancelled by a user")
    spent = row.infra_failures + 1
    if lost_on >= POISON_AGENTS:
        reason = f"poison: lost on {lost_on} agents; the last said: {said}"
        return Settlement(row=row, state=TaskState.FAILED, infra_failures=1, reason=reason)
    if spent > INFRASTRUCTURE_BUDGET:
        reason = f"lost {spent} times to infrastructure; the last time: {said}"
        return Settlement(row=row, state=TaskState.FAILED, infra_failures=1, reason=reason)
    return Settlement(
        row=row,
        state=TaskState.QUEUED,
        infra_failures=1,
        reason=said,
        delay_ms=_delay_ms(spent),
        keep_lease=keep_lease,
    )


def _failed(row: TaskRow, said: str, retries: int) -> Settlement:
    spent = row.failures + 1
    if spent > retries:
        return Settlement(row=row, state=TaskState.FAILED, failures=1, reason=said)
    return Settlement(
        row=row, state=TaskState.QUEUED, failures=1, reason=said, delay_ms=_delay_ms(spent)
    )


def _refused(row: TaskRow, said: str) -> Settlement:
    if row.refusals + 1 >= REFUSAL_LIMIT:
        reason = f"invalid: refused {row.refusals + 1} times; the last time: {said}"
        return Settlement(row=row, state=TaskState.FAILED, refusals=1, reason=reason)
    return Settlement(
        row=row, state=TaskState.QUEUED, refusals=1, reason=said, delay_ms=REFUSED_DELAY_MS
    )


def _delay_ms(spent: int) -> int:
    return int(min(RETRY_CEILING_MS, RETRY_DELAY_MS * 2 ** (min(spent, 20) - 1)))


def _said(report: Report) -> str:
    code = report.failure_code or report.outcome
    message = (report.message or "").strip()
    return f"{code}: {message}"[:2000] if message else code
