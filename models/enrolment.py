"""The rows of agents that come, prove themselves and change their secret.

Only SHA-256 digests of secrets are here; each secret has 256 random bits.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models import outbox
from airavata_scheduler.models.database import execute, now_ms, retried, transaction
from airavata_scheduler.models.errors import BadInput, Conflict, Gone, NotFound, RateLimited
from airavata_scheduler.models.ids import is_id, new_id
from airavata_scheduler.models.tables_resources import Agent, ComputeResource, EnrolmentToken

MAX_WAITING_FOR_APPROVAL = 50  # of one compute resource: enrolling without a token is open to all
MAX_SAME_NAMES = 1000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an agent says of itself; `compute` is a name or an id."""

    name: str
    secret_hash: str
    compute: str | None
    host: dict[str, Any]
    version: str


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The agent to whom a secret belongs."""

    state: str
    compute_id: str
    token_version: int


@retried
def by_token(token_hash: str, asked: Asked) -> dict[str, Any]:
    """Make an active agent of the one-time token's compute resource, or find the one made before.

    Returns {agent_id, name, compute:{id, name, kind}, state}. Raises NotFound for an unknown token
    or resource, Gone for one that expired or served another secret, BadInput where `asked.compute`
    is another resource than the token's.
    """
    with transaction():
        # This update changes nothing and locks the row: two enrolments cannot both use the token.
        EnrolmentToken.update(used_at=EnrolmentToken.used_at).where(
            EnrolmentToken.token_hash == token_hash
        ).execute()
        token = EnrolmentToken.get_or_none(EnrolmentToken.token_hash == token_hash)
        if token is None:
            raise _token_unknown()
        now = now_ms()
        if now >= token.expires_at:
            raise _token_gone("has expired")
        compute = _compute(token.compute_id)
        _same_compute(asked.compute, compute)
        if token.used_at is not None:
            if token.secret_hash != asked.secret_hash:
                raise _token_gone("has been used")
            return _enrolled(str(token.agent_id), compute)
        agent_id = _agent_of_token(asked, compute["id"], token.agent_name, now)
        EnrolmentToken.update(used_at=now, agent_id=agent_id, secret_hash=asked.secret_hash).where(
            EnrolmentToken.token_hash == token_hash
        ).execute()
        return _enrolled(agent_id, compute)


@retried
def for_approval(asked: Asked) -> dict[str, Any]:
    """Make an agent that waits for an administrator; the answer holds its `approval_code`.

    The same secret again finds the same agent. Raises BadInput without a compute resource, NotFound
    for an unknown one, RateLimited where too many wait already.
    """
    if not asked.compute:
        raise BadInput(
            "An agent without an enrolment token must name its compute resource.",
            code="missing_field",
            field="compute",
            hint="Give --resource NAME, or an enrolment token.",
        )
    with transaction():
        compute = _compute(asked.compute)
        known = Agent.get_or_none(
            (Agent.compute_id == compute["id"])
            & (Agent.secret_hash == asked.secret_hash)
            & (Agent.state != "revoked")
        )
        if known is not None:
            return _enrolled(known.id, compute)
        _refuse_crowd(compute["id"])
        name = _free_name(compute["id"], asked.name)
        agent_id = _insert(asked, compute["id"], name, state="pending", now=now_ms())
        return _enrolled(agent_id, compute)


@retried
def holder_of_secret(agent_id: str, secret_hash: str) -> Holder | None:
    """The agent, if the secret is its own; None otherwise.

    The first use of the announced next secret ends the old one, with every token it was given.
    """
    if not is_id(agent_id):
        return None
    with transaction():
        agent = Agent.get_or_none(Agent.id == agent_id)
        if agent is None:
            return None
        version: int = agent.token_version
        upcoming = agent.next_secret_hash
        if upcoming is not None and hmac.compare_digest(upcoming, secret_hash):
            version = _promote(agent_id, upcoming, version)
        elif not hmac.compare_digest(agent.secret_hash, secret_hash):
            return None
        return Holder(state=agent.state, compute_id=agent.compute_id, token_version=version)


def announce_next_secret(agent_id: str, secret_hash: str) -> None:
    """Keep the next secret's digest beside the present one; harmless where it is that already."""
    Agent.update(next_secret_hash=secret_hash).where(
        (Agent.id == agent_id) & (Agent.secret_hash != secret_hash)
    ).execute()


def _promote(agent_id: str, upcoming: str, version: int) -> int:
    promoted = (
        Agent.update(
            secret_hash=Agent.next_secret_hash, secret_set_at=now_ms(), token_version=version + 1
        )
        .where(
            (Agent.id == agent_id)
            & (Agent.next_secret_hash == upcoming)
            & (Agent.token_version == version)
        )
        .execute()
    )
    if not promoted:
        raise Conflict("Another call is changing this agent's secret.", code="rotation_in_progress")
    # A statement of its own: MySQL would read a column that the same UPDATE has set already.
    Agent.update(next_secret_hash=None).where(Agent.id == agent_id).execute()
    return version + 1


