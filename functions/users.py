"""Users: oneself, and what administrators do with the others."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import BaseModel, Field

from airavata_scheduler.functions import (
    access,
    access_tokens,
    audit,
    bootstrap,
    grants,
    groups,
    logins,
    naming,
    pagination,
    passwords,
    principals,
    projects,
    proofs,
    tokens,
)
from airavata_scheduler.functions.etags import check_if_match, etagged, lost_race
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.shapes import Body, Line, UserName, rfc3339
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import User

api = APIBlueprint("users", __name__, url_prefix="/api/v1/users", abp_tags=[Tag(name="users")])

Email = Line


class UserAnswer(BaseModel):
    """A user; `email` and `state` are shown to the user and to administrators."""

    id: str
    name: str
    full_name: str
    kind: Literal["person", "service"]
    email: str | None = None
    is_admin: bool
    state: Literal["active", "disabled"] | None = None
    version: int
    created_at: str
    updated_at: str


class UserPage(BaseModel):
    """A page of users."""

    items: list[UserAnswer]
    next: str | None


class NewUserAnswer(UserAnswer):
    """A new user, and the one-time link by which they set their password; none for a service."""

    link: str | None = None


class LinkAnswer(BaseModel):
    """A one-time link; shown once."""

    link: str


class NewUserBody(Body):
    """A user to make: a person, or a service account, which has access tokens and no login."""

    name: UserName
    kind: Literal["person", "service"] = "person"
    email: Email = ""
    full_name: Line = ""
    is_admin: bool = False


class ProfileBody(Body):
    """What a user may change about themselves."""

    email: Email | None = None
    full_name: Line | None = None


class UserBody(ProfileBody):
    """What an administrator may change about a user."""

    is_admin: bool | None = None
    state: Literal["active", "disabled"] | None = None


class PasswordBody(Body):
    """The old password and the new one."""

    current: str = Field(min_length=1, max_length=1024)
    new: str = Field(min_length=1, max_length=1024)


@api.get("/me", responses={200: UserAnswer})
def get_me() -> Response:
    """Show yourself."""
    user = User.get_by_id(principals.current().id)
    return etagged(_shown(user), user.version)


@api.patch("/me", responses={200: UserAnswer})
def change_me(body: ProfileBody) -> Response:
    """Change your own full name or e-mail address."""
    return _change(principals.current().id, body.model_dump(exclude_none=True))


@api.post("/me/password", responses={204: None})
def change_password(body: PasswordBody) -> tuple[str, int]:
    """Change your password; your other logins end."""
    user = User.get_by_id(principals.current().id)
    proofs.check_password(user, body.current, field="current")
    passwords.check_policy(body.new, username=user.name, field="new")
    with transaction():
        bootstrap.store_password(user.id, body.new)
        logins.revoke_logins(user.id, keep=principals.current_login())
        audit.append("password_changed", "user", user.id)
    return "", 204


@api.get("/me/projects", responses={200: projects.ProjectPage})
def my_projects(query: PageQuery) -> dict[str, Any]:
    """List the projects that you are a member of."""
    return projects.page_of(query, members_only=True)


@api.get("/me/groups", responses={200: groups.GroupPage})
def my_groups(query: PageQuery) -> dict[str, Any]:
    """List the groups that you are in, yourself or through other groups."""
    return groups.my_page(query)


@api.post("", responses={201: NewUserAnswer})
def create_user(body: NewUserBody) -> tuple[dict[str, Any], int]:
    """Make a user. The answer holds a one-time link by which they set their password.

    A service account gets no link: it has access tokens alone, and is no administrator.
    """
    _refuse_administrators(body.is_admin, body.kind)

    def make() -> dict[str, Any]:
        user_id, now = new_id(), now_ms()
        try:
            User.insert(id=user_id, **body.model_dump(), created_at=now, updated_at=now).execute()
        except IntegrityError:
            raise bootstrap.name_taken("user", body.name) from None
        grants.user_changed(user_id)
        audit.append(
            "create", "user", user_id, name=body.name, kind=body.kind, is_admin=body.is_admin
        )
        if body.kind == "service":
            return _shown(User.get_by_id(user_id))
        link = bootstrap.password_link_of(tokens.configuration(), user_id)
        return {**_shown(User.get_by_id(user_id)), "link": link}

    return create_once(make, secret=True).document, 201


@api.get("", responses={200: UserPage})
def list_users(query: PageQuery) -> dict[str, Any]:
    """List the users that you share a project with; administrators see everybody."""
    principal = principals.current()
    rows = naming.rows_visible("user", principal).order_by(User.name).limit(query.limit + 1)
    position = pagination.after(query)
    if position:
        rows = rows.where(User.name > position[0])
    return pagination.page(
        list(rows),
        query,
        key=lambda user: [user.name],
        show=lambda user: _shown(user, public=not _may_see_all(user.id)),
    )


@api.get("/<user>", responses={200: UserAnswer})
def get_user() -> Response:
    """Show a user."""
    user = User.get_by_id(access.target("user").id)
    return etagged(_shown(user, public=not _may_see_all(user.id)), user.version)


@api.patch("/<user>", responses={200: UserAnswer})
def change_user(body: UserBody) -> Response:
    """Change a user: name, address, administrator or not, active or disabled."""
    return _change(access.target("user").id, body.model_dump(exclude_none=True))


@api.delete("/<user>", responses={204: None})
def disable_user() -> tuple[str, int]:
    """Disable a user; what they made stays. Their logins and access tokens end at once."""
    _change(access.target("user").id, {"state": "disabled"})
    return "", 204


@api.post("/<user>/password-link", responses={201: LinkAnswer})
def new_password_link() -> tuple[dict[str, Any], int]:
    """Make a one-time link by which a user sets a new password."""
    user_id = access.target("user").id

    def make() -> dict[str, Any]:
        return {"link": bootstrap.password_link_of(tokens.configuration(), user_id)}

    return create_once(make, secret=True).document, 201


def _refuse_administrators(wanted: bool | None, kind: str) -> None:
    """Raise where `wanted` would make an administrator of a service, or on a token's word."""
    if wanted and principals.current().login_id is None:
        raise principals.login_required()  # whoever stole it would have a way in that lasts
    if wanted and kind == "service":
        raise Conflict("A service account cannot be an administrator.", code="service_account")


