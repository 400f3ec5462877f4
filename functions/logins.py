"""Logins: one row for each, with a refresh token that changes at every use.

Whoever presents a refresh token that was used before is either a thief or was robbed: the login
ends for both. Only within ten seconds after the change it is taken for two tabs or a retry, and
refused without ending anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from flask import request

from airavata_scheduler.functions import audit, tokens
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import change, now_ms, now_sql, retried, transaction
from airavata_scheduler.models.errors import Conflict, Unauthenticated
from airavata_scheduler.models.ids import new_id, secret_digest
from airavata_scheduler.models.tables import Login, User

Method = Literal["password", "link", "oidc", "local"]

RACE_LEEWAY_MS: Final = 10_000

# The order matters: MySQL assigns from left to right, and what stands on the right is meant as it
# was. A login stays alive for as long as it was opened for, counted from its last refresh.
_ROTATE: Final = """
UPDATE logins
SET previous_hash = refresh_hash, refresh_hash = %s,
    expires_at = {now} + expires_at - rotated_at, rotated_at = {now},
    generation = generation + 1
WHERE id = %s AND refresh_hash = %s AND revoked_at IS NULL AND expires_at > {now}
  AND user_id IN (SELECT id FROM users WHERE state = 'active')
"""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a login or a refresh answers."""

    access_token: str
    expires_in_s: int
    refresh_token: str
    refresh_expires_in_s: int
    user: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The answer of `/auth/login` and `/auth/refresh`."""
        return {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": self.expires_in_s,
            "refresh_token": self.refresh_token,
            "refresh_expires_in": self.refresh_expires_in_s,
            "user": self.user,
        }


def open_login(
    config: Configuration,
    user_id: str,
    *,
    method: Method = "local",
    ttl_s: float | None = None,
    user_agent: str = "",
    address: str = "",
) -> Tokens:
    """A new login of this user. It ends `ttl_s` (JWT_REFRESH_TOKEN_TTL) after its last refresh.

    Works outside a request too. Raises Unauthenticated for a user who is not active, or is a
    service account: those have access tokens.
    """
    life_s = config.jwt_refresh_token_ttl_s if ttl_s is None else ttl_s
    login_id = new_id()
    refresh = tokens.new_refresh(config, login_id)
    with transaction():
        user = User.get_or_none(
            (User.id == user_id) & (User.state == "active") & (User.kind == "person")
        )
        if user is None:
            raise Unauthenticated("This user is not active.", code="user_disabled")
        now = now_ms()
        Login.insert(
            id=login_id,
            user_id=user_id,
            refresh_hash=secret_digest(refresh),
            rotated_at=now,
            created_at=now,
            expires_at=now + int(life_s * 1000),
            method=method,
            user_agent=user_agent[:200],
            address=address[:64],
        ).execute()
        audit.append("login", "user", user_id, actor_id=user_id, login_id=login_id, method=method)
    return _tokens(config, user, login_id, refresh, life_s)


def open_here(user_id: str, method: Method) -> Tokens:
    """A new login of this user for the program behind this request; raises as `open_login`."""
    return open_login(
        tokens.configuration(),
        user_id,
        method=method,
        user_agent=request.headers.get("User-Agent", ""),
        address=request.remote_addr or "",
    )


@retried
def refresh_login(config: Configuration, token: str) -> Tokens:
    """New tokens for a refresh token; the old one is used up.

    Raises Unauthenticated (invalid, ended, revoked, or used before: then the login is revoked), and
    Conflict `refresh_raced` if the token was used less than ten seconds ago.
    """
    login_id = tokens.login_of_refresh(config, token)
    fresh = tokens.new_refresh(config, login_id)
    with transaction():
        rotated = change(
            _ROTATE.format(now=now_sql()),
            (secret_digest(fresh), login_id, secret_digest(token)),
        )
        row: Login | None = Login.get_or_none(Login.id == login_id)
        if rotated and row is not None:
            life_s = (row.expires_at - row.rotated_at) / 1000
            return _tokens(config, User.get_by_id(row.user_id), login_id, fresh, life_s)
    raise _refusal(row, token)


def _refusal(row: Login | None, token: str) -> Unauthenticated | Conflict:
    """Why the current token was not `token`; ends the login where it was stolen."""
    if row is None or row.revoked_at is not None or row.expires_at <= now_ms():
        return Unauthenticated(
            "This login has ended.", code="login_ended", hint="Log in again: airavata auth login"
        )
    if row.refresh_hash == secret_digest(token):
        return Unauthenticated("This user is not active.", code="user_disabled")
    recent = now_ms() - row.rotated_at <= RACE_LEEWAY_MS
    if recent and row.previous_hash == secret_digest(token):
        return Conflict(
            "This refresh token was used a moment ago, by another request of yours.",
            code="refresh_raced",
            hint="Use the tokens that the other request got.",
        )
    with transaction():
        revoke_login(row.id)
        audit.append("refresh_reused", "user", row.user_id, actor_id=row.user_id, login_id=row.id)
    return Unauthenticated(
        "This refresh token was used before, so the login has been ended.",
        code="refresh_reused",
        hint="If it was not you, change your password. Log in again: airavata auth login",
    )


def revoke_login(login_id: str) -> None:
    """End one login at once; its access tokens stop at their next request."""
    Login.update(revoked_at=now_ms()).where(
        (Login.id == login_id) & Login.revoked_at.is_null()
    ).execute()


def revoke_logins(user_id: str, *, keep: str | None = None) -> None:
    """End every login of a user, but the one called `keep`."""
    condition = (Login.user_id == user_id) & Login.revoked_at.is_null()
    if keep is not None:
        condition = condition & (Login.id != keep)
    Login.update(revoked_at=now_ms()).where(condition).execute()


def _tokens(
    config: Configuration, user: User, login_id: str, refresh: str, life_s: float
) -> Tokens:
    return Tokens(
        access_token=tokens.issue_access(config, user_id=user.id, login_id=login_id),
        expires_in_s=int(config.jwt_access_token_ttl_s),
        refresh_token=refresh,
        refresh_expires_in_s=int(life_s),
        user={
            "id": user.id,
            "name": user.name,
            "full_name": user.full_name,
            "email": user.email,
            "is_admin": bool(user.is_admin),
        },
    )
