"""The members of a project: users, each with a role. Groups stand in `project_groups.py`.

Admins manage viewers and members; owners also admins and owners. A project always has an owner who
is a user.
"""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError, Value
from pydantic import BaseModel, Field

from airavata_scheduler.functions import access, audit, grants, permissions, principals
from airavata_scheduler.functions.groups import locked_group
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.permissions import Role
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.shapes import Body
from airavata_scheduler.functions.subjects import (
    Rows,
    Subject,
    SubjectAnswer,
    SubjectBody,
    named_in,
    page,
    shown,
)
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import Conflict, NotFound
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import Group, Project, ProjectGroup, ProjectMember, User

api = APIBlueprint(
    "members",
    __name__,
    url_prefix="/api/v1/projects",
    abp_tags=[Tag(name="projects")],
)

_NAMED_BY_OWNERS: frozenset[Role] = frozenset({"admin", "owner"})


class MemberAnswer(SubjectAnswer):
    """A user or a group in a project."""

    user_id: str | None = Field(description="The `id` of a user; null for a group")
    role: Role
    created_at: str


class MemberPage(BaseModel):
    """A page of members: users first, then groups."""

    items: list[MemberAnswer]
    next: str | None


class NewMemberBody(SubjectBody):
    """Whom to add, and as what."""

    role: Role = "member"


class MemberBody(Body):
    """A member's new role."""

    role: Role


@api.get("/<project>/members", responses={200: MemberPage})
def list_members(query: PageQuery) -> dict[str, Any]:
    """List who is in a project: users and groups, each with a role."""
    project_id = access.target("project").id
    return page(
        query,
        users=Rows(select=_users(project_id), name=User.name),
        groups=Rows(select=groups_in(project_id), name=Group.name),
    )


@api.post("/<project>/members", responses={201: MemberAnswer})
def add_member(body: NewMemberBody) -> tuple[dict[str, Any], int]:
    """Add a user or a group to a project."""
    project = access.target("project")
    check_may_name(project, body.role)

    def make() -> dict[str, Any]:
        subject = _subject(body)
        _insert(project, subject, body.role)
        grants.project_role_changed(project.id, subject.named, after=body.role)
        audit.append(
            "add_member", "project", project.id, project_id=project.id,
            **audited(subject), role=body.role,
        )  # fmt: skip
        return answer(project.id, subject)

    return create_once(make).document, 201


@api.patch("/<project>/members/<user>", responses={200: MemberAnswer})
def change_member(body: MemberBody) -> Response:
    """Change the role of a user in a project."""
    project = access.target("project")
    ask_first(project)
    with transaction():
        user, before = _locked_user(project)
        check_may_name(project, before)
        check_may_name(project, body.role)
        if body.role != "owner":
            _keep_an_owner(project, user, before)
        ProjectMember.update(role=body.role).where(
            (ProjectMember.project_id == project.id) & (ProjectMember.user_id == user.id)
        ).execute()
        grants.project_role_changed(project.id, user.named, before=before, after=body.role)
        audit.append(
            "change_member", "project", project.id, project_id=project.id,
            **audited(user), before=before, role=body.role,
        )  # fmt: skip
        return jsonify(answer(project.id, user))


@api.delete("/<project>/members/<user>", responses={204: None})
def remove_member() -> tuple[str, int]:
    """Take a user out of a project, or leave it."""
    project = access.target("project")
    ask_first(project)
    with transaction():
        user, role = _locked_user(project)
        if user.id != principals.current().id:
            access.authorize(principals.current(), "manage", project)
            check_may_name(project, role)
        _keep_an_owner(project, user, role)
        ProjectMember.delete().where(
            (ProjectMember.project_id == project.id) & (ProjectMember.user_id == user.id)
        ).execute()
        grants.project_role_changed(project.id, user.named, before=role)
        audit.append(
            "remove_member", "project", project.id, project_id=project.id,
            **audited(user), role=role,
        )  # fmt: skip
    return "", 204


def check_may_name(project: Target, role: str) -> None:
    """Raise Forbidden if it takes an owner to give or take this role, and the caller is none."""
    if role in _NAMED_BY_OWNERS:
        access.authorize(principals.current(), "own", project)


