"""Agent sessions: one for each start of an agent, whose heartbeats keep all its leases alive."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.models import epoch
from airavata_scheduler.models.agent_session import SUPERSEDED, Session, ended, live_session
from airavata_scheduler.models.database import (
    change,
    execute,
    now_ms,
    now_sql,
    retried,
    transaction,
)
from airavata_scheduler.models.errors import Conflict, Forbidden, NotFound, Unauthenticated
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.heartbeats import Beat, heartbeat
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.lease_records import HoldVerdict, LeaseName, Phase
from airavata_scheduler.models.releasing import reconcile_session
from airavata_scheduler.models.retelling import noted
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.sweeping import LEFT_BEHIND, expire_session
from airavata_scheduler.models.task_rows import LEASED, for_update
from airavata_scheduler.models.wakeups import Wakeups

__all__ = [
    "ALARMING_SWAPS",
    "Beat",
    "Opened",
    "Session",
    "current",
    "end_session",
    "heartbeat",
    "open_session",
    "refusal_of_old",
    "revoke_agent",
]

ALARMING_SWAPS = 3  # sessions that spoke although another had taken over: a cloned state folder
_SPOKE = "swapped"

_REVOKED_PART = 500
_SESSION_COLUMNS = (
    *("id", "agent_id", "compute_id", "boot_id", "state_folder_id", "started_at", "heartbeat_at"),
    *("held", "mode", "free", "last_claim_seq", "heartbeat_seq"),
)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A new session, and a verdict for each lease that the agent still held, in order."""

    session_id: str
    compute_id: str
    verdicts: list[HoldVerdict]
    superseded: str | None  # the session that it took over from, if that had not ended
    swaps: int
    wakeups: Wakeups = field(default_factory=Wakeups)


def current(session_id: str) -> Session:
    """The session. Raises NotFound or Conflict as `live_session` when it is not one any more."""
    return live_session(session_id)


@retried
def open_session(
    *,
    agent_id: str,
    boot_id: str,
    state_folder_id: str,
    version: str,
    capabilities: Mapping[str, Any],
    policy: Mapping[str, Any],
    mode: str = "normal",
    unresolved_claims: Collection[str] = (),
    leases: Sequence[tuple[LeaseName, Phase | None]] = (),
    settled: str | None = None,
) -> Opened:
    """Begin a session; an older one of the same agent ends as superseded and its leases move here.

    `leases` is everything that the agent's journal holds, `unresolved_claims` the claims whose
    answer it has not seen, `settled` as in a heartbeat: nothing was ever acknowledged to an agent
    that says `""`. Raises NotFound (`agent_unknown`), Unauthenticated (`agent_revoked`),
    Forbidden (`agent_pending`).
    """
    with transaction():
        compute_id, previous_id, swaps = _lock_agent(agent_id)
        session_id, now = new_id(), now_ms()
        told = epoch.current() if settled == "" else settled
        superseded = _supersede(previous_id, session_id, now)
        insert_rows(
            "agent_sessions",
            _SESSION_COLUMNS,
            [
                (
                    *(session_id, agent_id, compute_id, boot_id[:128], state_folder_id[:128]),
                    *(now, now, len(leases), mode, canonical_json(noted({}, told)), 0, 0),
                )
            ],
        )
        described = canonical_json(dict(capabilities)), canonical_json(dict(policy))
        change(
            "UPDATE agents SET session_id = %s, seen_at = %s, version_text = %s, "
            "capabilities = %s, policy = %s WHERE id = %s",
            [session_id, now, version[:64], *described, agent_id],
        )
        # Nothing of this agent can be under way: the older session may not claim any more.
        reconciled = reconcile_session(
            session_id, leases, unresolved_claims, absent_for_s=0, settled=told
        )
    return Opened(
        session_id=session_id,
        compute_id=compute_id,
        verdicts=reconciled.verdicts,
        superseded=superseded,
        swaps=swaps,
        wakeups=reconciled.wakeups,
    )


