"""What relates a user to an object, in sentences: from the rows that permissions follow from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airavata_scheduler.functions.naming import Target, spoken
from airavata_scheduler.models import groups
from airavata_scheduler.models.tables import (
    Group,
    GroupMember,
    Project,
    ProjectGroup,
    ProjectMember,
    Share,
    User,
)


@dataclass(frozen=True, kw_only=True)
class Someone:
    """The user that is asked about."""

    id: str
    name: str
    is_admin: bool


def facts(user: Someone, found: Target) -> list[str]:
    """Everything that relates the user to the object; empty where nothing does."""
    mine = _groups_of(user.id)
    return [
        *_own(user, found),
        *_in_group(user, found, mine),
        *_in_project(user, found, mine),
        *_shares(user, found, mine),
    ]


def _groups_of(user_id: str) -> dict[str, str]:
    """The groups that the user is in, near or far: id → name."""
    ids = list(groups.groups_of(user_id))
    if not ids:
        return {}
    return {row.id: row.name for row in Group.select(Group.id, Group.name).where(Group.id.in_(ids))}


def _own(user: Someone, found: Target) -> Iterator[str]:
    if user.is_admin:
        yield f"{user.name} is a system administrator."
    if found.kind == "user" and found.id == user.id:
        yield f"{user.name} is that user."
    if found.owner_id == user.id and found.kind != "project":
        yield f"{user.name} owns {found.label}."
    if found.kind in ("compute_resource", "storage_resource") and found.project_id is None:
        yield f"{found.label[:1].upper()}{found.label[1:]} is bound to no project: all may use it."


def _in_group(user: Someone, found: Target, mine: dict[str, str]) -> Iterator[str]:
    if found.kind != "group":
        return
    row = GroupMember.get_or_none(
        (GroupMember.group_id == found.id)
        & (GroupMember.subject_kind == "user")
        & (GroupMember.subject_id == user.id)
    )
    if row is not None:
        yield f"{user.name} is {row.role} of the group {found.name}."
    elif found.id in mine:
        yield f"{user.name} is in the group {found.name}, by a group inside it."


def _in_project(user: Someone, found: Target, mine: dict[str, str]) -> Iterator[str]:
    if found.project_id is None:
        return
    project = Project.get_by_id(found.project_id)
    if project.state != "active":
        yield f"The project {project.name} was deleted."
        return
    row = ProjectMember.get_or_none(
        (ProjectMember.project_id == project.id) & (ProjectMember.user_id == user.id)
    )
    if row is not None:
        yield f"{user.name} is {row.role} of the project {project.name}."
    for entry in ProjectGroup.select().where(ProjectGroup.project_id == project.id):
        if entry.group_id in mine:
            yield (
                f"{user.name} is in the group {mine[entry.group_id]}, which is {entry.role} of "
                f"the project {project.name}."
            )


def _shares(user: Someone, found: Target, mine: dict[str, str]) -> Iterator[str]:
    rows = Share.select().where((Share.object_kind == found.kind) & (Share.object_id == found.id))
    for row in rows.order_by(Share.subject_kind.desc(), Share.relation):
        if row.subject_kind == "user" and row.subject_id == user.id:
            yield f"{found.label} is shared with {user.name} as {row.relation}.".replace(
                "the ", "The ", 1
            )
        elif row.subject_kind == "group" and row.subject_id in mine:
            yield (
                f"{user.name} is in the group {mine[row.subject_id]}, with which the "
                f"{spoken(found.kind)} {found.name} is shared as {row.relation}."
            )


def someone(user: User) -> Someone:
    """The user of a row."""
    return Someone(id=user.id, name=user.name, is_admin=bool(user.is_admin))
