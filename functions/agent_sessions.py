"""An agent's sessions: one per start, kept alive by one heartbeat whatever it runs."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Literal

from pydantic import Field

from airavata_scheduler.functions import agent_identity, tokens
from airavata_scheduler.functions.agent_facts import Capabilities, Policy, numbers
from airavata_scheduler.functions.agent_lease_access import AgentBody, blueprint, lease_named
from airavata_scheduler.models import epoch, history, releases, sessions
from airavata_scheduler.models.database import execute, now_ms
from airavata_scheduler.models.lease_records import LeaseName, Mark, Phase
from airavata_scheduler.queue.announce import announce

MAX_LEASES = 20_000
MAX_CLAIM_IDS = 1000
FLEET_HEARTBEATS_PER_S = 200.0
FLEET_COUNTED_S = 10.0
ROTATE_AFTER_MS = int(0.67 * 30 * 24 * 3600 * 1000)  # two thirds of 30 days
POLL_CEILING_S = 15.0
LONGEST_RUN_S = 10 * 365 * 86_400.0  # an age beyond it is a mistake, and must fit the column

# Other words of the agent (it waits, it has the lease only) are no phase that a task goes through.
_PHASES: dict[str, Phase] = {"running": "running", "finalizing": "finalizing"}
_MODES = frozenset({"normal", "safe", "draining"})

api = blueprint("agent_sessions")


class HeldEntry(AgentBody):
    """A lease that the agent says it holds."""

    lease: str
    phase: str = "leased"


class SessionBody(AgentBody):
    """What a starting agent says of itself and of what it holds."""

    boot_id: str = Field(max_length=128)
    state_folder_id: str = Field(max_length=128)
    version: str = Field("", max_length=64)
    capabilities: Capabilities = Field(default_factory=lambda: Capabilities.model_validate({}))
    policy: Policy = Field(default_factory=dict)
    mode: str = Field("normal", max_length=32)
    unresolved_claims: list[str] = Field(default_factory=list, max_length=MAX_CLAIM_IDS)
    leases: list[HeldEntry] = Field(default_factory=list, max_length=MAX_LEASES)
    settled: str | None = Field(None, max_length=64)


class Delta(AgentBody):
    """A phase that a lease has reached."""

    lease: str
    phase: Literal["running", "finalizing"]
    started_s_ago: float = Field(0.0, allow_inf_nan=False)


class Digest(AgentBody):
    """How many leases the agent holds, and the exclusive or of their ids in hexadecimal."""

    count: int = Field(ge=0, le=2**31 - 1)
    xor: str = Field(max_length=64)


class HeartbeatBody(AgentBody):
    """What changed since the last heartbeat; `full` every tenth time and when we want it.

    `epoch` is the newest that the agent has heard of, `settled` the one in which it has reported
    again all that was acknowledged before.
    """

    seq: int = Field(ge=0, le=2**62)
    epoch: str | None = Field(None, max_length=64)
    settled: str | None = Field(None, max_length=64)
    deltas: list[Delta] = Field(default_factory=list, max_length=MAX_LEASES)
    digest: Digest | None = None
    full: list[HeldEntry] | None = Field(None, max_length=MAX_LEASES)
    unresolved_claims: list[str] = Field(default_factory=list, max_length=MAX_CLAIM_IDS)
    mode: str = Field("normal", max_length=32)
    free: Any = Field(None, description="Numbers by name: what more work would find")
    disk: Any = Field(None, description="Numbers by name")
    spool: Any = Field(None, description="Numbers by name")


class EndBody(AgentBody):
    """Why the session ends."""

    reason: str = Field("stopped", max_length=64)


@api.post("/session")
def open_session(body: SessionBody) -> dict[str, Any]:
    """Start a session; an older one of the same agent is superseded."""
    agent = agent_identity.caller()
    held, malformed = _held(body.leases)
    began = history.now()
    opened = sessions.open_session(
        agent_id=agent.id,
        boot_id=body.boot_id,
        state_folder_id=body.state_folder_id,
        version=body.version,
        capabilities=body.capabilities.model_dump(exclude_none=True),
        policy=body.policy,
        mode=_mode(body.mode),
        unresolved_claims=body.unresolved_claims,
        leases=held,
        settled=body.settled,
    )
    announce(opened.wakeups)
    compute, timers = _compute(agent.compute_id)
    verdicts = [
        {"lease": str(lease), "verdict": verdict}
        for (lease, _), verdict in zip(held, opened.verdicts, strict=True)
    ]
    told = {item["lease"]: item["verdict"] for item in verdicts}
    history.note("session", began=began, agent=agent.id, session=opened.session_id, verdicts=told)
    return {
        "session_id": opened.session_id,
        "epoch": epoch.current(),
        "server_time_ms": now_ms(),
        "timers": timers,
        "leases": verdicts + malformed,
        "compute": compute,
    }


@api.post("/heartbeat")
def heartbeat(body: HeartbeatBody) -> dict[str, Any]:
    """Extend the session, take in phases, and answer what the agent must change."""
    agent = agent_identity.caller()
    full, malformed = _held(body.full or [])
    began = history.now()
    beat = sessions.heartbeat(
        session_id=agent_identity.session_id(),
        seq=body.seq,
        marks=_marks(body.deltas),
        digest=(body.digest.count, body.digest.xor) if body.digest else None,
        full=None if body.full is None else full,
        unresolved_claims=body.unresolved_claims,
        mode=_mode(body.mode),
        free={**numbers(body.free), "disk": numbers(body.disk), "spool": numbers(body.spool)},
        # An older agent does not say it; it begins to tell as soon as it hears of the epoch.
        settled=body.epoch if body.settled is None else body.settled,
        hold_s=tokens.configuration().outage_grace_s,
    )
    told = {str(lease): verdict for lease, verdict in beat.verdicts}
    agent_identity.note("heartbeat", began, verdicts=told)
    announce(beat.wakeups)
    now_epoch, now = epoch.current(), now_ms()
    compute, timers = _compute(agent.compute_id)
    return {
        "epoch": now_epoch,
        "server_time_ms": now,
        "interval_s": timers["heartbeat_s"],
        "want_full": beat.want_full or (body.full is None and body.epoch != now_epoch),
        "leases": [{"lease": str(lease), "verdict": word} for lease, word in beat.verdicts]
        + malformed,
        "agent": {
            "drain": agent.state == "draining",
            "pause": compute["state"] != "active",
            "upgrade": not releases.may_claim(agent.version),
            "rotate": agent.is_rotating or now - agent.secret_set_at >= ROTATE_AFTER_MS,
            "log_level": None,
        },
    }


@api.post("/session/end")
def end_session(body: EndBody) -> dict[str, Any]:
    """End the session; payloads that go on keep their leases until `requeue_after`."""
    sessions.end_session(agent_identity.session_id(), body.reason)
    return {"ended": True}


def _held(
    entries: list[HeldEntry],
) -> tuple[list[tuple[LeaseName, Phase | None]], list[dict[str, str]]]:
    """The leases among the entries, and the answer for those that cannot be leases."""
    held: list[tuple[LeaseName, Phase | None]] = []
    malformed = []
    for entry in entries:
        lease = lease_named(entry.lease)
        if lease is None:
            malformed.append({"lease": entry.lease, "verdict": "gone"})
        else:
            held.append((lease, _PHASES.get(entry.phase)))
    return held, malformed


def _mode(word: str) -> str:
    """A mode that we do not know takes no work, as far as we can tell."""
    return word if word in _MODES else "draining"


def _marks(deltas: list[Delta]) -> list[Mark]:
    marks = []
    for delta in deltas:
        lease = lease_named(delta.lease)
        if lease is not None:
            ago_ms = int(min(max(0.0, delta.started_s_ago), LONGEST_RUN_S) * 1000)
            marks.append(Mark(lease=lease, phase=delta.phase, started_ms_ago=ago_ms))
    return marks


def _compute(compute_id: str) -> tuple[dict[str, Any], dict[str, float]]:
    """The agent's compute resource, and its timers over those of the configuration."""
    rows = execute(
        "SELECT name, kind, state, timers, limits FROM compute_resources WHERE id = %s",
        (compute_id,),
    )
    name, kind, state, timers, limits = rows[0]
    config = tokens.configuration()
    chosen: dict[str, float] = {
        "heartbeat_s": config.heartbeat_s,
        "suspect_after_s": config.suspect_after_s,
        "requeue_after_s": config.requeue_after_s,
        "offer_ack_s": config.offer_ack_s,
        "poll_ceiling_s": POLL_CEILING_S,
    }
    own = json.loads(timers or "{}")
    chosen.update({key: own[key] for key in chosen if own.get(key)})
    # Stretched so that the whole fleet together never sends more than we want to answer.
    chosen["heartbeat_s"] = max(chosen["heartbeat_s"], fleet_size() / FLEET_HEARTBEATS_PER_S)
    compute = {
        "id": compute_id,
        "name": name,
        "kind": kind,
        "state": state,
        "limits": json.loads(limits or "{}"),
    }
    return compute, chosen


class _Fleet:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 0
        self.counted_at = float("-inf")


_fleet = _Fleet()


def fleet_size() -> int:
    """How many sessions are open; counted at most every ten seconds in each process."""
    with _fleet.lock:
        if time.monotonic() - _fleet.counted_at < FLEET_COUNTED_S:
            return _fleet.size
        _fleet.counted_at = time.monotonic()
    _fleet.size = execute("SELECT COUNT(*) FROM agent_sessions WHERE ended_at IS NULL")[0][0]
    return _fleet.size
