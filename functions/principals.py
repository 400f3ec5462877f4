"""Who is calling: a bearer token names a login, and the login's row decides.

The token alone is never enough: a login that was revoked, or a user who was disabled, ends at the
next request, not when the token does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flask import g, request

from airavata_scheduler.functions import tokens
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import Unauthenticated

# One look for each request, by primary keys, in plain SQL: this is the hottest path of the API.
_ALIVE = """
SELECT users.id, users.name, users.is_admin
FROM logins JOIN users ON users.id = logins.user_id
WHERE logins.id = %s AND logins.user_id = %s
  AND logins.revoked_at IS NULL AND users.state = 'active'
"""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The user behind a request."""

    id: str
    name: str
    is_admin: bool
    login_id: str
    kind: Literal["user"] = "user"


def authenticate() -> Principal:
    """The user whose access token this request carries, remembered for `current()`.

    Raises Unauthenticated: no token, a wrong or ended one, a revoked login, a disabled user.
    """
    claims = tokens.read_access(bearer())
    rows = execute(_ALIVE, (claims.login_id, claims.user_id))
    if not rows:
        raise Unauthenticated(
            "This login has ended.",
            code="login_ended",
            hint="Log in again: airavata auth login",
        )
    user_id, name, is_admin = rows[0]
    principal = Principal(id=user_id, name=name, is_admin=bool(is_admin), login_id=claims.login_id)
    g.principal = principal
    return principal


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


def current_or_none() -> Principal | None:
    """The user behind this request, or None."""
    principal: Principal | None = g.get("principal")
    return principal
