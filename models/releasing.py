"""Leases that an agent gives back, and leases that it turns out not to hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from airavata_scheduler.models.agent_session import Session, live_session
from airavata_scheduler.models.database import change, execute, marks, retried, transaction
from airavata_scheduler.models.holding import Holding, latest_first
from airavata_scheduler.models.lease_records import (
    HoldVerdict,
    LeaseName,
    Phase,
    Reconciled,
    Released,
    ReleaseVerdict,
    Truth,
)
from airavata_scheduler.models.patience import Wanted, leaving_locked
from airavata_scheduler.models.report_rules import is_current, is_newest
from airavata_scheduler.models.retelling import may_be_reported
from airavata_scheduler.models.settling import Settlement, settle
from airavata_scheduler.models.starting import PHASES
from airavata_scheduler.models.states import Outcome, TaskState
from airavata_scheduler.models.sweeping import end_unreported
from airavata_scheduler.models.task_rows import LEASED, TaskRow, read_tasks


@leaving_locked
@retried
def release(session_id: str, leases: Sequence[LeaseName], reason: str) -> Released:
    """Give back leases whose payload has not started; no budget pays for it.

    A lease that was given back cannot be taken up again. Raises NotFound or Conflict as
    `live_session`.
    """
    with transaction():
        session = live_session(session_id)
        wanted = Wanted(lease.task_id for lease in leases)
        verdicts: list[ReleaseVerdict] = []
        given_back: dict[str, TaskRow] = {}
        for lease in leases:
            row = wanted.rows.get(lease.task_id)
            verdict = _release_verdict(row, lease, session.agent_id)
            if wanted.leaves(lease.task_id):
                verdict = "later"
            verdicts.append(verdict)
            if row is not None and verdict == "released" and row.lease_id is not None:
                given_back[row.id] = row
        _forget(row for row in given_back.values() if not row.state.is_leased)
        settlements = [
            _given_back(row, reason) for row in given_back.values() if row.state.is_leased
        ]
        return Released(verdicts=verdicts, wakeups=settle(settlements, session.now))


def _forget(rows: Iterable[TaskRow]) -> None:
    """Let no late request take up these leases, which had lapsed or expired before the release."""
    ids = [row.id for row in rows]
    if ids:
        change(
            f"UPDATE tasks SET lease_id = NULL, session_id = NULL WHERE id IN ({marks(ids)})",
            ids,
        )


def _release_verdict(row: TaskRow | None, lease: LeaseName, agent_id: str) -> ReleaseVerdict:
    if row is None:
        return "gone"
    if is_current(row, lease, agent_id):
        return "released" if row.state is TaskState.LEASED else "started"
    if is_newest(row, lease, agent_id):
        return "finished" if row.state.is_terminal else "released"
    waiting = row.state in (TaskState.QUEUED, TaskState.PENDING)
    if waiting and row.attempt == lease.attempt and row.lease_id is None:
        return "released"  # an earlier request did it, and its answer was lost
    return "superseded"


def _given_back(row: TaskRow, reason: str) -> Settlement:
    if row.cancel_requested_at is not None:
        return Settlement(row=row, state=TaskState.CANCELLED, reason="cancelled by a user")
    return Settlement(row=row, state=TaskState.QUEUED, reason=reason[:2000])


@leaving_locked
@retried
def reconcile_session(
    session_id: str,
    held: Sequence[tuple[LeaseName, Phase | None]],
    unresolved_claims: Collection[str],
    *,
    absent_for_s: float = 60.0,
    settled: str | None = None,
) -> Reconciled:
    """Compare the full list of what an agent holds with what it was granted.

    `held` pairs each lease with its phase (None: not started). A lease that is not current but
    unclaimed is attached again; one that is current, but neither in the list nor of an unresolved
    claim, is given back, provided that it was granted `absent_for_s` seconds ago or earlier: a list
    may have been under way while a claim was answered. At the start of a session that is 0. Nor are
    those given back that may have been reported, which the database forgot: `settled` is the epoch
    to which the agent has told everything.
    """
    phases = dict(held)
    with transaction():
        session = live_session(session_id)
        absent = _absent(session, phases, set(unresolved_claims), int(absent_for_s * 1000))
        wanted = Wanted(lease.task_id for lease in [*phases, *absent])
        holding = Holding(session, wanted.rows)
        verdicts: dict[LeaseName, HoldVerdict] = {
            # What somebody else has locked for long is as it was: the next list may know more.
            lease: "keep"
            if wanted.leaves(lease.task_id)
            else _listed(holding, lease, phases[lease])
            for lease in latest_first(phases)
        }
        missing = [
            row
            for lease in absent
            if (row := holding.row(lease)) is not None
            and is_current(row, lease, session.agent_id)
            and row.session_id == session.id
            and not may_be_reported(row, session, settled)
        ]
        # Statistics before counters, as a report locks them.
        settlements = _missing(missing, session.now)
        wakeups = holding.write() | settle(settlements, session.now)
        return Reconciled(verdicts=[verdicts[lease] for lease, _ in held], wakeups=wakeups)


def _listed(holding: Holding, lease: LeaseName, phase: Phase | None) -> HoldVerdict:
    """The verdict on one lease of the list; from now on the session holds it, where it may."""
    row, verdict = holding.row(lease), _hold_verdict(holding, lease)
    if row is None or verdict not in ("keep", "cancel"):
        return verdict
    told = TaskState.LEASED if phase is None else PHASES[phase]
    state = max(told, row.state) if row.state.is_leased else told
    began = state is not TaskState.LEASED
    holding.take(lease, state, row.started_at or (holding.session.now if began else None))
    return verdict


def _missing(rows: list[TaskRow], now: int) -> list[Settlement]:
    """Leases that their agent does not know: never received, so nothing has run, and given back.

    Those that had started are lost with the agent's journal; the infrastructure budget pays.
    """
    message = "the agent does not hold this lease"
    unstarted = [row for row in rows if row.state is TaskState.LEASED]
    started = [row for row in rows if row.state is not TaskState.LEASED]
    said = ("lease_forgotten", message)
    return [
        *(_given_back(row, message) for row in unstarted),
        *end_unreported(started, Outcome.LOST, said, now),
    ]


def _absent(
    session: Session, listed: Collection[LeaseName], unresolved: set[str], older_ms: int
) -> list[LeaseName]:
    """The session's leases that the list leaves out."""
    rows = execute(
        "SELECT id, attempt, lease_id, claim_id, leased_at FROM tasks "
        f"WHERE session_id = %s AND state IN {LEASED}",
        [session.id],
    )
    return [
        lease
        for task_id, attempt, lease_id, claim_id, leased_at in rows
        if (lease := LeaseName(task_id, attempt, lease_id)) not in listed
        and claim_id not in unresolved
        and (leased_at is None or leased_at <= session.now - older_ms)
    ]


def _hold_verdict(holding: Holding, lease: LeaseName) -> HoldVerdict:
    row = holding.row(lease)
    if row is None:
        return "gone"
    if holding.may_hold(lease):
        return "keep" if row.cancel_requested_at is None else "cancel"
    if row.state.is_terminal and is_newest(row, lease, holding.session.agent_id):
        # Its result was accepted and the answer got lost; or the task was cancelled under it.
        return "report_again" if row.state is not TaskState.CANCELLED else "superseded"
    return "superseded"


def truth(session_id: str, lease: LeaseName) -> Truth:
    """What holds for one lease now, changing nothing."""
    session = live_session(session_id)
    row = read_tasks([lease.task_id]).get(lease.task_id)
    verdict = _hold_verdict(Holding(session, {row.id: row} if row else {}), lease)
    if row is None or (verdict == "superseded" and row.agent_id != session.agent_id):
        # What becomes of other agents' work is not this one's to know.
        return Truth(state=None, verdict=verdict, cancel_requested=False)
    return Truth(
        state=row.state,
        verdict=verdict,
        cancel_requested=row.cancel_requested_at is not None,
    )
