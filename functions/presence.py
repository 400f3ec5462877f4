"""Whether agents are there: what their newest session says, by the database's clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal

from airavata_scheduler.functions import tokens
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.tables import Agent, AgentSession

# online: it heartbeats and takes work   draining: it finishes what it has   safe: it crashed too
# often, and only finishes what it has   unreachable: silent for `suspect_after`   offline: no
# session
Presence = Literal["online", "draining", "safe", "unreachable", "offline", "pending", "revoked"]
FREE: Final = ("cpu", "ram_mb", "gpu", "disk_mb")


def suspect_after_ms(compute: Mapping[str, Any]) -> int:
    """After how much silence an agent of this compute resource (its row) is unreachable."""
    timers = compute["timers"] or {}
    seconds = timers.get("suspect_after_s") or tokens.configuration().suspect_after_s
    return int(seconds * 1000)


def presence(agent: Agent, session: AgentSession | None, *, now: int, suspect_ms: int) -> Presence:
    """How an agent is, given its newest session and the database's time."""
    if agent.state == "pending":
        return "pending"
    if agent.state == "revoked":
        return "revoked"
    if session is None or session.ended_at is not None:
        return "offline"
    if now - session.heartbeat_at > suspect_ms:
        return "unreachable"
    if agent.state == "draining" or session.mode == "draining":
        return "draining"
    return "safe" if session.mode == "safe" else "online"


def sessions_of(agents: list[Agent]) -> dict[str, AgentSession]:
    """The newest session of each of these agents, by its id, in one query."""
    ids = [agent.session_id for agent in agents if agent.session_id]
    if not ids:
        return {}
    return {row.id: row for row in AgentSession.select().where(AgentSession.id.in_(ids))}


def summary(compute: Mapping[str, Any]) -> dict[str, Any]:
    """Who is there on one compute resource (its row), and what they said is free."""
    agents = list(Agent.select().where(Agent.compute_id == compute["id"]))
    sessions = sessions_of(agents)
    now, suspect_ms = now_ms(), suspect_after_ms(compute)
    counts: Counter[Presence] = Counter()
    free = dict.fromkeys(FREE, 0.0)
    held = 0
    for agent in agents:
        session = sessions.get(agent.session_id) if agent.session_id else None
        state = presence(agent, session, now=now, suspect_ms=suspect_ms)
        counts[state] += 1
        if session is None or state not in ("online", "draining", "safe"):
            continue
        held += session.held
        if state == "online":
            for name in FREE:
                free[name] += float((session.free or {}).get(name) or 0)
    return {
        "online": counts["online"] > 0,
        "agents": dict(counts),
        "leases_held": held,
        "free": free,
    }
