"""Who is calling: a bearer token names a login or an access token, and its row decides.

The token alone is never enough: a login or an access token that was revoked, or a user who was
disabled, ends at the next request, not when the token does.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import peewee
from flask import g, request

from airavata_scheduler.functions import tokens
from airavata_scheduler.models.database import change, execute, now_sql
from airavata_scheduler.models.database_faults import Contended
from airavata_scheduler.models.errors import AiravataError, Forbidden, Unauthenticated
from airavata_scheduler.models.ids import secret_digest

TOKEN_PREFIX: Final = "aat_"  # noqa: S105 - what a token begins with
USED_AT_PRECISION_MS: Final = 60_000
_MAX_TOKEN_CHARS: Final = 128

# One look for each request, by unique keys, in plain SQL: this is the hottest path of the API.
_ALIVE = """
SELECT users.id, users.name, users.is_admin, {now}
FROM logins JOIN users ON users.id = logins.user_id
WHERE logins.id = %s AND logins.user_id = %s
  AND logins.revoked_at IS NULL AND users.state = 'active'
"""
_BY_DIGEST = """
SELECT users.id, users.name, users.is_admin, access_tokens.id, access_tokens.scopes,
       access_tokens.used_at, {now}
FROM access_tokens JOIN users ON users.id = access_tokens.user_id
WHERE access_tokens.token_hash = %s AND access_tokens.revoked_at IS NULL
  AND access_tokens.expires_at > {now} AND users.state = 'active'
"""
_USED = """
UPDATE access_tokens SET used_at = %s
WHERE id = %s AND (used_at IS NULL OR used_at <= %s)
"""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The user behind a request: logged in (`login_id`), or by an access token (`token_id`).

    `scopes` is None for a login, which may do whatever its user may.
    """

    id: str
    name: str
    is_admin: bool
    login_id: str | None = None
    token_id: str | None = None
    scopes: frozenset[str] | None = None
    kind: Literal["user"] = "user"


def authenticate() -> Principal:
    """The user whose token this request carries, remembered for `current()`.

    Raises Unauthenticated: no token, a wrong or ended one, a revoked login, a disabled user.
    """
    token = bearer()
    principal = _of_access_token(token) if is_access_token(token) else _of_login(token)
    g.principal = principal
    return principal


def is_access_token(token: str) -> bool:
    """Whether the text has the form of a personal access token."""
    return token.startswith(TOKEN_PREFIX) and len(token) <= _MAX_TOKEN_CHARS


def counted_user(token: str) -> str | None:
    """The user whom a request with this token counts for, or None; for the rate limit only.

    What was looked up for an access token is kept for `authenticate`: one look for each request.
    """
    if not is_access_token(token):
        return tokens.signed_subject(token)
    try:
        found = _looked_up(token)
    except (AiravataError, peewee.PeeweeException):
        return None  # `authenticate` will meet it again, and say so
    return str(found[0]) if found else None


def _of_login(token: str) -> Principal:
    claims = tokens.read_access(token)
    rows = execute(_ALIVE.format(now=now_sql()), (claims.login_id, claims.user_id))
    if not rows:
        raise Unauthenticated(
            "This login has ended.",
            code="login_ended",
            hint="Log in again: airavata auth login",
        )
    user_id, name, is_admin, now = rows[0]
    tokens.refuse_ended(claims, now)
    return Principal(id=user_id, name=name, is_admin=bool(is_admin), login_id=claims.login_id)


def _of_access_token(token: str) -> Principal:
    found = _looked_up(token)
    if found is None:
        raise Unauthenticated(
            "This access token is unknown, was revoked, or has ended.",
            code="token_ended",
            hint="Make a new one: airavata user tokens create NAME",
        )
    user_id, name, is_admin, token_id, scopes, used_at, now = found
    if used_at is None or used_at <= now - USED_AT_PRECISION_MS:
        with suppress(Contended):  # a note for people; the request must not wait for it
            change(_USED, (now, token_id, now - USED_AT_PRECISION_MS))
    return Principal(
        id=user_id,
        name=name,
        is_admin=bool(is_admin),
        token_id=token_id,
        scopes=frozenset(json.loads(scopes)),
    )


def _looked_up(token: str) -> tuple[Any, ...] | None:
    """The row of a live access token of an active user; looked up once in a request."""
    digest = secret_digest(token)
    known: dict[str, tuple[Any, ...] | None] = g.setdefault("access_tokens", {})
    if digest not in known:
        rows = execute(_BY_DIGEST.format(now=now_sql()), (digest,))
        known[digest] = rows[0] if rows else None
    return known[digest]


def bearer() -> str:
    """The token of the Authorization header. Raises Unauthenticated where there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not token:
        raise Unauthenticated(
            "This request carries no access token.",
            hint="Send Authorization: Bearer …; log in with: airavata auth login",
        )
    if scheme.lower() != "bearer":
        raise Unauthenticated("Only bearer tokens are understood.")
    return token.strip()


def current() -> Principal:
    """The user behind this request. Raises Unauthenticated before the gate let one in."""
    principal: Principal | None = g.get("principal")
    if principal is None:
        raise Unauthenticated
    return principal


def current_login() -> str:
    """The login behind this request. Raises Forbidden `login_required` for an access token."""
    login_id = current().login_id
    if login_id is None:
        raise login_required()
    return login_id


def current_or_none() -> Principal | None:
    """The user behind this request, or None."""
    principal: Principal | None = g.get("principal")
    return principal


def login_required() -> Forbidden:
    """The error for what no access token may do, so that a stolen one cannot last."""
    return Forbidden(
        "An access token may not do this; it takes a login.",
        code="login_required",
        hint="Log in: airavata auth login",
    )
