"""Logging in by an OpenID provider, and linking an identity there to an account here.

Who somebody is at the provider is the pair of issuer and subject. An e-mail address never links
anybody: whoever controls an address at the provider would control the account here.
"""

from __future__ import annotations

import re
from typing import Any, Final

from flask import Response, redirect, request
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import BaseModel, Field

from airavata_scheduler.backends.openid import Identity
from airavata_scheduler.functions import audit, grants, openid_flow, principals, tokens
from airavata_scheduler.functions.auth import TokensAnswer
from airavata_scheduler.functions.logins import open_here
from airavata_scheduler.functions.shapes import Body, Query, rfc3339
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import AiravataError, Conflict, Forbidden, NotFound
from airavata_scheduler.models.ids import new_id, secret_digest
from airavata_scheduler.models.tables import ExternalIdentity, User

api = APIBlueprint(
    "openid_login", __name__, url_prefix="/api/v1/auth/oidc", abp_tags=[Tag(name="auth")]
)

_NAME_TRIES: Final = 50


class StartQuery(Query):
    """Where the command listens, and the challenge of its PKCE verifier."""

    redirect: str = Field(max_length=500, description="http://127.0.0.1:PORT/…")
    challenge: str = Field(max_length=128, description="SHA-256 of the verifier, base64url")


class CallbackQuery(BaseModel):
    """What the provider sends along; providers add parameters of their own."""

    state: str = Field("", max_length=512)
    code: str = Field("", max_length=4096)
    error: str = Field("", max_length=512)
    iss: str | None = Field(None, max_length=512)


class LinkBody(Body):
    """Where the command listens, and the challenge of its PKCE verifier."""

    redirect: str = Field(max_length=500)
    challenge: str = Field(max_length=128)


class LinkStartedAnswer(BaseModel):
    """The address to open in a browser."""

    address: str


class FlowBody(Body):
    """The code that came to the command's address, and the verifier of its challenge."""

    code: str = Field(min_length=1, max_length=8192)
    verifier: str = Field(min_length=43, max_length=128)


class IdentityAnswer(BaseModel):
    """An identity at the provider that logs you in."""

    id: str
    issuer: str
    subject: str
    email: str
    created_at: str
    used_at: str


class IdentitiesAnswer(BaseModel):
    """All of them."""

    items: list[IdentityAnswer]


@api.get("/start", responses={302: None})
def start(query: StartQuery) -> Response:
    """Begin a login: answers the provider's address, for the browser."""
    return _elsewhere(openid_flow.begin(query.redirect, query.challenge))


@api.get("/callback", responses={302: None})
def callback(query: CallbackQuery) -> Response:
    """Take the browser back from the provider, and send it to the command that began."""
    flow = openid_flow.claim(query.state)
    try:
        if query.error or not query.code:
            raise Forbidden(
                "The OpenID provider refused the login.",
                code="openid_denied",
                hint=f"It said: {query.error[:100]}" if query.error else None,
            )
        if query.iss is not None and query.iss.rstrip("/") != openid_flow.provider().issuer:
            raise Forbidden("Another provider answered than was asked.", code="openid_denied")
        identity = flow.identity(query.code)
        if flow.user_id is None:
            _refuse_unknown(identity)
    except AiravataError as error:
        return _elsewhere(flow.failure(error.code, error.detail))
    return _elsewhere(flow.success(identity))


@api.post("/token", responses={200: TokensAnswer})
def exchange(body: FlowBody) -> dict[str, Any]:
    """Exchange the command's one-time code for tokens."""
    returned = openid_flow.finish(body.code, body.verifier)
    if returned.user_id is not None:
        raise _other_purpose()
    return open_here(_user_of(returned.identity), "oidc").as_json()


@api.post("/link", responses={201: LinkStartedAnswer})
def start_link(body: LinkBody) -> tuple[dict[str, Any], int]:
    """Begin to link an identity at the provider to your account; answers the address to open."""
    user_id = principals.current().id
    return {"address": openid_flow.begin(body.redirect, body.challenge, user_id=user_id)}, 201


@api.post("/identities", responses={201: IdentityAnswer})
def link(body: FlowBody) -> tuple[dict[str, Any], int]:
    """Link the identity that the command's one-time code stands for to your account."""
    principal = principals.current()
    returned = openid_flow.finish(body.code, body.verifier)
    if returned.user_id != principal.id:
        raise _other_purpose()
    identity = returned.identity
    with transaction():
        try:
            _keep(identity, principal.id)
        except IntegrityError:
            raise Conflict(
                "This identity at the OpenID provider is linked to an account already.",
                code="identity_taken",
                hint="See yours: airavata auth identities",
            ) from None
        row = ExternalIdentity.get_by_id((identity.issuer, identity.subject))
    return _shown(row), 201


