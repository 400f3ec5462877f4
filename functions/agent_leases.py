"""Leases: claim (a long-poll), start (the gate), release, and the truth about one."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from airavata_scheduler.functions import admission, agent_identity, streams, tokens
from airavata_scheduler.functions.agent_inputs import inputs_of
from airavata_scheduler.functions.agent_lease_access import (
    AgentBody,
    LeasePath,
    blueprint,
    lease_named,
)
from airavata_scheduler.functions.agent_sessions import POLL_CEILING_S, fleet_size
from airavata_scheduler.functions.agent_specs import lease_document, spec_documents
from airavata_scheduler.models import epoch, history, leases, sessions
from airavata_scheduler.models.database import database, execute
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.lease_records import Claimed, Free, LeaseName
from airavata_scheduler.queue.announce import announce
from airavata_scheduler.queue.wake import Waiter

MAX_LEASES = 500
LONGEST_WAIT_S = 20.0
LEAST_POLL_S = 2.0
SESSIONS_PER_POLL_S = 50.0  # without a place to wait, so many sessions add a second to the pause

# Whether the session should heartbeat at once: a cancel that no heartbeat has answered yet, or a
# drain that the agent has not taken up. From SQL, so that a lost wake-up delays nothing for long.
_ATTENTION = (
    "SELECT 1 FROM agent_sessions s JOIN agents a ON a.id = s.agent_id WHERE s.id = %s AND ("
    "(a.state = 'draining' AND s.mode = 'normal') OR EXISTS (SELECT 1 FROM tasks t "
    "WHERE t.session_id = s.id AND t.state IN (2, 3, 4) "
    "AND t.cancel_requested_at >= s.heartbeat_at))"
)

api = blueprint("agent_leases")


class FreeBody(AgentBody):
    """What the agent has free: cores, MiB, GPUs. Less than nothing counts as nothing."""

    cpu: int = 0
    ram_mb: int = 0
    gpu: int = 0
    disk_mb: int = 0

    def clipped(self) -> Free:
        """The same within what the columns hold."""
        return Free(
            cpu=_clip(self.cpu, 32_767),
            ram_mb=_clip(self.ram_mb, 2**31 - 1),
            gpu=_clip(self.gpu, 32_767),
            disk_mb=_clip(self.disk_mb, 2**53),
        )


class ClaimBody(AgentBody):
    """A claim, journalled by the agent before it is sent; `max` 0 only waits for attention."""

    claim_id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    seq: int = Field(ge=0, le=2**62)
    max: int = Field(ge=0, le=1_000_000)
    free: FreeBody = Field(default_factory=FreeBody)
    wait_s: float = Field(0.0, allow_inf_nan=False)


class LeasesBody(AgentBody):
    """Leases by name."""

    leases: list[str] = Field(max_length=MAX_LEASES)


class ReleaseBody(LeasesBody):
    """Leases that are given back, and why."""

    reason: str = Field("released", max_length=200)


@api.post("/leases/claim")
def claim(body: ClaimBody) -> dict[str, Any]:
    """Ask for leases; wait up to `wait_s` seconds (at most 20) until there is something to say."""
    return claim_answer(body, wait_s=min(max(0.0, body.wait_s), LONGEST_WAIT_S))


def claim_answer(body: ClaimBody, *, wait_s: float) -> dict[str, Any]:
    """The answer to a claim; also sent along with the answer to a report (`wait_s` 0)."""
    session_id = agent_identity.session_id()
    compute_id = agent_identity.caller().compute_id
    waited = False
    with Waiter(("work", compute_id), ("attention", session_id)) as waiter:
        claimed, attention = _look(session_id, body)
        if wait_s > 0 and not (_says_something(claimed) or attention):
            deadline = time.monotonic() + wait_s
            with admission.load.poll() as waited:
                while waited and not (_says_something(claimed) or attention):
                    if not _wait(waiter, deadline):
                        break
                    heard = ("attention", session_id) in waiter.heard
                    claimed, attention = _look(session_id, body)
                    attention = attention or heard
    announce(claimed.wakeups)
    return {
        "epoch": epoch.current(),
        "leases": [lease_document(grant) for grant in claimed.grants],
        "specs": spec_documents(claimed.grants),
        "dead": [str(lease) for lease in claimed.dead],
        "attention": attention,
        "poll_s": 0.0 if waited or _says_something(claimed) else _pause_s(),
    }


def _look(session_id: str, body: ClaimBody) -> tuple[Claimed, bool]:
    if body.max > 0:
        began = history.now()
        claimed = leases.claim(
            session_id=session_id,
            claim_id=body.claim_id,
            seq=body.seq,
            max_tasks=min(body.max, MAX_LEASES),
            free=body.free.clipped(),
            hold_s=tokens.configuration().outage_grace_s,
        )
        if claimed.grants:
            granted = [str(grant.lease) for grant in claimed.grants]
            closed = [str(grant.lease) for grant in claimed.grants if not grant.gate_open]
            agent_identity.note(
                "claimed", began, claim=body.claim_id, leases=granted, closed=closed
            )
    else:
        sessions.current(session_id)  # raises for a session that has ended
        claimed = Claimed()
    return claimed, bool(execute(_ATTENTION, (session_id,)))


def _clip(value: int, most: int) -> int:
    return min(max(0, value), most)


def _says_something(claimed: Claimed) -> bool:
    return bool(claimed.grants or claimed.dead or claimed.replay)


def _wait(waiter: Waiter, deadline: float) -> bool:
    """Wait for a wake-up without holding a database connection; False when the time is over."""
    if not database.is_closed():
        database.close()
    while not streams.is_ending():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        # A second at most, so that a server that stops does not wait for its long-polls.
        if waiter.wait(min(left_s, 1.0)):
            return True
    return False


def _pause_s() -> float:
    """How long an agent without a place to wait should pause: 2 s, and 15 s for a large fleet."""
    return min(POLL_CEILING_S, max(LEAST_POLL_S, fleet_size() / SESSIONS_PER_POLL_S))


@api.post("/leases/start")
def start(body: LeasesBody) -> dict[str, Any]:
    """The gate: a payload may run only after its `ok`, which brings the addresses of its inputs.

    A lease without an item has no answer yet (its storage is away, or its task locked by somebody
    for long): its agent asks again.
    """
    session_id = agent_identity.session_id()
    named = _named(body.leases)
    began = history.now()
    started = leases.start(session_id, list(named.values()))
    verdicts = dict(zip(named, started.verdicts, strict=True))
    agent_identity.note("gate", began, verdicts=verdicts)
    announce(started.wakeups)
    passed = [named[text] for text, verdict in verdicts.items() if verdict == "ok"]
    inputs = inputs_of(passed)
    items = []
    for text in body.leases:
        verdict = verdicts.get(text, "gone")
        if verdict == "later":
            continue
        item: dict[str, Any] = {"lease": text, "verdict": verdict}
        if verdict == "ok":
            listed = inputs.get(named[text])
            if listed is None:
                continue
            item |= listed
        items.append(item)
    return {"items": items}


@api.post("/leases/release")
def release(body: ReleaseBody) -> dict[str, Any]:
    """Give back unstarted work; it costs no attempt."""
    named = _named(body.leases)
    began = history.now()
    released = leases.release(agent_identity.session_id(), list(named.values()), body.reason)
    verdicts: dict[str, str] = dict(zip(named, released.verdicts, strict=True))
    agent_identity.note("released", began, verdicts=verdicts)
    announce(released.wakeups)
    told = {text: verdicts.get(text, "gone") for text in body.leases}
    return {"items": [{"lease": t, "verdict": v} for t, v in told.items() if v != "later"]}


@api.get("/leases/<lease>")
def truth(path: LeasePath) -> dict[str, Any]:
    """What the server holds to be true of one lease, for `doctor` and re-adoption."""
    lease = lease_named(path.lease)
    if lease is None:
        raise NotFound("That is not the name of a lease.", code="lease_unknown")
    found = leases.truth(agent_identity.session_id(), lease)
    return {
        "lease": path.lease,
        "state": None if found.state is None else found.state.name,
        "verdict": found.verdict,
        "cancel_requested": found.cancel_requested,
        "epoch": epoch.current(),
    }


def _named(texts: list[str]) -> dict[str, LeaseName]:
    """The leases by their texts, each once; texts that can be no lease are left out."""
    found = {text: lease_named(text) for text in texts}
    return {text: lease for text, lease in found.items() if lease is not None}
