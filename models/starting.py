"""The gate and the phases: a lease may start, has started, has ended and uploads.

A task whose newest lease lapsed, but that nobody else claimed, is attached to that lease again:
work that was done is never thrown away for a slow network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airavata_scheduler.models import attempts
from airavata_scheduler.models.agent_session import Session, live_session
from airavata_scheduler.models.counters import CounterChanges
from airavata_scheduler.models.database import retried, transaction
from airavata_scheduler.models.lease_records import LeaseName, Mark, Started, StartVerdict
from airavata_scheduler.models.report_rules import is_current, is_newest, may_reattach
from airavata_scheduler.models.rows import update_rows
from airavata_scheduler.models.settling import after_changes
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.task_rows import TaskRow, lock_tasks
from airavata_scheduler.models.wakeups import Wakeups

PHASES = {"running": TaskState.RUNNING, "finalizing": TaskState.FINALIZING}


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lease that its session holds from now on, in this state."""

    row: TaskRow
    lease: LeaseName
    state: TaskState
    started_at: int | None


@retried
def start(session_id: str, leases: Sequence[LeaseName]) -> Started:
    """Ask for leave to start payloads; a verdict for each lease, in order.

    `ok` passes the gate (again and again), `cancel` asks to report `cancelled` instead, `finished`
    says that the lease's result was accepted, `superseded` that another lease holds the task,
    `gone` that there is no such task. Raises NotFound or Conflict as `live_session`.
    """
    with transaction():
        session = live_session(session_id)
        rows = lock_tasks(lease.task_id for lease in leases)
        verdicts: list[StartVerdict] = []
        held: dict[str, Held] = {}
        for lease in leases:
            row = rows.get(lease.task_id)
            verdict = _start_verdict(row, lease, session)
            verdicts.append(verdict)
            if row is not None and verdict in ("ok", "cancel") and not _passed(row):
                state = row.state if row.state.is_leased else TaskState.LEASED
                started_at = row.started_at or session.now
                held[row.id] = Held(row=row, lease=lease, state=state, started_at=started_at)
        return Started(verdicts=verdicts, wakeups=hold(session, held.values()))


def _passed(row: TaskRow) -> bool:
    """Whether the row says already that the lease may run, so that nothing has to be written."""
    return row.state.is_leased and row.started_at is not None


def _start_verdict(row: TaskRow | None, lease: LeaseName, session: Session) -> StartVerdict:
    if row is None:
        return "gone"
    if is_current(row, lease, session.agent_id) or may_reattach(row, lease, session):
        return "ok" if row.cancel_requested_at is None else "cancel"
    finished = row.state in (TaskState.COMPLETED, TaskState.FAILED)
    return "finished" if finished and is_newest(row, lease, session.agent_id) else "superseded"


@retried
def mark(session_id: str, marks: Sequence[Mark]) -> Wakeups:
    """Take in the phases that payloads have reached, from a heartbeat.

    A mark whose lease is not current changes nothing: the digest in the same heartbeat shows the
    difference, and the full list settles it. A later phase is never taken back by an earlier one.
    """
    if not marks:
        return Wakeups()
    with transaction():
        session = live_session(session_id)
        rows = lock_tasks(m.lease.task_id for m in marks)
        held: dict[str, Held] = {}
        for one in marks:
            row = rows.get(one.lease.task_id)
            state = PHASES[one.phase]
            if (
                row is None
                or not is_current(row, one.lease, session.agent_id)
                or state <= row.state
            ):
                continue
            started_at = _started_at(row, one, session.now)
            held[row.id] = Held(row=row, lease=one.lease, state=state, started_at=started_at)
        return hold(session, held.values())


def _forgotten_at(session: Session) -> int:
    """When a lease was given out of which the row does not know: before the commits were lost."""
    return session.now if session.epoch_began_at is None else session.epoch_began_at - 1


def _started_at(row: TaskRow, one: Mark, now: int) -> int:
    """When the payload began: told as an age, so that the agent's clock does not matter."""
    if row.state is TaskState.RUNNING and row.started_at is not None:
        return row.started_at
    began_at = now - max(0, one.started_ms_ago)
    return max(began_at, row.leased_at or began_at)


def hold(session: Session, held: Iterable[Held]) -> Wakeups:
    """Write that the session holds these leases; their rows must be locked.

    Raises Conflict as `live_session`.
    """
    changes = CounterChanges()
    rows, attached_again = [], []
    for one in held:
        rows.append(
            (
                one.row.id,
                int(one.state),
                one.lease.attempt,
                one.lease.lease_id,
                session.agent_id,
                session.id,
                one.row.leased_at or _forgotten_at(session),
                one.started_at,
            )
        )
        changes.move(one.row.node_id, one.row.state, one.state)
        if not one.row.state.is_leased:
            attached_again.append(one.lease.lease_id)
    if not rows:
        return Wakeups()
    # Looked at again now that the tasks are locked: a session that was superseded meanwhile would
    # take leases along which have moved to the newer one, and which no sweep would ever find.
    live_session(session.id)
    attempts.take_back(sorted(attached_again))
    update_rows(
        "tasks",
        ["id"],
        ["state", "attempt", "lease_id", "agent_id", "session_id", "leased_at", "started_at"],
        rows,
    )
    changes.apply()
    return after_changes(changes)
