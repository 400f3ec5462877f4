"""Taking leases up: what the session of a request holds from now on.

A request may name several leases of one task, and a failover may have forgotten all of them: each
is judged on what the ones before it have left, and a later attempt goes first, for it outranks the
earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from airavata_scheduler.models import attempts
from airavata_scheduler.models.agent_session import Session, live_session
from airavata_scheduler.models.counters import CounterChanges
from airavata_scheduler.models.lease_records import LeaseName
from airavata_scheduler.models.report_rules import is_current, may_reattach
from airavata_scheduler.models.rows import update_rows
from airavata_scheduler.models.settling import after_changes
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.task_rows import TaskRow
from airavata_scheduler.models.wakeups import Wakeups


def latest_first(leases: Iterable[LeaseName]) -> list[LeaseName]:
    """Each lease once, in the order in which they are to be judged."""
    return sorted(dict.fromkeys(leases), key=lambda lease: -lease.attempt)


class Holding:
    """The tasks that a request names, as the leases judged so far have left them.

    To take leases, their rows must be locked.
    """

    def __init__(self, session: Session, rows: Mapping[str, TaskRow]) -> None:
        self.session = session
        self._before, self._now = rows, dict(rows)

    def row(self, lease: LeaseName) -> TaskRow | None:
        """The lease's task as it is by now; None where there is none."""
        return self._now.get(lease.task_id)

    def may_hold(self, lease: LeaseName) -> bool:
        """Whether the session holds the lease, or may take it up again."""
        row = self._now[lease.task_id]
        if is_current(row, lease, self.session.agent_id):
            return True
        return may_reattach(row, lease, self.session)

    def take(self, lease: LeaseName, state: TaskState, started_at: int | None) -> None:
        """The session holds the lease, in this state."""
        row, session = self._now[lease.task_id], self.session
        self._now[row.id] = row._replace(
            state=state,
            attempt=lease.attempt,
            lease_id=lease.lease_id,
            agent_id=session.agent_id,
            session_id=session.id,
            leased_at=row.leased_at or _forgotten_at(session),
            started_at=started_at,
        )

    def write(self) -> Wakeups:
        """Store what was taken. Raises Conflict as `live_session`."""
        taken = [(self._before[i], row) for i, row in self._now.items() if row != self._before[i]]
        if not taken:
            return Wakeups()
        # Looked at again now that the tasks are locked: a session that was superseded meanwhile
        # would take leases along which have moved to the newer one, and which no sweep would find.
        live_session(self.session.id)
        changes = CounterChanges()
        for before, row in taken:
            changes.move(row.node_id, before.state, row.state)
        attempts.take_back(
            sorted(str(row.lease_id) for before, row in taken if not before.state.is_leased)
        )
        update_rows(
            "tasks",
            ["id"],
            ["state", "attempt", "lease_id", "agent_id", "session_id", "leased_at", "started_at"],
            [
                (
                    *(row.id, int(row.state), row.attempt, row.lease_id, row.agent_id),
                    *(row.session_id, row.leased_at, row.started_at),
                )
                for _, row in taken
            ],
        )
        changes.apply()
        return after_changes(changes)


def _forgotten_at(session: Session) -> int:
    """When a lease was given out of which the row does not know: before the commits were lost."""
    return session.now if session.epoch_began_at is None else session.epoch_began_at - 1
