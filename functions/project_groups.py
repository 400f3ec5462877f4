"""Groups with a role in a project: everybody in the group has it.

They are added and listed with the users, in `members.py`, by the same rules.
"""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag

from airavata_scheduler.functions import access, audit, grants, principals
from airavata_scheduler.functions.groups import may_manage_group
from airavata_scheduler.functions.members import (
    MemberAnswer,
    MemberBody,
    answer,
    ask_first,
    audited,
    check_may_name,
    groups_in,
    no_member,
)
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.subjects import Subject
from airavata_scheduler.models.database import transaction
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import Group, ProjectGroup

api = APIBlueprint(
    "project_groups",
    __name__,
    url_prefix="/api/v1/projects",
    abp_tags=[Tag(name="projects")],
)


@api.patch("/<project>/groups/<group>", responses={200: MemberAnswer})
def change_project_group(body: MemberBody) -> Response:
    """Change the role of a group in a project."""
    project = access.target("project")
    ask_first(project)
    with transaction():
        group, before = _locked_group(project)
        check_may_name(project, before)
        check_may_name(project, body.role)
        ProjectGroup.update(role=body.role).where(_is(project, group)).execute()
        grants.project_role_changed(project.id, group.named, before=before, after=body.role)
        audit.append(
            "change_member", "project", project.id, project_id=project.id,
            **audited(group), before=before, role=body.role,
        )  # fmt: skip
        return jsonify(answer(project.id, group))


@api.delete("/<project>/groups/<group>", responses={204: None})
def remove_project_group() -> tuple[str, int]:
    """Take a group out of a project; whoever manages the group may as well."""
    project = access.target("project")
    ask_first(project)
    group, _ = _group(project)
    leaves = may_manage_group(group.id)
    with transaction():
        group, role = _locked_group(project)
        if not leaves:
            access.authorize(principals.current(), "manage", project)
            check_may_name(project, role)
        ProjectGroup.delete().where(_is(project, group)).execute()
        grants.project_role_changed(project.id, group.named, before=role)
        audit.append(
            "remove_member", "project", project.id, project_id=project.id,
            **audited(group), role=role,
        )  # fmt: skip
    return "", 204


def _group(project: Target) -> tuple[Subject, str]:
    """The group that the path names and its role. Raises NotFound."""
    asked = (request.view_args or {})["group"]
    column = Group.id if is_id(asked) else Group.name
    row = groups_in(project.id).where(column == asked).dicts().first()
    if row is None:
        raise no_member(project, asked)
    return Subject(kind="group", id=row["id"], name=row["name"]), row["role"]


def _locked_group(project: Target) -> tuple[Subject, str]:
    """As `_group`, its row locked."""
    group, _ = _group(project)
    held = locked(ProjectGroup.select().where(_is(project, group))).first()
    if held is None:
        raise no_member(project, group.name)
    return group, held.role


def _is(project: Target, group: Subject) -> Any:
    return (ProjectGroup.project_id == project.id) & (ProjectGroup.group_id == group.id)