def _compute(name_or_id: str) -> dict[str, str]:
    column = ComputeResource.id if is_id(name_or_id) else ComputeResource.name
    found = ComputeResource.get_or_none(
        (column == name_or_id) & (ComputeResource.state == "active")
    )
    if found is None:
        raise NotFound(
            "There is no active compute resource of this name.",
            code="compute_unknown",
            field="compute",
            hint="Its administrator knows the name: airavata resource compute list",
        )
    return {"id": found.id, "name": found.name, "kind": found.kind}


def _same_compute(asked: str | None, compute: dict[str, str]) -> None:
    if asked and asked not in (compute["id"], compute["name"]):
        raise BadInput(
            f"This enrolment token is for the compute resource {compute['name']}.",
            code="compute_mismatch",
            field="compute",
            hint=f"Enrol with --resource {compute['name']}, or get a token for the other one.",
        )


def _agent_of_token(asked: Asked, compute_id: str, bound_name: str | None, now: int) -> str:
    """A new agent; a token that is bound to a name takes over the agent of that name."""
    if bound_name is None:
        name = _free_name(compute_id, asked.name)
        return _insert(asked, compute_id, name, state="active", now=now)
    known = Agent.get_or_none((Agent.compute_id == compute_id) & (Agent.name == bound_name))
    if known is None:
        return _insert(asked, compute_id, bound_name, state="active", now=now)
    Agent.update(
        state="active",
        secret_hash=asked.secret_hash,
        next_secret_hash=None,
        secret_set_at=now,
        token_version=Agent.token_version + 1,
        approval_code=None,
        host=asked.host,
        version_text=asked.version,
        enrolled_at=now,
    ).where(Agent.id == known.id).execute()
    return str(known.id)


def _insert(asked: Asked, compute_id: str, name: str, *, state: str, now: int) -> str:
    agent_id = new_id()
    Agent.insert(
        id=agent_id,
        compute_id=compute_id,
        name=name,
        state=state,
        secret_hash=asked.secret_hash,
        secret_set_at=now,
        approval_code=secrets.token_hex(4).upper() if state == "pending" else None,
        host=asked.host,
        version_text=asked.version,
        capabilities={},
        policy={},
        created_at=now,
        enrolled_at=now if state == "active" else None,
    ).execute()
    agent, compute = ("agent", agent_id), ("compute_resource", compute_id)
    outbox.append(
        [outbox.relationship(agent, "compute_resource", compute)], about=agent, revokes=False
    )
    return agent_id


def _free_name(compute_id: str, wanted: str) -> str:
    """`wanted`, or with a number behind it: two users of a host, or two hosts, share its name."""
    rows = execute("SELECT name FROM agents WHERE compute_id = %s", (compute_id,))
    taken = {row[0] for row in rows}
    for name in (wanted, *(f"{wanted}-{number}" for number in range(2, MAX_SAME_NAMES))):
        if name not in taken:
            return name
    raise Conflict(
        "Too many agents of this compute resource have the same name.",
        code="agent_name_taken",
        field="name",
        hint="Choose another name with WORKER_ID.",
    )


def _refuse_crowd(compute_id: str) -> None:
    waiting = (
        Agent.select().where((Agent.compute_id == compute_id) & (Agent.state == "pending")).count()
    )
    if waiting >= MAX_WAITING_FOR_APPROVAL:
        raise RateLimited(
            "Too many agents of this compute resource wait for an approval.",
            code="approvals_full",
            hint="Its administrator can approve or revoke them, or give you an enrolment token.",
            retry_after_s=600,
        )


def _enrolled(agent_id: str, compute: dict[str, str]) -> dict[str, Any]:
    agent = Agent.get_by_id(agent_id)
    answer = {
        "agent_id": agent_id,
        "name": agent.name,
        "compute": compute,
        "state": agent.state,
    }
    return answer | ({"approval_code": agent.approval_code} if agent.approval_code else {})


def _token_unknown() -> NotFound:
    return NotFound(
        "There is no such enrolment token.",
        code="enrolment_token_unknown",
        field="token",
        hint="Copy it whole (it begins with ase_), or ask for a new one.",
    )


def _token_gone(why: str) -> Gone:
    return Gone(
        f"This enrolment token {why}.",
        code="enrolment_token_gone",
        field="token",
        hint="Tokens work once and for 15 minutes; ask the resource's administrator for a new one.",
    )
