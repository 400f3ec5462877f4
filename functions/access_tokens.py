"""Personal access tokens, and those of service accounts: made, listed, revoked.

A token is shown once; its digest is kept. Only a login makes or revokes tokens (`scopes.py`), and
none lives longer than a year: a stolen one ends, and cannot make another.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from flask import request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.functions import access, audit, pagination, principals, scopes
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.scopes import Scope
from airavata_scheduler.functions.shapes import Body, Line, rfc3339
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, Conflict, NotFound
from airavata_scheduler.models.ids import is_id, new_id, new_secret, secret_digest
from airavata_scheduler.models.setting_values import parse_duration
from airavata_scheduler.models.tables import AccessToken, User

api = APIBlueprint(
    "access_tokens", __name__, url_prefix="/api/v1/users", abp_tags=[Tag(name="users")]
)

_DAY_MS: Final = 86_400_000
DEFAULT_LIFE_MS: Final = 30 * _DAY_MS
LONGEST_LIFE_MS: Final = 366 * _DAY_MS
MOST_TOKENS: Final = 100  # alive at a time, of one user


class TokenAnswer(BaseModel):
    """An access token's record; the token itself was shown once."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: str
    created_by: str = Field(description="The user who made it")
    expires_at: str
    used_at: str | None = Field(description="To the minute")


class NewTokenAnswer(TokenAnswer):
    """A new token; `token` is shown once."""

    token: str


class TokenPage(BaseModel):
    """A page of tokens, newest first."""

    items: list[TokenAnswer]
    next: str | None


class NewTokenBody(Body):
    """A token to make. It lives for 30 days unless said, for 366 at most."""

    name: Line = Field(min_length=1)
    scopes: list[Scope] = Field(min_length=1, max_length=len(scopes.SCOPES))
    expires_in: str | None = Field(None, max_length=40, description="Such as 12h or 30d")
    expires_at: str | None = Field(None, max_length=40, description="RFC 3339")


@api.post("/me/tokens", responses={201: NewTokenAnswer})
def create_my_token(body: NewTokenBody) -> tuple[dict[str, Any], int]:
    """Make an access token of your own. The answer shows it, once."""
    return _create(principals.current().id, body), 201


@api.get("/me/tokens", responses={200: TokenPage})
def list_my_tokens(query: PageQuery) -> dict[str, Any]:
    """List your access tokens that are alive."""
    return _page(principals.current().id, query)


@api.delete("/me/tokens/<token>", responses={204: None})
def revoke_my_token() -> tuple[str, int]:
    """Revoke one of your access tokens; it stops at its next request."""
    return _revoke(principals.current().id)


@api.post("/<user>/tokens", responses={201: NewTokenAnswer})
def create_token_of_service(body: NewTokenBody) -> tuple[dict[str, Any], int]:
    """Make an access token of a service account. The answer shows it, once."""
    user_id = access.target("user").id
    if User.get_by_id(user_id).kind != "service":
        raise Conflict(
            "This user is a person: only they can make access tokens of theirs.",
            code="not_a_service",
            hint="Make a service account: airavata user create NAME --service",
        )
    return _create(user_id, body), 201


@api.get("/<user>/tokens", responses={200: TokenPage})
def list_tokens_of_user(query: PageQuery) -> dict[str, Any]:
    """List a user's access tokens that are alive."""
    return _page(access.target("user").id, query)


@api.delete("/<user>/tokens/<token>", responses={204: None})
def revoke_token_of_user() -> tuple[str, int]:
    """Revoke an access token of a user; it stops at its next request."""
    return _revoke(access.target("user").id)


def revoke_all(user_id: str) -> None:
    """Revoke every token of a user; they stop at their next requests."""
    AccessToken.update(revoked_at=now_ms()).where(
        (AccessToken.user_id == user_id) & AccessToken.revoked_at.is_null()
    ).execute()


