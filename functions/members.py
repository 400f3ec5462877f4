"""The members of a project and their roles.

Admins manage viewers and members; owners also admins and owners. A project always has an owner.
"""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import BaseModel

from airavata_scheduler.functions import access, audit, grants, pagination, principals
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.permissions import Role
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.shapes import Body, Line, rfc3339
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, Conflict, NotFound
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import Project, ProjectMember, User

api = APIBlueprint(
    "members",
    __name__,
    url_prefix="/api/v1/projects",
    abp_tags=[Tag(name="projects")],
)

_NAMED_BY_OWNERS: frozenset[Role] = frozenset({"admin", "owner"})


class MemberAnswer(BaseModel):
    """A member of a project."""

    user_id: str
    name: str
    full_name: str
    role: Role
    created_at: str


class MemberPage(BaseModel):
    """A page of members."""

    items: list[MemberAnswer]
    next: str | None


class NewMemberBody(Body):
    """Whom to add, by name or id, and as what."""

    user: Line
    role: Role = "member"


class MemberBody(Body):
    """A member's new role."""

    role: Role


@api.get("/<project>/members", responses={200: MemberPage})
def list_members(query: PageQuery) -> dict[str, Any]:
    """List a project's members."""
    rows = _members(access.target("project").id).order_by(User.name).limit(query.limit + 1)
    position = pagination.after(query)
    if position:
        rows = rows.where(User.name > position[0])
    return pagination.page(list(rows.dicts()), query, key=lambda row: [row["name"]], show=_shown)


@api.post("/<project>/members", responses={201: MemberAnswer})
def add_member(body: NewMemberBody) -> tuple[dict[str, Any], int]:
    """Add a user to a project."""
    project = access.target("project")
    _check_may_name(project, body.role)
    user = _user_called(body.user)

    def make() -> dict[str, Any]:
        try:
            ProjectMember.insert(
                project_id=project.id, user_id=user.id, role=body.role, created_at=now_ms()
            ).execute()
        except IntegrityError:
            raise Conflict(
                f"{user.name} is a member of {project.name} already.",
                code="member_exists",
                hint="Change the role with PATCH.",
            ) from None
        grants.project_role_changed(project.id, ("user", user.id), after=body.role)
        audit.append(
            "add_member", "project", project.id, project_id=project.id,
            user_id=user.id, role=body.role,
        )  # fmt: skip
        return _shown(_members(project.id).where(User.id == user.id).dicts().get())

    return create_once(make).document, 201


@api.patch("/<project>/members/<user>", responses={200: MemberAnswer})
def change_member(body: MemberBody) -> Response:
    """Change a member's role."""
    project = access.target("project")
    with transaction():
        member = _locked_member(project)
        _check_may_name(project, member["role"])
        _check_may_name(project, body.role)
        if body.role != "owner":
            _keep_an_owner(project, member)
        ProjectMember.update(role=body.role).where(
            (ProjectMember.project_id == project.id) & (ProjectMember.user_id == member["user_id"])
        ).execute()
        subject = ("user", member["user_id"])
        grants.project_role_changed(project.id, subject, before=member["role"], after=body.role)
        audit.append(
            "change_member", "project", project.id, project_id=project.id,
            user_id=member["user_id"], before=member["role"], role=body.role,
        )  # fmt: skip
    return jsonify(_shown({**member, "role": body.role}))


@api.delete("/<project>/members/<user>", responses={204: None})
def remove_member() -> tuple[str, int]:
    """Take a user out of a project, or leave it."""
    project = access.target("project")
    with transaction():
        member = _locked_member(project)
        if member["user_id"] != principals.current().id:
            access.authorize(principals.current(), "manage", project)
            _check_may_name(project, member["role"])
        _keep_an_owner(project, member)
        ProjectMember.delete().where(
            (ProjectMember.project_id == project.id) & (ProjectMember.user_id == member["user_id"])
        ).execute()
        grants.project_role_changed(project.id, ("user", member["user_id"]), before=member["role"])
        audit.append(
            "remove_member", "project", project.id, project_id=project.id,
            user_id=member["user_id"], role=member["role"],
        )  # fmt: skip
    return "", 204


def _check_may_name(project: Target, role: Role) -> None:
    """Raise Forbidden if it takes an owner to give or take this role, and the caller is none."""
    if role in _NAMED_BY_OWNERS:
        access.authorize(principals.current(), "own", project)


def _user_called(name: str) -> User:
    """An active user by exact name or id: whoever knows a colleague's name may add them."""
    column = User.id if is_id(name) else User.name
    user: User | None = User.get_or_none((User.state == "active") & (column == name))
    if user is None:
        raise BadInput(
            f"There is no user {name!r}.",
            code="user_not_found",
            field="user",
            hint="It takes the exact user name; ask the person for it.",
        )
    return user


def _locked_member(project: Target) -> dict[str, Any]:
    """The member that the path names, with every member's row of the project locked.

    Two owners who leave at the same moment then follow each other. Raises NotFound.
    """
    asked = (request.view_args or {})["user"]
    list(locked(ProjectMember.select().where(ProjectMember.project_id == project.id)).tuples())
    column = User.id if is_id(asked) else User.name
    row: dict[str, Any] | None = _members(project.id).where(column == asked).dicts().first()
    if row is None:
        raise NotFound(
            f"{asked!r} is no member of {project.name}.",
            code="member_not_found",
            hint="List them: airavata project members " + project.name,
        )
    return row


def _keep_an_owner(project: Target, member: dict[str, Any]) -> None:
    """Raise Conflict if `member` is the only owner; else let another one stand as the owner."""
    if member["role"] != "owner":
        return
    other = (
        ProjectMember.select(ProjectMember.user_id)
        .where(
            (ProjectMember.project_id == project.id)
            & (ProjectMember.role == "owner")
            & (ProjectMember.user_id != member["user_id"])
        )
        .order_by(ProjectMember.created_at)
        .tuples()
        .first()
    )
    if other is None:
        raise Conflict(
            f"{member['name']} is the only owner of {project.name}.",
            code="last_owner",
            hint="Make another member an owner first.",
        )
    Project.update(owner_id=other[0]).where(
        (Project.id == project.id) & (Project.owner_id == member["user_id"])
    ).execute()


def _members(project_id: str) -> Any:
    return (
        ProjectMember.select(
            ProjectMember.user_id,
            User.name,
            User.full_name,
            ProjectMember.role,
            ProjectMember.created_at,
        )
        .join(User, on=(User.id == ProjectMember.user_id))
        .where(ProjectMember.project_id == project_id)
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "user_id": row["user_id"],
        "name": row["name"],
        "full_name": row["full_name"],
        "role": row["role"],
        "created_at": rfc3339(row["created_at"]),
    }