def ask_first(found: Target) -> None:
    """Ask what the caller may do to a project or a group before a transaction begins.

    The answers are kept for the request: so no row is locked while SpiceDB is asked, and what waits
    for its relay can be relayed.
    """
    permissions.decide(principals.current(), [("read", found), ("manage", found), ("own", found)])


def audited(subject: Subject) -> dict[str, str]:
    """How the audit log names who was added, changed or taken out."""
    return {f"{subject.kind}_id": subject.id}


def answer(project_id: str, subject: Subject) -> dict[str, Any]:
    """The JSON of a user or a group in a project."""
    rows, model = (_users, User) if subject.kind == "user" else (groups_in, Group)
    row = rows(project_id).where(model.id == subject.id).dicts().get()
    return shown({"kind": subject.kind, "full_name": "", **row})


def no_member(project: Target, asked: str) -> NotFound:
    """The error for somebody who is not in the project."""
    return NotFound(
        f"{asked!r} is no member of {project.name}.",
        code="member_not_found",
        hint="List them: airavata project members " + project.name,
    )


def _subject(body: NewMemberBody) -> Subject:
    """Whom the body names. The gate has found a group among those that the caller may read."""
    if body.group is None or body.user is not None:
        return named_in(body)
    group = locked_group(access.target("group"))
    return Subject(kind="group", id=group.id, name=group.name)


def _insert(project: Target, subject: Subject, role: Role) -> None:
    table: Any = ProjectMember if subject.kind == "user" else ProjectGroup
    column = {f"{subject.kind}_id": subject.id}
    try:
        table.insert(project_id=project.id, **column, role=role, created_at=now_ms()).execute()
    except IntegrityError:
        raise Conflict(
            f"{subject.name} is a member of {project.name} already.",
            code="member_exists",
            hint="Change the role with PATCH.",
        ) from None


def _locked_user(project: Target) -> tuple[Subject, str]:
    """The user that the path names and their role, with every user's row of the project locked.

    Two owners who leave at the same moment then follow each other. Raises NotFound.
    """
    asked = (request.view_args or {})["user"]
    list(locked(ProjectMember.select().where(ProjectMember.project_id == project.id)).tuples())
    column = User.id if is_id(asked) else User.name
    row = _users(project.id).where(column == asked).dicts().first()
    if row is None:
        raise no_member(project, asked)
    return Subject(kind="user", id=row["id"], name=row["name"]), row["role"]


def _keep_an_owner(project: Target, user: Subject, role: str) -> None:
    """Raise Conflict if `user` is the only owner; else let another one stand as the owner."""
    if role != "owner":
        return
    other = (
        ProjectMember.select(ProjectMember.user_id)
        .where(
            (ProjectMember.project_id == project.id)
            & (ProjectMember.role == "owner")
            & (ProjectMember.user_id != user.id)
        )
        .order_by(ProjectMember.created_at)
        .tuples()
        .first()
    )
    if other is None:
        raise Conflict(
            f"{user.name} is the only owner of {project.name} who is a user.",
            code="last_owner",
            hint="Make another user an owner first.",
        )
    Project.update(owner_id=other[0]).where(
        (Project.id == project.id) & (Project.owner_id == user.id)
    ).execute()


def _users(project_id: str) -> Any:
    return (
        ProjectMember.select(
            User.id,
            User.name,
            User.full_name,
            ProjectMember.user_id,
            ProjectMember.role,
            ProjectMember.created_at,
        )
        .join(User, on=(User.id == ProjectMember.user_id))
        .where(ProjectMember.project_id == project_id)
    )


def groups_in(project_id: str) -> Any:
    """The groups with a role in a project: a `ModelSelect` of what `answer` shows."""
    return (
        ProjectGroup.select(
            Group.id,
            Group.name,
            Value(None).alias("user_id"),
            ProjectGroup.role,
            ProjectGroup.created_at,
        )
        .join(Group, on=(Group.id == ProjectGroup.group_id))
        .where(ProjectGroup.project_id == project_id)
    )