def _create(user_id: str, body: NewTokenBody) -> dict[str, Any]:
    principal = principals.current()

    def make() -> dict[str, Any]:
        now = now_ms()
        expires_at = _end(body, now)
        locked(User.select(User.id).where(User.id == user_id)).execute()
        if AccessToken.select().where(_alive(user_id, now)).count() >= MOST_TOKENS:
            raise Conflict(
                f"There are {MOST_TOKENS} access tokens already.",
                code="too_many_tokens",
                hint="Revoke some: airavata user tokens list",
            )
        token, token_id = new_secret(principals.TOKEN_PREFIX), new_id()
        granted = scopes.ordered(body.scopes)
        AccessToken.insert(
            id=token_id,
            user_id=user_id,
            name=body.name,
            token_hash=secret_digest(token),
            scopes=granted,
            created_by=principal.id,
            created_at=now,
            expires_at=expires_at,
        ).execute()
        audit.append(
            "token_created", "user", user_id, token_id=token_id, name=body.name, scopes=granted
        )
        return {**_shown(AccessToken.get_by_id(token_id)), "token": token}

    return create_once(make, secret=True).document


def _revoke(user_id: str) -> tuple[str, int]:
    token_id = str((request.view_args or {})["token"])
    with transaction():
        revoked = is_id(token_id) and (
            AccessToken.update(revoked_at=now_ms())
            .where((AccessToken.id == token_id) & _alive(user_id, now_ms()))
            .execute()
        )
        if not revoked:
            raise NotFound(
                "There is no such access token.",
                code="token_not_found",
                hint="See what there is: airavata user tokens list",
            )
        audit.append("token_revoked", "user", user_id, token_id=token_id)
    return "", 204


def _page(user_id: str, query: PageQuery) -> dict[str, Any]:
    rows = AccessToken.select().where(_alive(user_id, now_ms())).order_by(AccessToken.id.desc())
    position = pagination.after(query)
    if position:
        rows = rows.where(AccessToken.id < position[0])
    return pagination.page(
        list(rows.limit(query.limit + 1)), query, key=lambda row: [row.id], show=_shown
    )


def _alive(user_id: str, now: int) -> Any:
    return (
        (AccessToken.user_id == user_id)
        & AccessToken.revoked_at.is_null()
        & (AccessToken.expires_at > now)
    )


def _end(body: NewTokenBody, now: int) -> int:
    """When the token ends. Raises BadInput for a time that is past, or a year away."""
    if body.expires_in is not None and body.expires_at is not None:
        raise BadInput(
            "Give expires_in or expires_at, not both.", code="ambiguous", field="expires_at"
        )
    field, end = "expires_in", now + DEFAULT_LIFE_MS
    if body.expires_in is not None:
        end = now + _life_ms(body.expires_in)
    elif body.expires_at is not None:
        field, end = "expires_at", _moment_ms(body.expires_at)
    if not now < end <= now + LONGEST_LIFE_MS:
        raise BadInput(
            "An access token ends in the future, within 366 days.",
            code="invalid_expiry",
            field=field,
        )
    return end


def _life_ms(text: str) -> int:
    days = re.fullmatch(r"([0-9]{1,4})d", text)
    try:
        return int(days[1]) * _DAY_MS if days else int(parse_duration(text) * 1000)
    except (ValueError, OverflowError):
        raise BadInput(
            "expires_in must be a duration such as 30d or 12h.",
            code="invalid_expiry",
            field="expires_in",
        ) from None


def _moment_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadInput(
            "expires_at must be a time with its zone, such as 2027-01-31T00:00:00Z.",
            code="invalid_expiry",
            field="expires_at",
        ) from None


def _shown(row: AccessToken) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes,
        "created_at": rfc3339(row.created_at),
        "created_by": row.created_by,
        "expires_at": rfc3339(row.expires_at),
        "used_at": rfc3339(row.used_at),
    }
