"""Functions: registered by name, never changed, versioned from 1.

The same specification again is the same version, so that a script may register at each run.
"""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from airavata_scheduler.functions import access, idempotency, permissions, principals, staging
from airavata_scheduler.functions.attachments import FileFacts, Files, check_sent, described
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.pagination import PageQuery, after, page
from airavata_scheduler.functions.selected import dict_one, dict_row, dict_rows, tuple_row
from airavata_scheduler.functions.shapes import Answer, Body, Query, rfc3339
from airavata_scheduler.models import function_file, outbox
from airavata_scheduler.models.database import dialect, now_ms
from airavata_scheduler.models.errors import BadInput, NotFound
from airavata_scheduler.models.experiment_file import FunctionLookup
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import Function, FunctionVersion, Project

api = APIBlueprint("functions", __name__, abp_tags=[Tag(name="functions")])


class FunctionBody(Body):
    """A function: what `function register` reads from a file, or the SDK makes of a callable."""

    project: str = Field(description="Project, by id or name")
    name: str = Field(min_length=1, max_length=100)
    spec: dict[str, Any] = Field(description="See the page on functions")
    files: Files = Field(default_factory=dict[str, FileFacts])
    tables: dict[str, str] = Field(
        default_factory=dict, max_length=0, description="Empty: a function has no rows"
    )


class FunctionListQuery(PageQuery):
    """Which functions."""

    project: str | None = None
    q: str | None = Field(None, max_length=255, description="Part of the name")


class InProject(Query):
    """The project that a function's name belongs to."""

    project: str | None = None


class VersionsQuery(PageQuery):
    """Which page of the versions."""

    project: str | None = None


class FunctionAnswer(Answer):
    """A function with the specification of one version."""

    id: str
    name: str
    project_id: str
    version: int
    latest_version: int
    spec: dict[str, Any] | None = None
    created_at: str | None = None
    updated_at: str | None = None


@api.post("/api/v1/functions", responses={200: FunctionAnswer, 201: FunctionAnswer})
def register(body: FunctionBody) -> Response:
    """Register a function, or a new version of it; 200 if this version exists already."""
    project = access.target("project")
    check_sent(project.id, body.files)
    spec = function_file.read_function(body.spec, files=described(body.files), name=body.name)
    spec["stage_in"] = staging.with_storage_ids(spec["stage_in"])
    made = idempotency.create_once(lambda: _register(project, body.name, spec))
    response = jsonify(made.document["function"])
    response.status_code = 201 if made.document["created"] else 200
    return response


