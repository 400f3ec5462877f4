"""Sweeping: leases that nobody speaks for any more.

Two things end a lease without its agent: an offer that was never taken up, and a session that was
silent for longer than `requeue_after`. Neither happens while the outage grace lasts: then the
silence may have been ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from airavata_scheduler.models import attempts, epoch, history, stats
from airavata_scheduler.models.database import (
    Contended,
    change,
    execute,
    marks,
    now_ms,
    retried,
    transaction,
)
from airavata_scheduler.models.patience import Wanted, leaving_locked
from airavata_scheduler.models.report_rules import lost
from airavata_scheduler.models.settling import Settlement, settle
from airavata_scheduler.models.states import Outcome, TaskState
from airavata_scheduler.models.task_rows import (
    LEASED,
    TASK_COLUMNS,
    TaskRow,
    for_update,
    task_row,
)
from airavata_scheduler.models.wakeups import Wakeups

# A session that ended while its payloads went on still has its leases, until it is silent too long.
LEFT_BEHIND = "stopped"
_PART = 200  # tasks settled in one transaction

_SESSIONS_A_SWEEP = 500

_OFFERS = (
    "SELECT t.id FROM agent_sessions s JOIN tasks t ON t.session_id = s.id AND t.state = 2 "
    "WHERE s.ended_at IS NULL AND t.gate_open = %s AND t.started_at IS NULL AND t.leased_at < %s "
    "AND s.compute_id IN ({computes}) ORDER BY t.leased_at LIMIT %s"
)
_SILENT = (
    "SELECT s.id FROM agent_sessions s WHERE (s.ended_at IS NULL OR s.end_reason = %s) "
    "AND s.heartbeat_at < %s AND s.compute_id IN ({computes}) ORDER BY s.heartbeat_at LIMIT %s"
)


def expire_offers(*, offer_ack_s: float = 60.0, limit: int = 1000) -> Wakeups:
    """Requeue offers whose gate was not passed in time; at most `limit` of them, at no cost.

    A resource's own `offer_ack_s` in its timers goes before. Leases with an open gate never lapse
    by time: their agent may be running them.
    """
    wakeups = Wakeups()
    if epoch.in_grace():
        return wakeups
    now = now_ms()
    late: list[str] = []
    for after_ms, computes in _by_timer("offer_ack_s", offer_ack_s).items():
        sql = _OFFERS.format(computes=marks(computes))
        rows = execute(sql, [False, now - after_ms, *computes, limit - len(late)])
        late += [row[0] for row in rows]
    for start in range(0, len(late), _PART):
        wakeups.merge(_lapse(late[start : start + _PART]))
    return wakeups


@leaving_locked
@retried
def _lapse(task_ids: list[str]) -> Wakeups:
    began = history.now()
    with transaction():
        rows = Wanted(task_ids).rows.values()
        now = now_ms()
        lapsed = [
            _lapsed(row)
            for row in rows
            if row.state is TaskState.LEASED and not row.gate_open and row.started_at is None
        ]
        wakeups = settle(lapsed, now)
    history.note("lapsed", began=began, leases=_names(s.row for s in lapsed))
    return wakeups


def _names(rows: Iterable[TaskRow]) -> list[str]:
    return [f"{row.id}.{row.attempt}.{row.lease_id}" for row in rows]


def _lapsed(row: TaskRow) -> Settlement:
    if row.cancel_requested_at is not None:
        return Settlement(row=row, state=TaskState.CANCELLED, reason="cancelled by a user")
    return Settlement(
        row=row, state=TaskState.QUEUED, reason="offer_lapsed: not started in time", keep_lease=True
    )


def expire_sessions(*, requeue_after_s: float = 900.0, limit: int = 1000) -> Wakeups:
    """End sessions that were silent too long and requeue their tasks, at most `limit` tasks a call.

    The infrastructure budget pays; the attempts are kept as EXPIRED. A resource's own
    `requeue_after_s` in its timers goes before.
    """
    wakeups = Wakeups()
    if epoch.in_grace():
        return wakeups
    now = now_ms()
    left = limit
    for after_ms, computes in _by_timer("requeue_after_s", requeue_after_s).items():
        sql = _SILENT.format(computes=marks(computes))
        silent = execute(sql, [LEFT_BEHIND, now - after_ms, *computes, _SESSIONS_A_SWEEP])
        for (session_id,) in silent:
            count = _PART
            while left > 0 and count == _PART:
                try:
                    count, woken = expire_session(session_id, min(left, _PART), after_ms)
                except Contended:
                    # Somebody holds one of its tasks locked for long: the other sessions go on.
                    break
                wakeups.merge(woken)
                left -= count
    return wakeups


@retried
def expire_session(
    session_id: str, limit: int, after_ms: int, *, reason: str = "expired"
) -> tuple[int, Wakeups]:
    """Requeue up to `limit` tasks of a session silent for `after_ms`; when none is left it ends.

    Returns how many tasks were requeued. A session that spoke meanwhile is left alone.
    """
    began = history.now()
    with transaction():
        found = execute(
            f"SELECT heartbeat_at FROM agent_sessions WHERE id = %s{for_update()}",
            [session_id],
        )
        now = now_ms()
        if not found or found[0][0] > now - after_ms:
            return 0, Wakeups()
        rows = [
            task_row(row)
            for row in execute(
                f"SELECT {TASK_COLUMNS} FROM tasks WHERE session_id = %s AND state IN {LEASED} "
                f"ORDER BY id LIMIT %s{for_update()}",
                [session_id, limit],
            )
        ]
        if len(rows) < limit:
            change(
                "UPDATE agent_sessions SET ended_at = COALESCE(ended_at, %s), end_reason = %s "
                "WHERE id = %s",
                [now, reason, session_id],
            )
        silent_s = (now - found[0][0]) // 1000
        said = ("agent_expired", f"no word from the agent for {silent_s} s")
        settlements = end_unreported(rows, Outcome.EXPIRED, said, now, keep_lease=True)
        wakeups = settle(settlements, now)
    history.note(
        "expired",
        began=began,
        session=session_id,
        after_s=after_ms / 1000,
        silent_s=silent_s,
        leases=_names(rows),
    )
    return len(rows), wakeups


def end_unreported(
    rows: Sequence[TaskRow],
    outcome: Outcome,
    said: tuple[str, str],
    now: int,
    *,
    keep_lease: bool = False,
) -> list[Settlement]:
    """Store attempts whose agent will not report them; how their tasks go on, still to be settled.

    `said` is the code and the message; the infrastructure budget pays. The rows must be locked.
    """
    code, message = said
    lost_before = attempts.agents_that_lost(row.id for row in rows if row.infra_failures)
    attempts.store([attempts.unreported(row, outcome, code, message, now) for row in rows])
    stats.add(
        (str(row.compute_id), outcome.value, max(0, now - (row.started_at or now))) for row in rows
    )
    return [
        lost(
            row,
            f"{code}: {message}",
            len(lost_before.get(row.id, set()) | {str(row.agent_id)}),
            keep_lease=keep_lease,
        )
        for row in rows
    ]


def _by_timer(name: str, default_s: float) -> dict[int, list[str]]:
    """The compute resources by their own timer of this name, or the deployment's (milliseconds).

    So that those with a long one, and many rows that wait for it, never hide the rows of others.
    """
    found: dict[int, list[str]] = {}
    for compute_id, timers in execute("SELECT id, timers FROM compute_resources ORDER BY id"):
        own = json.loads(timers).get(name) if timers else None
        after_ms = int(float(default_s if own is None else own) * 1000)
        found.setdefault(after_ms, []).append(compute_id)
    return found
