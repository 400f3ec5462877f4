"""Who is in a group: users with a role, and other groups, whose people are then in it too.

Managers add and take out members; it takes an owner to name managers and owners. A group always has
an owner who is a user. A group inside a group is always a member of it.
"""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import BaseModel

from airavata_scheduler.functions import access, audit, group_grants, principals
from airavata_scheduler.functions.groups import Role, locked_group, may_manage_group
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.members import ask_first
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.pagination import PageQuery
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
from airavata_scheduler.models import groups
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, Conflict, NotFound
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import Group, GroupMember, User

api = APIBlueprint(
    "group_members", __name__, url_prefix="/api/v1/groups", abp_tags=[Tag(name="groups")]
)


class GroupMemberAnswer(SubjectAnswer):
    """A user or a group in a group."""

    role: Role
    created_at: str


class GroupMemberPage(BaseModel):
    """A page of members: users first, then groups."""

    items: list[GroupMemberAnswer]
    next: str | None


class NewGroupMemberBody(SubjectBody):
    """Whom to add, and as what; a group is always a member."""

    role: Role = "member"


class GroupMemberBody(Body):
    """A member's new role."""

    role: Role


@api.get("/<group>/members", responses={200: GroupMemberPage})
def list_group_members(query: PageQuery) -> dict[str, Any]:
    """List who is in a group: users with their roles, and groups."""
    group_id = access.target("group").id
    return page(
        query,
        users=Rows(select=_users(group_id), name=User.name),
        groups=Rows(select=_groups(group_id), name=Group.name),
    )


@api.post("/<group>/members", responses={201: GroupMemberAnswer})
def add_group_member(body: NewGroupMemberBody) -> tuple[dict[str, Any], int]:
    """Add a user or a group to a group."""
    group = access.target("group")
    _check_may_name(group, body.role)
    if body.group is not None and body.role != "member":
        raise BadInput(
            "A group inside a group is always a member.",
            code="group_role",
            field="role",
            hint="Add the person who shall look after it.",
        )

    def make() -> dict[str, Any]:
        if body.group is not None:
            groups.lock_nesting()
        locked_group(group)
        subject = _subject(body)
        if subject.kind == "group":
            groups.check_nesting(group.id, subject.id)
        _check_room(group)
        _insert(group, subject, body.role)
        group_grants.group_role_changed(group.id, subject.named, after=body.role)
        audit.append(
            "add_member", "group", group.id, member_kind=subject.kind, member_id=subject.id,
            role=body.role,
        )  # fmt: skip
        return _answer(group.id, subject)

    return create_once(make).document, 201


@api.patch("/<group>/members/<user>", responses={200: GroupMemberAnswer})
def change_group_member(body: GroupMemberBody) -> Response:
    """Change the role of a user in a group."""
    group = access.target("group")
    ask_first(group)
    with transaction():
        locked_group(group)
        subject, before = _member(group, _users(group.id), User, "user")
        _check_may_name(group, before)
        _check_may_name(group, body.role)
        if body.role != "owner":
            _keep_an_owner(group, subject, before)
        GroupMember.update(role=body.role).where(_is(group.id, subject)).execute()
        group_grants.group_role_changed(group.id, subject.named, before=before, after=body.role)
        audit.append(
            "change_member", "group", group.id, member_kind="user", member_id=subject.id,
            before=before, role=body.role,
        )  # fmt: skip
        return jsonify(_answer(group.id, subject))


@api.delete("/<group>/members/<user>", responses={204: None})
def remove_group_member() -> tuple[str, int]:
    """Take a user out of a group, or leave it."""
    group = access.target("group")
    ask_first(group)
    with transaction():
        locked_group(group)
        subject, role = _member(group, _users(group.id), User, "user")
        if subject.id != principals.current().id:
            access.authorize(principals.current(), "manage", group)
            _check_may_name(group, role)
        _keep_an_owner(group, subject, role)
        _remove(group, subject, role)
    return "", 204


