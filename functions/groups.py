"""Groups: users and other groups under one name, which can be given what a user can be given."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import BaseModel, Field

from airavata_scheduler.functions import (
    access,
    audit,
    grants,
    group_grants,
    naming,
    pagination,
    permissions,
    principals,
    shares,
)
from airavata_scheduler.functions.bootstrap import name_taken
from airavata_scheduler.functions.etags import check_if_match, etagged, lost_race
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.shapes import Body, Name, Text, rfc3339
from airavata_scheduler.models import groups
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import Group, GroupMember, ProjectGroup

api = APIBlueprint("groups", __name__, url_prefix="/api/v1/groups", abp_tags=[Tag(name="groups")])

Role = Literal["owner", "manager", "member"]


class GroupAnswer(BaseModel):
    """A group, and your role in it."""

    id: str
    name: str
    description: str
    role: Role | None = Field(
        description="Null: you are in it through another group, or not at all"
    )
    version: int
    created_at: str
    updated_at: str


class GroupPage(BaseModel):
    """A page of groups."""

    items: list[GroupAnswer]
    next: str | None


class NewGroupBody(Body):
    """A group to make; you become its owner."""

    name: Name
    description: Text = ""


class GroupBody(Body):
    """What may be changed about a group."""

    name: Name | None = None
    description: Text | None = None


@api.post("", responses={201: GroupAnswer})
def create_group(body: NewGroupBody) -> tuple[dict[str, Any], int]:
    """Make a group."""
    owner = principals.current()

    def make() -> dict[str, Any]:
        group_id, now = new_id(), now_ms()
        try:
            Group.insert(
                id=group_id,
                name=body.name,
                description=body.description,
                created_at=now,
                updated_at=now,
            ).execute()
        except IntegrityError:
            raise name_taken("group", body.name) from None
        GroupMember.insert(
            group_id=group_id, subject_kind="user", subject_id=owner.id, role="owner",
            created_at=now,
        ).execute()  # fmt: skip
        group_grants.group_made(group_id, owner.id)
        audit.append("create", "group", group_id, name=body.name)
        return _shown(Group.get_by_id(group_id), "owner")

    return create_once(make).document, 201


@api.get("", responses={200: GroupPage})
def list_groups(query: PageQuery) -> dict[str, Any]:
    """List the groups that you may see."""
    return page_of(query, naming.rows_visible("group", principals.current()))


def my_page(query: PageQuery) -> dict[str, Any]:
    """A page of the groups in which the caller is, themselves or through other groups."""
    mine = groups.groups_of(principals.current().id)
    return page_of(query, Group.select().where(Group.id.in_(mine)))


def page_of(query: PageQuery, rows: Any) -> dict[str, Any]:
    """A page of the groups among `rows` by name, with the caller's roles."""
    position = pagination.after(query)
    if position:
        rows = rows.where(Group.name > position[0])
    found = list(rows.order_by(Group.name).limit(query.limit + 1))
    roles = _own_roles([row.id for row in found])
    return pagination.page(
        found,
        query,
        key=lambda group: [group.name],
        show=lambda group: _shown(group, roles.get(group.id)),
    )


@api.get("/<group>", responses={200: GroupAnswer})
def get_group() -> Response:
    """Show a group."""
    return _answer(access.target("group").id)


@api.patch("/<group>", responses={200: GroupAnswer})
def change_group(body: GroupBody) -> Response:
    """Change a group's name or description."""
    found = access.target("group")
    changes = body.model_dump(exclude_none=True)
    with transaction():
        version = locked_group(found).version
        check_if_match(version)
        try:
            changed = (
                Group.update(**changes, version=Group.version + 1, updated_at=now_ms())
                .where((Group.id == found.id) & (Group.version == version))
                .execute()
            )
        except IntegrityError:
            raise name_taken("group", changes["name"]) from None
        if not changed:
            raise lost_race()
        audit.append("update", "group", found.id, changes=sorted(changes))
    return _answer(found.id)


@api.delete("/<group>", responses={204: None})
def delete_group() -> tuple[str, int]:
    """Delete a group; its members lose at once what they had through it."""
    found = access.target("group")
    with transaction():
        groups.lock_nesting()
        check_if_match(locked_group(found).version)
        lost: dict[str, Any] = {
            "members": _empty(found.id),
            "groups": _leave_holders(found),
            "projects": _leave_projects(found),
            "shares": shares.forget_group(found.id),
        }
        Group.delete().where(Group.id == found.id).execute()
        audit.append("delete", "group", found.id, name=found.name, **lost)
    return "", 204


def locked_group(found: naming.Target) -> Group:
    """The group's row, locked: changes of one group follow each other. Raises NotFound."""
    row: Group | None = locked(Group.select().where(Group.id == found.id)).first()
    if row is None:
        raise naming.not_found("group", found.asked, principals.current())
    return row


def may_manage_group(group_id: str) -> bool:
    """Whether the caller manages the group, and so may take it out of where it is."""
    found = naming.Target(kind="group", id=group_id, name="", project_id=None, owner_id=None)
    return permissions.allows(principals.current(), "manage", found)


def _empty(group_id: str) -> int:
    """Take everybody out of a group; how many that were."""
    rows = GroupMember.select().where(GroupMember.group_id == group_id)
    members = [(row.role, (row.subject_kind, row.subject_id)) for row in rows]
    group_grants.group_deleted(group_id, members)
    GroupMember.delete().where(GroupMember.group_id == group_id).execute()
    return len(members)


def _leave_holders(found: naming.Target) -> list[str]:
    """Take a group out of every group that holds it; their ids."""
    within = (GroupMember.subject_id == found.id) & (GroupMember.subject_kind == "group")
    places = list(GroupMember.select().where(within))
    for place in places:
        group_grants.group_role_changed(place.group_id, ("group", found.id), before=place.role)
    GroupMember.delete().where(within).execute()
    return [place.group_id for place in places]


def _leave_projects(found: naming.Target) -> list[str]:
    """Take a group out of every project in which it has a role; their ids."""
    places = list(ProjectGroup.select().where(ProjectGroup.group_id == found.id))
    for place in places:
        grants.project_role_changed(place.project_id, ("group", found.id), before=place.role)
    ProjectGroup.delete().where(ProjectGroup.group_id == found.id).execute()
    return [place.project_id for place in places]


def _own_roles(group_ids: list[str]) -> dict[str, str]:
    """The caller's own roles in these groups."""
    rows: Any = (
        GroupMember.select(GroupMember.group_id, GroupMember.role)
        .where(
            (GroupMember.subject_kind == "user")
            & (GroupMember.subject_id == principals.current().id)
            & GroupMember.group_id.in_(group_ids)
        )
        .tuples()
    )
    return dict(rows)


def _answer(group_id: str) -> Response:
    group = Group.get_by_id(group_id)
    return etagged(_shown(group, _own_roles([group_id]).get(group_id)), group.version)


def _shown(group: Group, role: str | None) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "role": role,
        "version": group.version,
        "created_at": rfc3339(group.created_at),
        "updated_at": rfc3339(group.updated_at),
    }
