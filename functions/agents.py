"""Agents as their users see them; the agents' own API is in the `agent_…` modules."""

from __future__ import annotations

import hmac
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.functions import access, audit, naming, pagination, presence, principals
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.presence import Presence
from airavata_scheduler.functions.shapes import Body, rfc3339
from airavata_scheduler.models import releases
from airavata_scheduler.models import sessions as agent_sessions
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, Conflict
from airavata_scheduler.models.tables import Agent, AgentSession, ComputeResource
from airavata_scheduler.queue import wake
from airavata_scheduler.queue.announce import announce

api = APIBlueprint("agents", __name__, url_prefix="/api/v1/agents", abp_tags=[Tag(name="agents")])


class AgentAnswer(BaseModel):
    """An agent, and how it is now."""

    id: str
    name: str
    compute_id: str
    compute: str
    state: str = Field(description="pending, active, draining or revoked: what was decided")
    presence: Presence = Field(description="What is seen of it")
    host: dict[str, Any]
    version: str
    needs_upgrade: bool = Field(description="Too old for this server: it is given no new work")
    capabilities: dict[str, Any]
    leases_held: int
    free: dict[str, Any] | None
    swaps: int = Field(description="Sessions that took over from a living one; 3 are alarming")
    created_at: str
    enrolled_at: str | None
    seen_at: str | None


class AgentPage(BaseModel):
    """A page of agents."""

    items: list[AgentAnswer]
    next: str | None


class AgentQuery(PageQuery):
    """Filters of the list."""

    compute: str | None = Field(None, description="Compute resource, by id or name")


class ApproveBody(Body):
    """The code that the agent shows at its own terminal."""

    code: str = Field(min_length=4, max_length=32)


@api.get("", responses={200: AgentPage})
def list_agents(query: AgentQuery) -> dict[str, Any]:
    """List agents of the compute resources that you may see."""
    rows = naming.rows_visible("agent", principals.current())
    for compute in access.targets("compute_resource"):
        rows = rows.where(Agent.compute_id == compute.id)
    position = pagination.after(query)
    if position:
        rows = rows.where(Agent.id > position[0])
    found = list(rows.order_by(Agent.id).limit(query.limit + 1))
    shown = _Shown(found)
    return pagination.page(found, query, key=lambda row: [row.id], show=shown.document)


@api.get("/<agent>", responses={200: AgentAnswer})
def get_agent() -> Response:
    """Show an agent."""
    return _answer(access.target("agent").id)


@api.post("/<agent>/approve", responses={200: AgentAnswer})
def approve_agent(body: ApproveBody) -> Response:
    """Let a pending agent in, by the code that it shows: so you know which machine it is."""
    found = access.target("agent")
    if not hmac.compare_digest(_plain(body.code), _plain(found.row["approval_code"] or "")):
        if found.row["state"] != "pending":
            raise _wrong_state(found, "is not waiting for an approval")
        raise BadInput("This is not the agent's code.", code="wrong_code", field="code")
    _move(found, "approve", {"pending": "active"})
    return _answer(found.id)


@api.post("/<agent>/drain", responses={200: AgentAnswer})
def drain_agent() -> Response:
    """Let an agent finish what it has and take nothing new."""
    found = access.target("agent")
    _move(found, "drain", {"active": "draining", "draining": "draining"})
    return _answer(found.id)


@api.post("/<agent>/resume", responses={200: AgentAnswer})
def resume_agent() -> Response:
    """Let a drained agent take work again."""
    found = access.target("agent")
    _move(found, "resume", {"draining": "active", "active": "active"})
    return _answer(found.id)


@api.post("/<agent>/revoke", responses={200: AgentAnswer})
def revoke_agent() -> Response:
    """Shut an agent out for good; what it was running goes back to the queue."""
    found = access.target("agent")
    with transaction():
        wakeups = agent_sessions.revoke_agent(found.id)
        audit.append("revoke", "agent", found.id, project_id=found.project_id)
    announce(wakeups)
    return _answer(found.id)


def _move(found: naming.Target, action: str, states: dict[str, str]) -> None:
    """Change the agent's state by `states` (from → to); wake its session so that it hears of it."""
    after = states.get(found.row["state"])
    if after is None:
        raise _wrong_state(found, f"is {found.row['state']}")
    with transaction():
        changed = (
            Agent.update(state=after, approval_code=None)
            .where((Agent.id == found.id) & (Agent.state == found.row["state"]))
            .execute()
        )
        if not changed:
            raise _wrong_state(found, "was changed by somebody else at this moment")
        audit.append(action, "agent", found.id, project_id=found.project_id)
    if found.row["session_id"]:
        wake.publish("attention", found.row["session_id"])


def _wrong_state(found: naming.Target, why: str) -> Conflict:
    return Conflict(f"The agent {found.name} {why}.", code="agent_state")


def _plain(code: str) -> bytes:
    return code.replace("-", "").replace(" ", "").upper().encode(errors="replace")


def _answer(agent_id: str) -> Response:
    agent = Agent.get_by_id(agent_id)
    return jsonify(_Shown([agent]).document(agent))


class _Shown:
    """The documents of some agents, with what they need read once for all."""

    def __init__(self, agents: list[Agent]) -> None:
        self._now = now_ms()
        self._sessions = presence.sessions_of(agents)
        ids = {agent.compute_id for agent in agents}
        rows: Any = ComputeResource.select().where(ComputeResource.id.in_(ids)).dicts()
        self._computes: dict[str, dict[str, Any]] = {row["id"]: row for row in rows}

    def document(self, agent: Agent) -> dict[str, Any]:
        """One agent's document."""
        compute = self._computes[agent.compute_id]
        session: AgentSession | None = self._sessions.get(agent.session_id or "")
        is_alive = session is not None and session.ended_at is None
        return {
            "id": agent.id,
            "name": agent.name,
            "compute_id": agent.compute_id,
            "compute": compute["name"],
            "state": agent.state,
            "presence": presence.presence(
                agent, session, now=self._now, suspect_ms=presence.suspect_after_ms(compute)
            ),
            "host": agent.host,
            "version": agent.version_text,
            "needs_upgrade": not releases.may_claim(agent.version_text),
            "capabilities": agent.capabilities,
            "leases_held": session.held if session is not None and is_alive else 0,
            "free": session.free if session is not None and is_alive else None,
            "swaps": agent.swaps,
            "created_at": rfc3339(agent.created_at),
            "enrolled_at": rfc3339(agent.enrolled_at),
            "seen_at": rfc3339(session.heartbeat_at if session else agent.seen_at),
        }
