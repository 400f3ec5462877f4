"""The gate and the phases: a lease may start, has started, has ended and uploads.

A task whose newest lease lapsed, but that nobody else claimed, is attached to that lease again:
work that was done is never thrown away for a slow network.
"""

from __future__ import annotations

from collections.abc import Sequence

from airavata_scheduler.models.agent_session import live_session
from airavata_scheduler.models.database import retried, transaction
from airavata_scheduler.models.holding import Holding, latest_first
from airavata_scheduler.models.lease_records import LeaseName, Mark, Started, StartVerdict
from airavata_scheduler.models.patience import Wanted, leaving_locked
from airavata_scheduler.models.report_rules import is_current, is_newest
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.task_rows import TaskRow
from airavata_scheduler.models.wakeups import Wakeups

PHASES = {"running": TaskState.RUNNING, "finalizing": TaskState.FINALIZING}


@leaving_locked
@retried
def start(session_id: str, leases: Sequence[LeaseName]) -> Started:
    """Ask for leave to start payloads; a verdict for each lease, in order.

    `ok` passes the gate (again and again), `cancel` asks to report `cancelled` instead, `finished`
    says that the lease's result was accepted, `superseded` that another lease holds the task,
    `gone` that there is no such task, `later` that somebody has locked it for long. Raises NotFound
    or Conflict as `live_session`.
    """
    with transaction():
        session = live_session(session_id)
        wanted = Wanted(lease.task_id for lease in leases)
        holding = Holding(session, wanted.rows)
        verdicts: dict[LeaseName, StartVerdict] = {
            lease: "later" if wanted.leaves(lease.task_id) else _start(holding, lease)
            for lease in latest_first(leases)
        }
        return Started(verdicts=[verdicts[lease] for lease in leases], wakeups=holding.write())


def _start(holding: Holding, lease: LeaseName) -> StartVerdict:
    row, session = holding.row(lease), holding.session
    if row is None:
        return "gone"
    if holding.may_hold(lease):
        state = row.state if row.state.is_leased else TaskState.LEASED
        holding.take(lease, state, row.started_at or session.now)
        return "ok" if row.cancel_requested_at is None else "cancel"
    finished = row.state in (TaskState.COMPLETED, TaskState.FAILED)
    return "finished" if finished and is_newest(row, lease, session.agent_id) else "superseded"


@leaving_locked
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
        holding = Holding(session, Wanted(m.lease.task_id for m in marks).rows)
        for one in marks:
            row, state = holding.row(one.lease), PHASES[one.phase]
            if row is None or not is_current(row, one.lease, session.agent_id):
                continue
            if state > row.state:
                holding.take(one.lease, state, _started_at(row, one, session.now))
        return holding.write()


def _started_at(row: TaskRow, one: Mark, now: int) -> int:
    """When the payload began: told as an age, so that the agent's clock does not matter."""
    if row.state is TaskState.RUNNING and row.started_at is not None:
        return row.started_at
    began_at = now - max(0, one.started_ms_ago)
    return max(began_at, row.leased_at or began_at)