def _register(project: Target, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Find or make the function, then the version; the function's row is the lock."""
    principal, at = principals.current(), now_ms()
    row = _locked(project.id, name)
    created = row is None
    if row is None:
        row = {"id": new_id(), "latest_version": 0}
        Function.insert(
            id=row["id"],
            project_id=project.id,
            name=name,
            latest_version=0,
            owner_id=principal.id,
            created_at=at,
            updated_at=at,
        ).execute()
        outbox.created("function", row["id"], project_id=project.id, owner_id=principal.id)
    elif row["state"] != "active":
        raise BadInput(
            f"The function {name} of this project was deleted; its name stays taken.",
            code="name_taken",
            field="name",
            hint="Choose another name.",
        )
    if created or _spec_of(row["id"], row["latest_version"]) != spec:
        created = True
        _add_version(row["id"], row["latest_version"] + 1, spec, principal.id, at)
    found = dict_one(Function.select().where(Function.id == row["id"]))
    return {"created": created, "function": _shown(found, found["latest_version"], spec)}


def _locked(project_id: str, name: str) -> dict[str, Any] | None:
    query = Function.select().where((Function.project_id == project_id) & (Function.name == name))
    if dialect() != "sqlite":  # there the transaction itself is the lock
        query = query.for_update()
    row: dict[str, Any] | None = dict_row(query)
    return row


def _add_version(
    function_id: str, number: int, spec: dict[str, Any], user_id: str, at: int
) -> None:
    FunctionVersion.insert(
        id=new_id(),
        function_id=function_id,
        number=number,
        spec=spec,
        created_by=user_id,
        created_at=at,
    ).execute()
    Function.update(latest_version=number, version=Function.version + 1, updated_at=at).where(
        Function.id == function_id
    ).execute()


@api.get("/api/v1/functions")
def functions(query: FunctionListQuery) -> dict[str, Any]:
    """List functions by project and name."""
    chosen = [item.id for item in access.targets("project")]
    clause = permissions.visible(principals.current(), "function", scope=Function.project_id) & (
        Function.state == "active"
    )
    if chosen:
        clause = clause & (Function.project_id == chosen[0])
    if query.q:
        clause = clause & Function.name.contains(query.q)
    behind = after(query)
    if behind is not None:
        name, identity = behind
        clause = clause & (
            (Function.name > name) | ((Function.name == name) & (Function.id > identity))
        )
    rows = dict_rows(
        Function.select(Function, Project.name.alias("project"))
        .join(Project, on=(Project.id == Function.project_id))
        .where(clause)
        .order_by(Function.name, Function.id)
        .limit(query.limit + 1)
    )
    return page(
        rows,
        query,
        key=lambda row: [row["name"], row["id"]],
        show=lambda row: _shown(row, row["latest_version"]),
    )


@api.get("/api/v1/functions/<function>", responses={200: FunctionAnswer})
def function(query: InProject) -> dict[str, Any]:
    """One function, its latest version or the one of `name@number`."""
    del query
    found = access.target("function")
    number = found.number or found.row["latest_version"]
    return _shown(dict(found.row), number, version_of(found)["spec"])


@api.get("/api/v1/functions/<function>/versions")
def versions(query: VersionsQuery) -> dict[str, Any]:
    """Every version, newest first."""
    found = access.target("function")
    clause = FunctionVersion.function_id == found.id
    behind = after(query)
    if behind is not None:
        clause = clause & (FunctionVersion.number < behind[0])
    rows = dict_rows(
        FunctionVersion.select()
        .where(clause)
        .order_by(FunctionVersion.number.desc())
        .limit(query.limit + 1)
    )
    return page(
        rows,
        query,
        key=lambda row: [row["number"]],
        show=lambda row: {
            "id": row["id"],
            "name": found.name,
            "version": row["number"],
            "spec": row["spec"],
            "created_at": rfc3339(row["created_at"]),
        },
    )


def version_of(found: Target) -> dict[str, Any]:
    """The row of the version that a function's target names, the latest where it names none.

    Raises NotFound `function_version_not_found`.
    """
    latest = found.row["latest_version"]
    row: dict[str, Any] | None = dict_row(
        FunctionVersion.select().where(
            (FunctionVersion.function_id == found.id)
            & (FunctionVersion.number == (latest if found.number is None else found.number))
        )
    )
    if row is None:
        raise NotFound(
            f"The function {found.name} has no version {found.number}.",
            code="function_version_not_found",
            hint=f"It has the versions 1 to {latest}.",
        )
    return row


def lookup_in(project_id: str) -> FunctionLookup:
    """How an experiment file of this project finds `function: name` or `name@number`."""

    def spec_of(asked: str) -> dict[str, Any] | None:
        name, mark, digits = asked.rpartition("@")
        if not (mark and digits.isascii() and digits.isdigit() and len(digits) <= 9):
            name, digits = asked, ""
        row = tuple_row(
            Function.select(Function.id, Function.latest_version).where(
                (Function.project_id == project_id)
                & (Function.name == name)
                & (Function.state == "active")
            )
        )
        return None if row is None else _spec_of(row[0], int(digits) if digits else row[1])

    return spec_of


def _spec_of(function_id: str, number: int) -> dict[str, Any] | None:
    row = tuple_row(
        FunctionVersion.select(FunctionVersion.spec).where(
            (FunctionVersion.function_id == function_id) & (FunctionVersion.number == number)
        )
    )
    return None if row is None else row[0]


def _shown(row: dict[str, Any], number: int, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    document = {
        "id": row["id"],
        "name": row["name"],
        "project_id": row["project_id"],
        "project": row.get("project"),
        "version": number,
        "latest_version": row["latest_version"],
        "owner_id": row["owner_id"],
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
        "spec": spec,
    }
    return {name: value for name, value in document.items() if value is not None}
