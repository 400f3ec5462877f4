"""Claiming: an agent's session asks for work and gets leases.

One transaction, four or five statements whatever the number of leases: lock the session, look at
the claim's earlier answer, lock candidates that nobody else holds, grant in one UPDATE, count.
Leases of one session are granted one claim after the other (the session's row is locked), those of
different sessions beside each other (SKIP LOCKED).
"""

from __future__ import annotations

import threading
import time

from airavata_scheduler.models.agent_session import Session, live_session
from airavata_scheduler.models.counters import CounterChanges, read_nodes
from airavata_scheduler.models.database import change, execute, retried, skip_locked, transaction
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.ids import new_lease_id
from airavata_scheduler.models.lease_records import Claimed, Free, Grant, LeaseName
from airavata_scheduler.models.node_facts import facts_of
from airavata_scheduler.models.retelling import HOLD_S, held_up_until
from airavata_scheduler.models.rows import insert_rows, update_rows
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.task_rows import LEASED
from airavata_scheduler.models.wakeups import Wakeups

MAX_GRANTS = 500
PROBE_ROWS = 1000  # how far a backlog is looked at before it counts as plenty
SESSIONS_KEPT_S = 2.0
SILENT_MS = 90_000  # a session silent for longer is not counted among those that share

_CANDIDATES = (
    "SELECT id, experiment_id, node_id, idx, generation, attempt, arguments, gate_open, cpu, "
    "ram_mb, gpu FROM tasks WHERE compute_id = %s AND state = 1 AND available_at <= %s "
    "AND cpu <= %s AND ram_mb <= %s AND gpu <= %s{held_up} "
    "ORDER BY priority DESC, available_at LIMIT %s"
)
_HELD_UP = " AND created_at > %s"
# The rows of a compute resource that are ready, but no more of them than decide the question.
_BACKLOG = (
    "SELECT COUNT(*) FROM (SELECT 1 AS ready FROM tasks WHERE compute_id = %s AND state = 1 "
    "AND available_at <= %s LIMIT %s) AS probe"
)
_SHARING = (
    "SELECT COUNT(*) FROM agent_sessions WHERE ended_at IS NULL AND compute_id = %s "
    "AND heartbeat_at > %s"
)

_sessions_seen: dict[str, tuple[float, int]] = {}
_sessions_lock = threading.Lock()


@retried
def claim(
    *,
    session_id: str,
    claim_id: str,
    seq: int,
    max_tasks: int,
    free: Free,
    hold_s: float = HOLD_S,
) -> Claimed:
    """Grant up to `max_tasks` leases (at most 500) to a session.

    `claim_id` (at most 64 characters) and `seq` (rising by one a claim) are in the agent's journal
    before it asks. The same `claim_id` again gets the same leases that are still current, so that a
    lost answer costs nothing; a `seq` older than the newest one seen grants nothing. A long-poll
    calls this again with the same `claim_id` and `seq` until something is granted.

    In a new epoch, tasks from before it are not granted until all agents have told what it forgot,
    or for `hold_s`.

    Raises NotFound or Conflict when the session may not claim (see `live_session`).
    """
    if not 0 < len(claim_id) <= 64:
        raise BadInput(
            "A claim id has 1 to 64 characters.", code="claim_id_malformed", field="claim_id"
        )
    with transaction():
        session = live_session(session_id, lock=True)
        answered = execute("SELECT agent_id FROM claims WHERE claim_id = %s", [claim_id])
        if answered:
            return _replay(session, claim_id) if answered[0][0] == session.agent_id else Claimed()
        if seq < session.last_claim_seq or not session.may_claim:
            return Claimed()
        if seq > session.last_claim_seq:
            change("UPDATE agent_sessions SET last_claim_seq = %s WHERE id = %s", [seq, session_id])
        wanted = _fair_share(session, min(max_tasks, MAX_GRANTS))
        return _grant(session, claim_id, wanted, free, held_up_until(session, hold_s))


