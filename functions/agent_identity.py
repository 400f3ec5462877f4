"""Who an agent is: its short access token, and the row that decides at every call.

An agent holds one secret of its own; it shows it at `POST /token` and gets a token for ten minutes.
The token is never enough: each call reads the agent's row, so a revocation works at the next call,
with or without Redis. The same look tells the database's time, by which tokens begin and end: the
clocks of two API servers may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jwt
from flask import g, request
from flask_openapi3 import APIBlueprint

from airavata_scheduler.functions import access, principals, tokens
from airavata_scheduler.models import history, sessions
from airavata_scheduler.models.database import execute, now_ms, now_sql
from airavata_scheduler.models.errors import Conflict, Forbidden, NotFound, Unauthenticated
from airavata_scheduler.models.ids import is_id

AUDIENCE = "agent"
ALGORITHM = "HS256"
TYPE = "agent"
TOKEN_TTL_S = 600
SESSION_HEADER = "X-Agent-Session"

_REQUIRED = ["aud", "exp", "iat", "iss", "sub", "cmp", "ver", "typ"]
_MAX_TOKEN_CHARS = 2048
_BY_ID = """
SELECT id, name, compute_id, state, session_id, secret_set_at, next_secret_hash, token_version,
       version_text, {now}
FROM agents WHERE id = %s
"""


@dataclass(frozen=True, kw_only=True)
class AgentCaller:
    """The agent behind a request; `session_id` is its newest session, not the request's."""

    id: str
    name: str
    compute_id: str
    state: str
    session_id: str | None
    secret_set_at: int
    is_rotating: bool
    version: str


def issue_token(*, agent_id: str, compute_id: str, token_version: int) -> str:
    """A signed token of ten minutes for one agent of one compute resource."""
    now = now_ms() // 1000
    claims = {
        "iss": tokens.ISSUER,
        "aud": AUDIENCE,
        "typ": TYPE,
        "sub": agent_id,
        "cmp": compute_id,
        "ver": token_version,
        "iat": now,
        "exp": now + TOKEN_TTL_S,
    }
    return jwt.encode(claims, _key(), algorithm=ALGORITHM)


def _key() -> bytes:
    # A key of its own: whatever a users' token says, it never verifies here.
    return tokens.derived_key("agent access token")


def guard(api: APIBlueprint) -> APIBlueprint:
    """Let `api` serve agents: its routes with the rule `agent` need a valid token."""
    api.before_request(_authenticate)
    return api


def _authenticate() -> None:
    rule = access.rule_now()
    if rule is not None and rule.who == "agent":
        g.agent = _caller(_claims(principals.bearer()))
        g.agent_id = g.agent.id  # for the request's log line


def _claims(token: str) -> dict[str, Any]:
    if len(token) > _MAX_TOKEN_CHARS:
        raise _not_valid()
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            _key(),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=tokens.ISSUER,
            options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
        )
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
        raise _not_valid() from None
    well_formed = (
        claims["typ"] == TYPE
        and type(claims["exp"]) is int
        and type(claims["ver"]) is int
        and is_id(str(claims["sub"]))
    )
    if not well_formed:
        raise _not_valid()
    return claims


def _caller(claims: dict[str, Any]) -> AgentCaller:
    rows = execute(_BY_ID.format(now=now_sql()), (claims["sub"],))
    if not rows:
        raise unknown_agent()
    agent_id, name, compute_id, state, session_id, secret_set_at, upcoming, version, *rest = rows[0]
    release, now = rest
    refuse_state(state)
    ended = claims["exp"] * 1000 <= now
    if ended or version != claims["ver"] or compute_id != claims["cmp"]:
        raise _expired()
    return AgentCaller(
        id=agent_id,
        name=name,
        compute_id=compute_id,
        state=state,
        session_id=session_id,
        secret_set_at=secret_set_at,
        is_rotating=upcoming is not None,
        version=release,
    )


def refuse_state(state: str) -> None:
    """Raise for an agent that may not work: revoked (401) or waiting for its approval (403)."""
    if state == "revoked":
        raise Unauthenticated(
            "This agent has been revoked.",
            code="agent_revoked",
            hint="Ask the resource's administrator; then enrol again with a new token.",
        )
    if state == "pending":
        raise Forbidden(
            "This agent waits for its approval.",
            code="agent_pending",
            hint="The resource's administrator approves it with the code that `enroll` printed.",
        )


def unknown_agent() -> Unauthenticated:
    """The one answer for an agent that does not exist and for a wrong secret."""
    return Unauthenticated(
        "No agent has this id and secret.",
        code="agent_unknown",
        hint="Enrol again with a new enrolment token.",
    )


def caller() -> AgentCaller:
    """The agent behind this request. Raises Unauthenticated on a route that is not an agent's."""
    found: AgentCaller | None = g.get("agent")
    if found is None:
        raise Unauthenticated
    return found


def session_id() -> str:
    """The session that this request names, which is the agent's newest.

    Raises Conflict `session_missing` without the header, NotFound `session_unknown` for a session
    of nobody or of another agent, and for an older one what `sessions.refusal_of_old` says.
    """
    agent = caller()
    named = request.headers.get(SESSION_HEADER, "")
    if not named:
        raise Conflict(
            f"This call needs the header {SESSION_HEADER}.",
            code="session_missing",
            hint="Open a session with POST /agent/v1/session.",
        )
    if named == agent.session_id:
        return named
    owned = is_id(named) and execute(
        "SELECT 1 FROM agent_sessions WHERE id = %s AND agent_id = %s", (named, agent.id)
    )
    if not owned:
        raise NotFound(
            "This agent has no such session.",
            code="session_unknown",
            hint="Open a new one with POST /agent/v1/session and the full list of leases.",
        )
    raise sessions.refusal_of_old(agent.id, named)


def note(event: str, began: float, **fields: Any) -> None:
    """Note in the history what was committed for the calling agent since `began`."""
    session = request.headers.get(SESSION_HEADER, "")
    history.note(event, began=began, agent=caller().id, session=session, **fields)


def _expired() -> Unauthenticated:
    return Unauthenticated(
        "The access token has ended.",
        code="token_expired",
        hint="Ask for a new one at POST /agent/v1/token.",
    )


def _not_valid() -> Unauthenticated:
    return Unauthenticated(
        "The access token is not valid for agents.",
        code="token_invalid",
        hint="Ask for a new one at POST /agent/v1/token.",
    )