@api.delete("/<group>/groups/<member>", responses={204: None})
def remove_group_from_group() -> tuple[str, int]:
    """Take a group out of a group; whoever manages one of the two may."""
    group = access.target("group")
    ask_first(group)
    subject, _ = _member(group, _groups(group.id), Group, "member")
    if not may_manage_group(subject.id):
        access.authorize(principals.current(), "manage", group)
    with transaction():
        locked_group(group)
        subject, role = _member(group, _groups(group.id), Group, "member")
        _remove(group, subject, role)
    return "", 204


def _subject(body: NewGroupMemberBody) -> Subject:
    """Whom the body names. The gate has found a group among those that the caller may read."""
    if body.group is None or body.user is not None:
        return named_in(body)
    inner = locked_group(access.targets("group")[1])
    return Subject(kind="group", id=inner.id, name=inner.name)


def _check_may_name(group: Target, role: str) -> None:
    """Raise Forbidden if it takes an owner to give or take this role, and the caller is none."""
    if role != "member":
        access.authorize(principals.current(), "own", group)


def _check_room(group: Target) -> None:
    there = GroupMember.select().where(GroupMember.group_id == group.id).count()
    if there >= groups.MAX_MEMBERS:
        raise Conflict(
            f"{group.name} has {there:,} members; more do not fit.",
            code="group_full",
            hint="Put a group into it: who is in that one is in both.",
        )


def _insert(group: Target, subject: Subject, role: str) -> None:
    try:
        GroupMember.insert(
            group_id=group.id,
            subject_kind=subject.kind,
            subject_id=subject.id,
            role=role,
            created_at=now_ms(),
        ).execute()
    except IntegrityError:
        raise Conflict(
            f"{subject.name} is in {group.name} already.",
            code="member_exists",
            hint="Change a user's role with PATCH.",
        ) from None


def _remove(group: Target, subject: Subject, role: str) -> None:
    GroupMember.delete().where(_is(group.id, subject)).execute()
    group_grants.group_role_changed(group.id, subject.named, before=role)
    audit.append(
        "remove_member", "group", group.id, member_kind=subject.kind, member_id=subject.id,
        role=role,
    )  # fmt: skip


def _member(group: Target, rows: Any, model: Any, place: str) -> tuple[Subject, str]:
    """The member that the path names at `place`, and its role. Raises NotFound."""
    asked = (request.view_args or {})[place]
    row = rows.where((model.id if is_id(asked) else model.name) == asked).dicts().first()
    if row is None:
        raise NotFound(
            f"{asked!r} is not in {group.name}.",
            code="member_not_found",
            hint="List who is: airavata group members " + group.name,
        )
    kind: Any = "user" if model is User else "group"
    return Subject(kind=kind, id=row["id"], name=row["name"]), row["role"]


def _keep_an_owner(group: Target, subject: Subject, role: str) -> None:
    """Raise Conflict if `subject` is the only owner; the group's row is locked."""
    if role != "owner":
        return
    owners = GroupMember.select().where(
        (GroupMember.group_id == group.id) & (GroupMember.role == "owner")
    )
    if owners.count() < 2:
        raise Conflict(
            f"{subject.name} is the only owner of {group.name}.",
            code="last_owner",
            hint="Make another user an owner first.",
        )


def _is(group_id: str, subject: Subject) -> Any:
    return (
        (GroupMember.group_id == group_id)
        & (GroupMember.subject_kind == subject.kind)
        & (GroupMember.subject_id == subject.id)
    )


def _users(group_id: str) -> Any:
    return (
        GroupMember.select(
            User.id, User.name, User.full_name, GroupMember.role, GroupMember.created_at
        )
        .join(User, on=(User.id == GroupMember.subject_id))
        .where((GroupMember.group_id == group_id) & (GroupMember.subject_kind == "user"))
    )


def _groups(group_id: str) -> Any:
    return (
        GroupMember.select(Group.id, Group.name, GroupMember.role, GroupMember.created_at)
        .join(Group, on=(Group.id == GroupMember.subject_id))
        .where((GroupMember.group_id == group_id) & (GroupMember.subject_kind == "group"))
    )


def _answer(group_id: str, subject: Subject) -> dict[str, Any]:
    rows, model = (_users, User) if subject.kind == "user" else (_groups, Group)
    row = rows(group_id).where(model.id == subject.id).dicts().get()
    return shown({"kind": subject.kind, "full_name": "", **row})