def _fair_share(session: Session, max_tasks: int) -> int:
    """How many leases this session may have now: when tasks are scarce they are shared evenly."""
    if max_tasks <= 1:
        return max_tasks
    sessions = _sharing_sessions(session)
    if sessions <= 1:
        return max_tasks
    enough = max(PROBE_ROWS, min(sessions * max_tasks, 10 * PROBE_ROWS))
    backlog = int(execute(_BACKLOG, [session.compute_id, session.now, enough])[0][0])
    if backlog >= enough:
        return max_tasks
    return min(max_tasks, max(1, -(-backlog // sessions)))


def _sharing_sessions(session: Session) -> int:
    """How many live sessions the compute resource has; two seconds old at most."""
    with _sessions_lock:
        read_at_s, count = _sessions_seen.get(session.compute_id, (0.0, 0))
    if time.monotonic() - read_at_s < SESSIONS_KEPT_S:
        return count
    count = execute(_SHARING, [session.compute_id, session.now - SILENT_MS])[0][0]
    with _sessions_lock:
        _sessions_seen[session.compute_id] = (time.monotonic(), count)
    return int(count)


def _grant(
    session: Session, claim_id: str, wanted: int, free: Free, held_up: int | None
) -> Claimed:
    if wanted < 1:
        return Claimed()
    younger = [] if held_up is None else [held_up]
    rows = execute(
        _CANDIDATES.format(held_up=_HELD_UP if younger else "") + skip_locked(),
        [session.compute_id, session.now, free.cpu, free.ram_mb, free.gpu, *younger, wanted],
    )
    fitting = _fitting(rows, free)
    if not fitting:
        return Claimed()
    facts = facts_of(row[2] for row in fitting)
    grants = [
        Grant(
            lease=LeaseName(row[0], row[5] + 1, new_lease_id()),
            experiment_id=row[1],
            node_id=row[2],
            node=facts[row[2]].name,
            idx=row[3],
            generation=row[4],
            arguments=row[6],
            gate_open=bool(row[7]),
            leased_at=session.now,
        )
        for row in fitting
    ]
    _store(session, claim_id, grants)
    return Claimed(grants=grants, wakeups=_after(grants))


def _fitting(rows: list[tuple], free: Free) -> list[tuple]:  # type: ignore[type-arg]
    """Cut the candidates so that large tasks are not hoarded.

    A task of one core and no GPU may be fetched ahead: the caller's `max_tasks` bounds those.
    Larger ones are granted only as far as all of them fit at once.
    """
    cpu, ram_mb, gpu = free.cpu, free.ram_mb, free.gpu
    kept = []
    for row in rows:
        need_cpu, need_ram_mb, need_gpu = row[8:11]
        if need_cpu > 1 or need_gpu:
            if need_cpu > cpu or need_ram_mb > ram_mb or need_gpu > gpu:
                continue
            cpu, ram_mb, gpu = cpu - need_cpu, ram_mb - need_ram_mb, gpu - need_gpu
        kept.append(row)
    return kept


def _store(session: Session, claim_id: str, grants: list[Grant]) -> None:
    now = session.now
    update_rows(
        "tasks",
        ["id"],
        ["attempt", "lease_id", "agent_id", "session_id", "claim_id", "leased_at"],
        [
            (g.task_id, g.attempt, g.lease.lease_id, session.agent_id, session.id, claim_id, now)
            for g in grants
        ],
        set_sql='"state" = 2, "started_at" = NULL',
    )
    insert_rows(
        "claims",
        ("claim_id", "agent_id", "session_id", "granted", "created_at"),
        [(claim_id, session.agent_id, session.id, len(grants), now)],
    )
    changes = CounterChanges()
    for granted in grants:
        changes.move(granted.node_id, TaskState.QUEUED, TaskState.LEASED)
    changes.apply()


def _after(grants: list[Grant]) -> Wakeups:
    wakeups = Wakeups(experiments={granted.experiment_id for granted in grants})
    for node in read_nodes(granted.node_id for granted in grants).values():
        if node.wants_rows():
            wakeups.expand.add(node.id)
    return wakeups


def _replay(session: Session, claim_id: str) -> Claimed:
    """What is left of an earlier answer: leases still current, and those known to have ended."""
    rows = execute(
        "SELECT id, experiment_id, node_id, idx, generation, attempt, arguments, gate_open, "
        "lease_id, leased_at, state FROM tasks "
        f"WHERE session_id = %s AND (state = 1 OR state IN {LEASED}) AND claim_id = %s",
        [session.id, claim_id],
    )
    names = facts_of(row[2] for row in rows)
    grants, dead = [], []
    for row in rows:
        if row[8] is None:
            continue
        lease = LeaseName(row[0], row[5], row[8])
        if row[10] == TaskState.QUEUED:
            dead.append(lease)
            continue
        grants.append(
            Grant(
                lease=lease,
                experiment_id=row[1],
                node_id=row[2],
                node=names[row[2]].name,
                idx=row[3],
                generation=row[4],
                arguments=row[6],
                gate_open=bool(row[7]),
                leased_at=row[9],
            )
        )
    return Claimed(grants=grants, dead=dead, replay=True)