def _lock_agent(agent_id: str) -> tuple[str, str | None, int]:
    rows = execute(
        f"SELECT compute_id, session_id, swaps, state FROM agents WHERE id = %s{for_update()}",
        [agent_id],
    )
    if not rows:
        raise NotFound(
            "This agent is not known here.", code="agent_unknown", hint="Enrol it again."
        )
    compute_id, session_id, swaps, state = rows[0]
    if state == "revoked":
        raise Unauthenticated(
            "This agent was revoked.", code="agent_revoked", hint="Enrol it again with a new token."
        )
    if state == "pending":
        raise Forbidden(
            "This agent waits for approval.",
            code="agent_pending",
            hint="Ask the owner of the compute resource to approve it with its code.",
        )
    return compute_id, session_id, swaps


def _supersede(previous_id: str | None, session_id: str, now: int) -> str | None:
    """End the agent's earlier session and take its leases over; its id where it was still open."""
    if previous_id is None:
        return None
    rows = execute(
        f"SELECT ended_at, end_reason FROM agent_sessions WHERE id = %s{for_update()}",
        [previous_id],
    )
    if not rows:
        return None
    ended_at, reason = rows[0]
    if ended_at is None or reason == LEFT_BEHIND:
        change(
            "UPDATE agent_sessions SET ended_at = COALESCE(ended_at, %s), end_reason = %s "
            "WHERE id = %s",
            [now, SUPERSEDED, previous_id],
        )
    change(
        f"UPDATE tasks SET session_id = %s WHERE session_id = %s AND state IN {LEASED}",
        [session_id, previous_id],
    )
    return previous_id if ended_at is None else None


@retried
def refusal_of_old(agent_id: str, session_id: str) -> Conflict:
    """What to answer a request of a session that is not the agent's newest, as `live_session` does.

    Whoever speaks for a superseded session was alive when another took over: one swap, counted once
    for each session. A process that died says nothing, so an agent that was started again is none.
    """
    with transaction():
        first = change(
            "UPDATE agent_sessions SET mode = %s "
            "WHERE id = %s AND agent_id = %s AND end_reason = %s AND mode <> %s",
            [_SPOKE, session_id, agent_id, SUPERSEDED, _SPOKE],
        )
        if first:
            change("UPDATE agents SET swaps = swaps + 1 WHERE id = %s", [agent_id])
        reason = execute("SELECT end_reason FROM agent_sessions WHERE id = %s", [session_id])[0][0]
    return ended(str(reason))


@retried
def end_session(session_id: str, reason: str = LEFT_BEHIND) -> None:
    """The agent stops. Payloads that it left running keep their leases until `requeue_after`.

    Ending a session twice does nothing.
    """
    change(
        f"UPDATE agent_sessions SET ended_at = {now_sql()}, end_reason = %s "
        "WHERE id = %s AND ended_at IS NULL",
        [LEFT_BEHIND, session_id],
    )
    # Why it stopped is for people; how its leases end is the sweep's to know, so they are two
    # things.
    change(
        "UPDATE agent_sessions SET mode = %s WHERE id = %s AND end_reason = %s",
        [reason[:16], session_id, LEFT_BEHIND],
    )


def revoke_agent(agent_id: str) -> Wakeups:
    """Revoke an agent: its tokens end, its session ends, its leases are requeued at once.

    Raises NotFound (`agent_unknown`).
    """
    changed = change(
        "UPDATE agents SET state = 'revoked', token_version = token_version + 1 WHERE id = %s",
        [agent_id],
    )
    if not changed:
        raise NotFound("This agent is not known here.", code="agent_unknown")
    wakeups = Wakeups()
    for (session_id,) in execute(
        "SELECT id FROM agent_sessions WHERE agent_id = %s "
        "AND (ended_at IS NULL OR end_reason = %s)",
        [agent_id, LEFT_BEHIND],
    ):
        count = _REVOKED_PART
        while count == _REVOKED_PART:
            count, woken = expire_session(session_id, _REVOKED_PART, 0, reason="revoked")
            wakeups.merge(woken)
    return wakeups