def _may_see_all(user_id: str) -> bool:
    principal = principals.current()
    return principal.is_admin or principal.id == user_id


def _change(user_id: str, changes: dict[str, Any]) -> Response:
    """Apply `changes`, end logins and tokens of a user who is disabled, keep one administrator."""
    with transaction():
        admins = list(
            locked(User.select(User.id).where(User.is_admin & (User.state == "active")))
            .order_by(User.id)
            .tuples()
        )
        user = User.get_by_id(user_id)
        _refuse_administrators(changes.get("is_admin"), user.kind)
        check_if_match(user.version)
        loses = changes.get("is_admin") is False or changes.get("state") == "disabled"
        if loses and admins == [(user.id,)]:
            raise Conflict(
                f"{user.name} is the last administrator.",
                code="last_administrator",
                hint="Make somebody else an administrator first.",
            )
        changed = (
            User.update(**changes, version=User.version + 1, updated_at=now_ms())
            .where((User.id == user_id) & (User.version == user.version))
            .execute()
        )
        if not changed:
            raise lost_race()
        if {"is_admin", "state"} & changes.keys():
            grants.user_changed(user_id, revokes=loses)
        if changes.get("state") == "disabled":
            logins.revoke_logins(user_id)
            access_tokens.revoke_all(user_id)
        power = {name: changes[name] for name in ("is_admin", "state") if name in changes}
        audit.append("update", "user", user_id, changes=sorted(changes), **power)
        user = User.get_by_id(user_id)
    return etagged(_shown(user), user.version)


def _shown(user: User, *, public: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": user.id,
        "name": user.name,
        "full_name": user.full_name,
        "kind": user.kind,
        "is_admin": bool(user.is_admin),
        "version": user.version,
        "created_at": rfc3339(user.created_at),
        "updated_at": rfc3339(user.updated_at),
    }
    if not public:
        document |= {"email": user.email, "state": user.state}
    return document
