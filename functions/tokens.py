"""Tokens of users: signed access tokens, and refresh tokens that are used once.

An access token is a JWT, HS256 and nothing else, for the audience `user`. A refresh token is
`<login id>.<random>.<tag>`: the tag proves that we issued it, so an old one that comes back is
theft (or a bug) and ends the login, while an invented one is only wrong. Both begin and end by the
database's clock: those of two API servers may differ.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt
from flask import current_app

from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.errors import Unauthenticated
from airavata_scheduler.models.ids import is_id

ISSUER = "airavata-scheduler"
AUDIENCE = "user"
ALGORITHM = "HS256"
TYPE = "access"

_REQUIRED = ["aud", "exp", "iat", "iss", "sub", "sid", "typ"]
_MAX_TOKEN_CHARS = 4096


@dataclass(frozen=True, kw_only=True)
class AccessClaims:
    """What a valid access token says."""

    user_id: str
    login_id: str
    ends_at: int  # the database's time in milliseconds


def configuration() -> Configuration:
    """The configuration that the running application was made with."""
    found: Configuration = current_app.config["AIRAVATA"]
    return found


def derived_key(purpose: str, config: Configuration | None = None) -> bytes:
    """32 bytes for one `purpose`, so that a signature of one kind never passes for another.

    Outside a request give the `config`.
    """
    return hmac.digest(
        (config or configuration()).jwt_secret_key.encode(), purpose.encode(), "sha256"
    )


def issue_access(config: Configuration, *, user_id: str, login_id: str) -> str:
    """A signed access token that ends after JWT_ACCESS_TOKEN_TTL."""
    now = now_ms() // 1000
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "typ": TYPE,
        "sub": user_id,
        "sid": login_id,
        "iat": now,
        "exp": now + int(config.jwt_access_token_ttl_s),
    }
    return jwt.encode(claims, config.jwt_secret_key, algorithm=ALGORITHM)


def read_access(token: str) -> AccessClaims:
    """What an access token of ours says. Raises Unauthenticated; see `refuse_ended` too."""
    claims = _decode(token)
    well_formed = (
        claims["typ"] == TYPE
        and type(claims["exp"]) is int
        and is_id(str(claims["sub"]))
        and is_id(str(claims["sid"]))
    )
    if not well_formed:
        raise Unauthenticated("This is not an access token of a user.", code="token_invalid")
    return AccessClaims(user_id=claims["sub"], login_id=claims["sid"], ends_at=claims["exp"] * 1000)


def refuse_ended(claims: AccessClaims, now: int) -> None:
    """Raise Unauthenticated with code `token_expired` where the token has ended by `now`."""
    if claims.ends_at <= now:
        raise Unauthenticated(
            "The access token has ended.",
            code="token_expired",
            hint="Ask for a new one at POST /api/v1/auth/refresh.",
        )


def _decode(token: str) -> dict[str, Any]:
    if len(token) > _MAX_TOKEN_CHARS:
        raise Unauthenticated("The access token is too long to be one.", code="token_invalid")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            configuration().jwt_secret_key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
        )
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
        raise Unauthenticated(
            "The access token is not valid.",
            code="token_invalid",
            hint="Log in again: airavata auth login",
        ) from None
    return claims


def signed_subject(token: str) -> str | None:
    """The user id of a token with a good signature, or None: for counting, never for access."""
    try:
        claims = read_access(token)
        # This process's clock will do: a token that has ended must not use up its user's rate.
        refuse_ended(claims, int(time.time() * 1000))
    except Unauthenticated:
        return None
    return claims.user_id


def new_refresh(config: Configuration, login_id: str) -> str:
    """A fresh refresh token of this login. Store only its `secret_digest`."""
    random = secrets.token_urlsafe(32)
    return f"{login_id}.{random}.{_tag(config, login_id, random)}"


def login_of_refresh(config: Configuration, token: str) -> str:
    """The login id of a refresh token that we issued. Raises Unauthenticated for any other text."""
    parts = token.split(".")
    if len(token) > _MAX_TOKEN_CHARS or len(parts) != 3:
        raise _not_a_refresh_token()
    login_id, random, tag = parts
    if not is_id(login_id) or not hmac.compare_digest(
        _tag(config, login_id, random).encode(), tag.encode(errors="replace")
    ):
        raise _not_a_refresh_token()
    return login_id


def _tag(config: Configuration, login_id: str, random: str) -> str:
    text = f"{login_id}.{random}".encode(errors="replace")
    return hmac.digest(derived_key("refresh", config), text, "sha256").hex()[:32]


def _not_a_refresh_token() -> Unauthenticated:
    return Unauthenticated(
        "The refresh token is not valid.",
        code="refresh_invalid",
        hint="Log in again: airavata auth login",
    )
