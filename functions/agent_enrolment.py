"""Becoming an agent and ceasing to be one: enroll, token, rotate, unenroll.

The agent makes its secret itself, and `enroll` sends its SHA-256 only. Every call may be repeated
after a lost answer: the same secret again leads to the same agent.
"""

from __future__ import annotations

from typing import Any

from flask_openapi3 import APIBlueprint
from pydantic import Field, field_validator

from airavata_scheduler.functions import agent_identity
from airavata_scheduler.functions.shapes import Body
from airavata_scheduler.models import enrolment, sessions
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.ids import secret_digest
from airavata_scheduler.queue.announce import announce

HEX_DIGEST = r"^[0-9a-f]{64}$"
MAX_HOST_BYTES = 4096

api = agent_identity.guard(APIBlueprint("agent_enrolment", __name__, url_prefix="/agent/v1"))


class EnrollBody(Body):
    """What an agent says of itself when it enrols."""

    name: str = Field(min_length=1, max_length=200)
    secret_hash: str = Field(pattern=HEX_DIGEST, description="SHA-256 of the agent's secret")
    token: str | None = Field(None, max_length=200)
    compute: str | None = Field(None, max_length=255, description="Name or id of the resource")
    host: dict[str, Any] = Field(default_factory=dict)
    version: str = Field("", max_length=64)

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise ValueError("must be printable, without blanks at its ends")
        return value

    @field_validator("host")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len(canonical_json(value)) > MAX_HOST_BYTES:
            raise ValueError(f"must be at most {MAX_HOST_BYTES} bytes of JSON")
        return value


class TokenBody(Body):
    """The agent's id and its secret (the present one, or the next while rotating)."""

    agent_id: str = Field(max_length=36)
    secret: str = Field(min_length=16, max_length=512)


class RotateBody(Body):
    """The hash of the secret that the agent will use from now on."""

    new_secret_hash: str = Field(pattern=HEX_DIGEST)


@api.post("/enroll")
def enroll(body: EnrollBody) -> tuple[dict[str, Any], int]:
    """Become an agent of a compute resource, by a one-time token or pending an approval."""
    asked = enrolment.Asked(
        name=body.name,
        secret_hash=body.secret_hash,
        compute=body.compute,
        host=body.host,
        version=body.version,
    )
    if body.token:
        enrolled = enrolment.by_token(secret_digest(body.token), asked)
    else:
        enrolled = enrolment.for_approval(asked)
    return enrolled, 201


@api.post("/token")
def token(body: TokenBody) -> dict[str, Any]:
    """An access token of ten minutes for the agent's secret."""
    holder = enrolment.holder_of_secret(body.agent_id, secret_digest(body.secret))
    if holder is None:
        raise agent_identity.unknown_agent()
    agent_identity.refuse_state(holder.state)
    issued = agent_identity.issue_token(
        agent_id=body.agent_id, compute_id=holder.compute_id, token_version=holder.token_version
    )
    return {
        "access_token": issued,
        "expires_in": agent_identity.TOKEN_TTL_S,
        "state": holder.state,
    }


@api.post("/rotate")
def rotate(body: RotateBody) -> dict[str, Any]:
    """Announce the next secret; it becomes the present one when it is first used."""
    agent = agent_identity.caller()
    enrolment.announce_next_secret(agent.id, body.new_secret_hash)
    return {"state": agent.state}


@api.post("/unenroll")
def unenroll() -> dict[str, Any]:
    """Cease to be an agent: leases go back to the queue, the secret is worth nothing."""
    announce(sessions.revoke_agent(agent_identity.caller().id))
    return {"state": "revoked"}