@api.get("/identities", responses={200: IdentitiesAnswer})
def list_identities() -> dict[str, Any]:
    """List the identities at the provider that log you in."""
    rows = ExternalIdentity.select().where(ExternalIdentity.user_id == principals.current().id)
    return {"items": [_shown(row) for row in rows.order_by(ExternalIdentity.created_at)]}


@api.delete("/identities/<identity>", responses={204: None})
def unlink() -> tuple[str, int]:
    """Unlink an identity; it logs you in no more."""
    user_id, wanted = principals.current().id, (request.view_args or {})["identity"]
    with transaction():
        for row in ExternalIdentity.select().where(ExternalIdentity.user_id == user_id):
            if _shown(row)["id"] == wanted:
                row.delete_instance()
                audit.append("identity_unlinked", "user", user_id, issuer=row.issuer)
                return "", 204
    raise NotFound("You have no such identity.", code="identity_not_found")


def _user_of(identity: Identity) -> str:
    """The id of the user whom an identity logs in; made where the operator wants that."""
    try:
        return _found_or_made(identity)
    except IntegrityError:  # another login made the user, or took the name, at the same moment
        return _found_or_made(identity)


def _found_or_made(identity: Identity) -> str:
    with transaction():
        row = _row_of(identity)
        if row is not None:
            ExternalIdentity.update(used_at=now_ms(), email=identity.email).where(
                (ExternalIdentity.issuer == identity.issuer)
                & (ExternalIdentity.subject == identity.subject)
            ).execute()
            return str(row.user_id)
        _refuse_unknown(identity)
        user_id = _make_user(identity)
        _keep(identity, user_id)
        return user_id


def _refuse_unknown(identity: Identity) -> None:
    """Raise Forbidden for an identity that is nobody's, unless new ones become users."""
    if tokens.configuration().oidc_create_users or _row_of(identity) is not None:
        return
    raise Forbidden(
        "This identity at the OpenID provider is linked to no account here.",
        code="identity_unknown",
        hint="Log in with your password and type: airavata auth link",
    )


def _row_of(identity: Identity) -> ExternalIdentity | None:
    found: ExternalIdentity | None = ExternalIdentity.get_or_none(
        (ExternalIdentity.issuer == identity.issuer)
        & (ExternalIdentity.subject == identity.subject)
    )
    return found


def _make_user(identity: Identity) -> str:
    """A new user with a name that is free: the provider's, or one like it."""
    user_id, now = new_id(), now_ms()
    wanted = _user_name(identity)
    taken = {row.name for row in User.select(User.name).where(User.name.startswith(wanted))}
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, _NAME_TRIES))]
    name = next((name for name in names if name not in taken), f"{wanted}-{user_id[-12:]}")
    User.insert(
        id=user_id,
        name=name,
        email=identity.email,
        full_name=identity.name,
        created_at=now,
        updated_at=now,
    ).execute()
    grants.user_changed(user_id)
    audit.append("create", "user", user_id, actor_id=user_id, name=name, issuer=identity.issuer)
    return user_id


def _user_name(identity: Identity) -> str:
    """A user name that our rules allow, from what the provider calls somebody."""
    said = identity.username.partition("@")[0] or identity.email.partition("@")[0]
    name = re.sub(r"[^a-z0-9._-]+", "-", said.lower()).strip("-._")[:30]
    return name if re.match(r"[a-z]", name) else f"user-{name}".rstrip("-")


def _keep(identity: Identity, user_id: str) -> None:
    now = now_ms()
    ExternalIdentity.insert(
        issuer=identity.issuer,
        subject=identity.subject,
        user_id=user_id,
        email=identity.email,
        created_at=now,
        used_at=now,
    ).execute()
    audit.append("identity_linked", "user", user_id, actor_id=user_id, issuer=identity.issuer)


def _shown(row: ExternalIdentity) -> dict[str, Any]:
    return {
        "id": secret_digest(f"{row.issuer}\0{row.subject}")[:16],
        "issuer": row.issuer,
        "subject": row.subject,
        "email": row.email,
        "created_at": rfc3339(row.created_at),
        "used_at": rfc3339(row.used_at),
    }


def _other_purpose() -> Forbidden:
    return Forbidden(
        "This login at the OpenID provider was begun for something else, or by somebody else.",
        code="openid_denied",
    )


def _elsewhere(address: str) -> Response:
    found: Response = redirect(address)  # type: ignore[assignment]  # werkzeug's own type
    return found
