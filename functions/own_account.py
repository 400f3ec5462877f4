"""One's own second factor and logins; and the reset of a user's second factor."""

from __future__ import annotations

from typing import Any, Literal

from flask import request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.functions import (
    access,
    audit,
    logins,
    pagination,
    principals,
    proofs,
    second_factor,
)
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.shapes import Body, rfc3339
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, NotFound
from airavata_scheduler.models.tables import Login, User

api = APIBlueprint("own_account", __name__, url_prefix="/api/v1", abp_tags=[Tag(name="auth")])


class SecondFactorAnswer(BaseModel):
    """Whether a password needs a code beside it."""

    enabled: bool
    since: str | None
    recovery_codes_left: int


class StartedAnswer(BaseModel):
    """What goes into the authenticator; shown once."""

    secret: str = Field(description="Base32, for typing")
    uri: str = Field(description="`otpauth:` address, for a QR code")


class ConfirmedAnswer(BaseModel):
    """Codes that stand in for a lost device, each once; shown once."""

    recovery_codes: list[str]


class StartBody(Body):
    """A second factor to switch on; the password, so that a stolen login cannot lock you out."""

    password: str = Field(min_length=1, max_length=1024)


class CodeBody(Body):
    """The authenticator's digits."""

    code: str = Field(min_length=1, max_length=64)


class ProofBody(Body):
    """The password, or a code."""

    password: str | None = Field(None, min_length=1, max_length=1024)
    code: str | None = Field(None, min_length=1, max_length=64)


class LoginAnswer(BaseModel):
    """One login of yours."""

    id: str
    method: Literal["password", "link", "oidc", "local"]
    address: str
    user_agent: str
    created_at: str
    used_at: str = Field(description="When its tokens were last refreshed")
    expires_at: str
    current: bool = Field(description="Whether it is the one that asks")


class LoginPage(BaseModel):
    """A page of logins, newest first."""

    items: list[LoginAnswer]
    next: str | None


@api.get("/users/me/totp", responses={200: SecondFactorAnswer})
def get_second_factor() -> dict[str, Any]:
    """Say whether your password needs a code beside it."""
    user = User.get_by_id(principals.current().id)
    return {
        "enabled": second_factor.is_on(user),
        "since": rfc3339(user.totp_since),
        "recovery_codes_left": second_factor.codes_left(user.id),
    }


@api.post("/users/me/totp", responses={201: StartedAnswer})
def start_second_factor(body: StartBody) -> tuple[dict[str, Any], int]:
    """Start to switch a second factor on. The answer shows its secret, once."""
    user = User.get_by_id(principals.current().id)
    if user.password_hash is not None:
        proofs.check_password(user, body.password, field="password")
    secret, wrapped = second_factor.new_secret(user)

    def make() -> dict[str, Any]:
        second_factor.start(user, wrapped)
        return {"secret": secret, "uri": second_factor.uri(user, secret)}

    return create_once(make, secret=True).document, 201


@api.post("/users/me/totp/confirm", responses={201: ConfirmedAnswer})
def confirm_second_factor(body: CodeBody) -> tuple[dict[str, Any], int]:
    """Switch the second factor on with its first code. The answer shows recovery codes, once."""
    user = User.get_by_id(principals.current().id)
    if user.totp is None:
        raise second_factor.not_started()
    step = proofs.first_step(user, body.code)

    def make() -> dict[str, Any]:
        return {"recovery_codes": second_factor.confirm(user, step)}

    return create_once(make, secret=True).document, 201


@api.delete("/users/me/totp", responses={204: None})
def switch_second_factor_off(body: ProofBody) -> tuple[str, int]:
    """Switch your second factor off, with your password or a code."""
    user = User.get_by_id(principals.current().id)
    if body.password is not None:
        proofs.check_password(user, body.password, field="password")
    elif body.code is not None:
        proofs.check_code(user, body.code)
    else:
        raise BadInput("Give the password or a code.", code="missing_field", field="password")
    second_factor.switch_off(user.id, "second_factor_off")
    return "", 204


@api.delete("/users/<user>/totp", responses={204: None})
def reset_second_factor() -> tuple[str, int]:
    """Switch off the second factor of a user who lost the device and the recovery codes."""
    second_factor.switch_off(access.target("user").id, "second_factor_reset")
    return "", 204


@api.get("/auth/sessions", responses={200: LoginPage})
def list_sessions(query: PageQuery) -> dict[str, Any]:
    """List your logins that have not ended."""
    principal = principals.current()
    rows = Login.select().where(_alive(principal.id)).order_by(Login.id.desc())
    position = pagination.after(query)
    if position:
        rows = rows.where(Login.id < position[0])
    return pagination.page(
        list(rows.limit(query.limit + 1)), query, key=lambda row: [row.id], show=_shown
    )


@api.delete("/auth/sessions/<session>", responses={204: None})
def end_session() -> tuple[str, int]:
    """End one of your logins at once."""
    principal, session = principals.current(), str((request.view_args or {})["session"])
    with transaction():
        if not Login.select().where(_alive(principal.id) & (Login.id == session)).exists():
            raise NotFound(
                "You have no such login.",
                code="session_not_found",
                hint="See what there is: airavata auth sessions",
            )
        logins.revoke_login(session)
        audit.append("login_revoked", "user", principal.id, login_id=session)
    return "", 204


@api.delete("/auth/sessions", responses={204: None})
def end_other_sessions() -> tuple[str, int]:
    """End all your logins but this one."""
    principal = principals.current()
    with transaction():
        logins.revoke_logins(principal.id, keep=principals.current_login())
        audit.append("other_logins_revoked", "user", principal.id)
    return "", 204


def _alive(user_id: str) -> Any:
    return (Login.user_id == user_id) & Login.revoked_at.is_null() & (Login.expires_at > now_ms())


def _shown(row: Login) -> dict[str, Any]:
    return {
        "id": row.id,
        "method": row.method,
        "address": row.address,
        "user_agent": row.user_agent,
        "created_at": rfc3339(row.created_at),
        "used_at": rfc3339(row.rotated_at),
        "expires_at": rfc3339(row.expires_at),
        "current": row.id == principals.current().login_id,
    }
