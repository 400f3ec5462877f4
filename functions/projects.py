"""Projects and their members."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import BaseModel

from airavata_scheduler.functions import (
    access,
    audit,
    grants,
    naming,
    pagination,
    permissions,
    principals,
)
from airavata_scheduler.functions.bootstrap import name_taken
from airavata_scheduler.functions.etags import check_if_match, etagged, lost_race
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.shapes import Body, Name, Text, rfc3339
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.states import ExperimentState
from airavata_scheduler.models.tables import Experiment, Project, ProjectMember

api = APIBlueprint(
    "projects", __name__, url_prefix="/api/v1/projects", abp_tags=[Tag(name="projects")]
)

_IN_MOTION = (ExperimentState.PLANNING, ExperimentState.RUNNING, ExperimentState.PAUSED)


class ProjectAnswer(BaseModel):
    """A project, and your role in it."""

    id: str
    name: str
    description: str
    owner_id: str
    role: Literal["owner", "admin", "member", "viewer"] | None
    version: int
    created_at: str
    updated_at: str


class ProjectPage(BaseModel):
    """A page of projects."""

    items: list[ProjectAnswer]
    next: str | None


class NewProjectBody(Body):
    """A project to make; you become its owner."""

    name: Name
    description: Text = ""


class ProjectBody(Body):
    """What may be changed about a project."""

    name: Name | None = None
    description: Text | None = None


@api.post("", responses={201: ProjectAnswer})
def create_project(body: NewProjectBody) -> tuple[dict[str, Any], int]:
    """Make a project."""
    owner_id = principals.current().id

    def make() -> dict[str, Any]:
        project_id, now = new_id(), now_ms()
        try:
            Project.insert(
                id=project_id,
                name=body.name,
                description=body.description,
                owner_id=owner_id,
                created_at=now,
                updated_at=now,
            ).execute()
        except IntegrityError:
            raise name_taken("project", body.name) from None
        ProjectMember.insert(
            project_id=project_id, user_id=owner_id, role="owner", created_at=now
        ).execute()
        grants.project_made(project_id, owner_id)
        audit.append("create", "project", project_id, project_id=project_id, name=body.name)
        return _shown(Project.get_by_id(project_id), "owner")

    return create_once(make).document, 201


@api.get("", responses={200: ProjectPage})
def list_projects(query: PageQuery) -> dict[str, Any]:
    """List the projects that you may see."""
    return page_of(query)


def page_of(query: PageQuery, *, members_only: bool = False) -> dict[str, Any]:
    """A page of the caller's visible projects by name, or only of those with a membership."""
    principal = principals.current()
    rows = naming.rows_visible("project", principal).order_by(Project.name)
    if members_only:
        rows = rows.where(Project.id.in_(permissions.scope_ids(principal, "project", "view")))
    position = pagination.after(query)
    if position:
        rows = rows.where(Project.name > position[0])
    found = list(rows.limit(query.limit + 1))
    roles = permissions.roles_in(principal, [row.id for row in found])
    return pagination.page(
        found,
        query,
        key=lambda project: [project.name],
        show=lambda project: _shown(project, roles.get(project.id)),
    )


@api.get("/<project>", responses={200: ProjectAnswer})
def get_project() -> Response:
    """Show a project."""
    return _answer(access.target("project").id)


@api.patch("/<project>", responses={200: ProjectAnswer})
def change_project(body: ProjectBody) -> Response:
    """Change a project's name or description."""
    project_id = access.target("project").id
    changes = body.model_dump(exclude_none=True)
    with transaction():
        version = Project.get_by_id(project_id).version
        check_if_match(version)
        _update(project_id, version, changes)
        audit.append(
            "update", "project", project_id, project_id=project_id, changes=sorted(changes)
        )
    return _answer(project_id)


@api.delete("/<project>", responses={204: None})
def delete_project() -> tuple[str, int]:
    """Delete a project. Refused while one of its experiments is running."""
    project_id = access.target("project").id
    with transaction():
        project = Project.get_by_id(project_id)
        check_if_match(project.version)
        if (
            Experiment.select()
            .where(
                (Experiment.project_id == project_id)
                & (Experiment.kind == "experiment")
                & Experiment.state.in_([state.value for state in _IN_MOTION])
            )
            .exists()
        ):
            raise Conflict(
                "The project has experiments that are running.",
                code="project_busy",
                hint="Cancel them first: airavata experiment cancel …",
            )
        # The row stays as a tombstone, which every check reads first; its name is free again.
        _update(
            project_id,
            project.version,
            {"state": "deleted", "name": f"{project.name}~{project_id}"},
        )
        grants.project_deleted(project_id)
        audit.append("delete", "project", project_id, project_id=project_id)
    return "", 204


def _update(project_id: str, version: int, changes: dict[str, Any]) -> None:
    try:
        changed = (
            Project.update(**changes, version=Project.version + 1, updated_at=now_ms())
            .where((Project.id == project_id) & (Project.version == version))
            .execute()
        )
    except IntegrityError:
        raise name_taken("project", changes["name"]) from None
    if not changed:
        raise lost_race()


def _answer(project_id: str) -> Response:
    project = Project.get_by_id(project_id)
    role = permissions.roles_in(principals.current(), [project_id])[project_id]
    return etagged(_shown(project, role), project.version)


def _shown(project: Project, role: str | None) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "owner_id": project.owner_id,
        "role": role,
        "version": project.version,
        "created_at": rfc3339(project.created_at),
        "updated_at": rfc3339(project.updated_at),
    }
