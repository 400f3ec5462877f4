"""Which compute resources could run something now, and why the others cannot.

One query for the resources, one for their agents; nothing here depends on how many tasks there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peewee import JOIN

from airavata_scheduler.functions import tokens
from airavata_scheduler.functions.selected import dict_rows, tuple_rows
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.tables import Agent, AgentSession, ComputeResource

_SIZES = (("cpu", "cores"), ("ram_mb", "MiB of memory"), ("gpu", "GPUs"))


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One cause in one line, with a stable code and the next step."""

    code: str
    detail: str
    hint: str | None = None

    def shown(self) -> dict[str, Any]:
        """The reason as JSON."""
        return {"code": self.code, "detail": self.detail, "hint": self.hint}


@dataclass(frozen=True, kw_only=True)
class AgentFacts:
    """One agent of a compute resource, and how its newest session is."""

    name: str
    state: str
    capabilities: Mapping[str, Any]
    heartbeat_at: int | None
    ended_at: int | None
    mode: str | None
    held: int
    free: Mapping[str, Any]

    def silent_ms(self, now: int) -> int | None:
        """How long nothing was heard of it; None if it never had a session."""
        return None if self.heartbeat_at is None else max(0, now - self.heartbeat_at)

    @property
    def is_taking(self) -> bool:
        """Whether it would take work if it is there."""
        return self.state == "active" and self.ended_at is None and self.mode == "normal"

    @property
    def disk_is_full(self) -> bool:
        """Whether it said that its disk has no room for tasks."""
        return self.free.get("disk_mb") == 0


@dataclass(frozen=True, kw_only=True)
class Site:
    """One compute resource with its agents."""

    id: str
    name: str
    kind: str
    state: str
    price_per_core_hour: float
    suspect_after_ms: int
    now: int
    agents: list[AgentFacts] = field(default_factory=list)

    def present(self) -> list[AgentFacts]:
        """The agents that take work and were heard of lately."""
        return [agent for agent in self.agents if agent.is_taking and self._is_heard(agent)]

    def obstacle(self, needs: Mapping[str, Any], features: Sequence[str]) -> Reason | None:
        """Why no agent here can run a task with these needs now; None where one can.

        `needs` has `cpu`, `ram_mb` and `gpu`; `features` are what the agent must offer.
        """
        if self.state != "active":
            return Reason(
                code="resource_disabled",
                detail=f"The compute resource {self.name} is disabled.",
                hint="Its administrator can enable it.",
            )
        present = self.present()
        if not present:
            return self._absence()
        if all(agent.disk_is_full for agent in present):
            return Reason(
                code="agent_disk_full",
                detail=f"The disk of the agent {present[0].name} on {self.name} is nearly full: it "
                "takes no new work.",
                hint="Free some space on its machine, or set its OUTPUT_DIR to another disk.",
            )
        return self._shortage(present, needs, features)

    def _is_heard(self, agent: AgentFacts) -> bool:
        silent_ms = agent.silent_ms(self.now)
        return silent_ms is not None and silent_ms <= self.suspect_after_ms

    def _absence(self) -> Reason:
        """Nobody is there: never enrolled, not approved, draining, ended, or silent."""
        enrolled = [agent for agent in self.agents if agent.state != "revoked"]
        if not enrolled:
            return Reason(
                code="no_agent",
                detail=f"No agent is enrolled on {self.name}.",
                hint=f"airavata agent install-line {self.name}",
            )
        waiting = [agent for agent in enrolled if agent.state == "pending"]
        if len(waiting) == len(enrolled):
            return Reason(
                code="agent_pending",
                detail=f"The agent {waiting[0].name} on {self.name} waits to be approved.",
                hint=f"airavata agent get {waiting[0].name}",
            )
        draining = [a for a in enrolled if a.state == "draining" or a.mode == "draining"]
        if draining and self._is_heard(draining[0]):
            return Reason(
                code="agent_draining",
                detail=f"The agent {draining[0].name} on {self.name} is draining: it takes no "
                "new work.",
                hint=f"It takes work again after: airavata agent resume {draining[0].name}",
            )
        return self._silence(enrolled)

    def _silence(self, enrolled: list[AgentFacts]) -> Reason:
        newest = max(enrolled, key=lambda agent: agent.heartbeat_at or 0)
        silent_ms = newest.silent_ms(self.now)
        if silent_ms is None:
            detail = f"The agent {newest.name} on {self.name} is enrolled and was never started."
        elif newest.ended_at is not None:
            detail = f"The agent {newest.name} on {self.name} stopped {ago(silent_ms)} ago."
        elif newest.mode == "safe" and self._is_heard(newest):
            return Reason(
                code="agent_silent",
                detail=f"The agent {newest.name} on {self.name} crashed again and again, and takes "
                "no work for ten minutes (safe mode).",
                hint="Look at its log; to end safe mode at once, type on its machine: "
                "airavata-agent resume",
            )
        else:
            detail = f"The agent {newest.name} on {self.name} is silent since {ago(silent_ms)}."
        return Reason(
            code="agent_silent",
            detail=detail,
            hint="Start it on its machine: ~/.airavata-agent/bin/airavata-agent run",
        )

    def _shortage(
        self, present: list[AgentFacts], needs: Mapping[str, Any], features: Sequence[str]
    ) -> Reason | None:
        """What the task needs and no present agent has."""
        for key, words in _SIZES:
            needed = int(needs.get(key) or 0)
            most = max(int(agent.capabilities.get(key) or 0) for agent in present)
            if needed > most:
                return Reason(
                    code="too_large",
                    detail=f"It needs {needed} {words}; the largest agent on {self.name} has "
                    f"{most}.",
                    hint="Ask for less in `resources`, or add a larger agent.",
                )
        for feature in features:
            if not any(feature in (a.capabilities.get("features") or ()) for a in present):
                return Reason(
                    code="capability_missing",
                    detail=f"It needs {feature}; no agent on {self.name} offers it.",
                    hint="On the agent's machine: ~/.airavata-agent/bin/airavata-agent doctor",
                )
        return None


