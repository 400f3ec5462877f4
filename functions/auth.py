"""Logging in and out."""

from __future__ import annotations

from typing import Annotated, Any

from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.functions import (
    audit,
    bootstrap,
    principals,
    proofs,
    tokens,
)
from airavata_scheduler.functions.logins import (
    Tokens,  # commands import it and `open_login` from here
    open_here,
    open_login,
    refresh_login,
    revoke_login,
)
from airavata_scheduler.functions.scopes import ordered
from airavata_scheduler.functions.shapes import Body, UserName
from airavata_scheduler.models.database import transaction
from airavata_scheduler.models.tables import User

__all__ = ["Tokens", "api", "open_login"]

api = APIBlueprint("auth", __name__, url_prefix="/api/v1/auth", abp_tags=[Tag(name="auth")])


Code = Annotated[
    str,
    Field(min_length=1, max_length=64, description="Of the second factor, or a recovery code"),
]


class LoginBody(Body):
    """A user's name and password, and a code where the account has a second factor."""

    username: str = Field(min_length=1, max_length=255)
    password: str = Field(min_length=1, max_length=1024)
    code: Code | None = None


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
    """A one-time link's token, the password to set, and a code where there is a second factor."""

    token: str = Field(min_length=1, max_length=256)
    password: str = Field(min_length=1, max_length=1024)
    code: Code | None = None


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
    login_id: str | None = Field(description="Of a login; null for an access token")
    token_id: str | None = Field(description="Of an access token; null for a login")
    scopes: list[str] | None = Field(description="Of an access token; null: everything")


@api.post("/login", responses={200: TokensAnswer})
def login(body: LoginBody) -> dict[str, Any]:
    """Log in with a name and a password, and a code where the account has a second factor."""
    user = proofs.check_login(body.username, body.password, body.code)
    return open_here(user.id, "password").as_json()


@api.post("/refresh", responses={200: TokensAnswer})
def refresh(body: RefreshBody) -> dict[str, Any]:
    """Exchange a refresh token for new tokens; it works once."""
    return refresh_login(tokens.configuration(), body.refresh_token).as_json()


@api.post("/logout", responses={204: None})
def logout() -> tuple[str, int]:
    """End this login: its access and refresh tokens stop working at once."""
    principal, login_id = principals.current(), principals.current_login()
    with transaction():
        revoke_login(login_id)
        audit.append("logout", "user", principal.id, login_id=login_id)
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
        "token_id": principal.token_id,
        "scopes": None if principal.scopes is None else ordered(principal.scopes),
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
    return open_here(user_id, "link").as_json(), 201


@api.post("/password-link", responses={200: TokensAnswer})
def use_password_link(body: PasswordLinkBody) -> dict[str, Any]:
    """Set a password with a one-time link, and log in; every other login of the user ends."""
    user_id = bootstrap.set_password(body.token, body.password, body.code)
    return open_here(user_id, "link").as_json()
