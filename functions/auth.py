"""Logging in and out."""

from __future__ import annotations

from typing import Any

from flask import request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.functions import (
    audit,
    bootstrap,
    login_backoff,
    passwords,
    principals,
    tokens,
)
from airavata_scheduler.functions.logins import (
    Tokens,  # commands import it and `open_login` from here
    open_login,
    refresh_login,
    revoke_login,
)
from airavata_scheduler.functions.shapes import Body, UserName
from airavata_scheduler.models.database import transaction
from airavata_scheduler.models.errors import Unauthenticated
from airavata_scheduler.models.tables import User

__all__ = ["Tokens", "api", "open_login"]

api = APIBlueprint("auth", __name__, url_prefix="/api/v1/auth", abp_tags=[Tag(name="auth")])


class LoginBody(Body):
    """A user's name and password."""

    username: str = Field(min_length=1, max_length=255)
    password: str = Field(min_length=1, max_length=1024)


class RefreshBody(Body):
    """The newest refresh token of a login."""

    refresh_token: str = Field(min_length=1, max_length=4096)


class BootstrapBody(Body):
    """What makes the first administrator: the link's token and an account."""

    token: str = Field(min_length=1, max_length=256)
    username: UserName
    password: str = Field(min_length=1, max_length=1024)
    email: str = Field("", max_length=320)
    full_name: str = Field("", max_length=255)


class PasswordLinkBody(Body):
    """A one-time link's token, and the password to set."""

    token: str = Field(min_length=1, max_length=256)
    password: str = Field(min_length=1, max_length=1024)


class TokensUser(BaseModel):
    """Whose tokens they are."""

    id: str
    name: str
    full_name: str
    email: str
    is_admin: bool


class TokensAnswer(BaseModel):
    """An access token, and the refresh token that gets the next one. Both are shown once."""

    access_token: str
    token_type: str
    expires_in: int = Field(description="Seconds")
    refresh_token: str
    refresh_expires_in: int = Field(description="Seconds")
    user: TokensUser


class LoginStatusAnswer(BaseModel):
    """Who this token says that you are."""

    user: TokensUser
    login_id: str


@api.post("/login", responses={200: TokensAnswer})
def login(body: LoginBody) -> dict[str, Any]:
    """Log in with a name and a password."""
    address = request.remote_addr or ""
    login_backoff.check(body.username, address)
    user = User.get_or_none(User.name == body.username)
    stored = user.password_hash if user is not None and user.state == "active" else None
    if not passwords.matches(body.password, stored) or user is None or stored is None:
        login_backoff.failed(body.username, address)
        raise Unauthenticated(
            "The user name or the password is wrong.",
            code="wrong_credentials",
            hint="Ask an administrator for a password link if you forgot it.",
        )
    login_backoff.succeeded(body.username, address)
    if passwords.needs_rehash(stored):
        User.update(password_hash=passwords.hashed(body.password)).where(
            User.id == user.id
        ).execute()
    return _open(user.id)


@api.post("/refresh", responses={200: TokensAnswer})
def refresh(body: RefreshBody) -> dict[str, Any]:
    """Exchange a refresh token for new tokens; it works once."""
    return refresh_login(tokens.configuration(), body.refresh_token).as_json()


@api.post("/logout", responses={204: None})
def logout() -> tuple[str, int]:
    """End this login: its access and refresh tokens stop working at once."""
    principal = principals.current()
    with transaction():
        revoke_login(principal.login_id)
        audit.append("logout", "user", principal.id, login_id=principal.login_id)
    return "", 204


@api.get("/status", responses={200: LoginStatusAnswer})
def status() -> dict[str, Any]:
    """Say who is logged in."""
    principal = principals.current()
    user = User.get_by_id(principal.id)
    return {
        "user": {
            "id": user.id,
            "name": user.name,
            "full_name": user.full_name,
            "email": user.email,
            "is_admin": bool(user.is_admin),
        },
        "login_id": principal.login_id,
    }


@api.post("/bootstrap", responses={201: TokensAnswer})
def use_bootstrap_link(body: BootstrapBody) -> tuple[dict[str, Any], int]:
    """Make the first administrator with the one-time link that the operator printed."""
    user_id = bootstrap.make_administrator(
        body.token,
        username=body.username,
        password=body.password,
        email=body.email,
        full_name=body.full_name,
    )
    return _open(user_id), 201


@api.post("/password-link", responses={200: TokensAnswer})
def use_password_link(body: PasswordLinkBody) -> dict[str, Any]:
    """Set a password with a one-time link, and log in; every other login of the user ends."""
    return _open(bootstrap.set_password(body.token, body.password))


def _open(user_id: str) -> dict[str, Any]:
    return open_login(
        tokens.configuration(),
        user_id,
        user_agent=request.headers.get("User-Agent", ""),
        address=request.remote_addr or "",
    ).as_json()