def usable(compute: Sequence[str], project_id: str) -> list[Site]:
    """The named compute resources, or where none is named all that the project may use."""
    clause = ComputeResource.project_id.is_null() | (ComputeResource.project_id == project_id)
    clause = ComputeResource.id.in_(list(compute)) if compute else clause
    rows = dict_rows(ComputeResource.select().where(clause).order_by(ComputeResource.name))
    if not compute:
        rows = [row for row in rows if row["state"] == "active"]
    agents = _agents([row["id"] for row in rows])
    now = now_ms()
    default_s = tokens.configuration().suspect_after_s
    return [
        Site(
            id=row["id"],
            name=row["name"],
            kind=row["kind"],
            state=row["state"],
            price_per_core_hour=row["price_per_core_hour"],
            suspect_after_ms=round(1000 * float(row["timers"].get("suspect_after_s") or default_s)),
            now=now,
            agents=agents.get(row["id"], []),
        )
        for row in rows
    ]


def _agents(compute_ids: list[str]) -> dict[str, list[AgentFacts]]:
    if not compute_ids:
        return {}
    rows = tuple_rows(
        Agent.select(
            Agent.compute_id,
            Agent.name,
            Agent.state,
            Agent.capabilities,
            AgentSession.heartbeat_at,
            AgentSession.ended_at,
            AgentSession.mode,
            AgentSession.held,
            AgentSession.free,
        )
        .join(AgentSession, JOIN.LEFT_OUTER, on=(AgentSession.id == Agent.session_id))
        .where(Agent.compute_id.in_(compute_ids))
        .order_by(Agent.name)
    )
    found: dict[str, list[AgentFacts]] = {}
    for compute_id, name, state, capabilities, heartbeat_at, ended_at, mode, held, free in rows:
        facts = AgentFacts(
            name=name,
            state=state,
            capabilities=capabilities or {},
            heartbeat_at=heartbeat_at,
            ended_at=ended_at,
            mode=mode,
            held=held or 0,
            free=free or {},
        )
        found.setdefault(compute_id, []).append(facts)
    return found


def ago(milliseconds: int) -> str:
    """A span of time as people say it: `40 s`, `12 min`, `3 h`, `2 d`."""
    seconds = milliseconds // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
