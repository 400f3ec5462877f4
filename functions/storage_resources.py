"""Storage resources: places for data. The kind served so far is NFS, a folder of the server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.backends.storage import StorageUnavailable
from airavata_scheduler.backends.stores import store
from airavata_scheduler.functions import access, naming, pagination, principals, resources
from airavata_scheduler.functions.etags import etagged
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.shapes import Body, Line, Name, Text, rfc3339
from airavata_scheduler.models.database import transaction
from airavata_scheduler.models.errors import BadInput, Conflict
from airavata_scheduler.models.faults import shown
from airavata_scheduler.models.tables import Artifact, Blob, Experiment, StorageResource

api = APIBlueprint(
    "storage_resources",
    __name__,
    url_prefix="/api/v1/storage-resources",
    abp_tags=[Tag(name="resources")],
)

Kind = Literal["NFS"]

# No data lies there, and some of it is everybody's memory or a disk.
_OF_THE_KERNEL = (("proc",), ("sys",), ("dev",))


class Location(Body):
    """Where an NFS storage resource lies: a folder on the scheduler's machine."""

    path: str = Field(min_length=1, max_length=4096, description="Absolute")


class StorageAnswer(BaseModel):
    """A storage resource; `location` is shown to those who manage it."""

    id: str
    name: str
    kind: str
    description: str
    owner_id: str | None
    project_id: str | None = Field(description="Null: everybody may use it")
    location: dict[str, Any] | None = None
    is_default: bool
    state: Literal["active", "disabled"]
    version: int
    created_at: str
    updated_at: str


class StoragePage(BaseModel):
    """A page of storage resources."""

    items: list[StorageAnswer]
    next: str | None


class NewStorageBody(Body):
    """A storage resource to make; without a project everybody may use it."""

    name: Name
    kind: Kind
    description: Text = ""
    project: str | None = None
    location: Location


class StorageBody(Body):
    """What may be changed."""

    name: Name | None = None
    description: Text | None = None
    is_default: Literal[True] | None = Field(None, description="Makes it the default one")
    state: Literal["active", "disabled"] | None = None


class StorageStatusAnswer(BaseModel):
    """Whether it can be used now."""

    usable: bool
    detail: str
    free_bytes: int | None


class StorageQuery(PageQuery):
    """Filters of the list."""

    q: Line | None = Field(None, description="Part of the name")


@api.post("", responses={201: StorageAnswer})
def create_storage_resource(body: NewStorageBody) -> tuple[dict[str, Any], int]:
    """Make a storage resource. It takes a system administrator: it is a folder of the server."""
    bound = access.targets("project")
    _check_folder(body.location.path)
    columns = {
        "name": body.name,
        "kind": body.kind,
        "description": body.description,
        "project_id": bound[0].id if bound else None,
        "location": body.location.model_dump(),
    }
    made = create_once(lambda: _shown(resources.create("storage_resource", columns), whole=True))
    return made.document, 201


@api.get("", responses={200: StoragePage})
def list_storage_resources(query: StorageQuery) -> dict[str, Any]:
    """List the storage resources that you may use."""
    rows = naming.rows_visible("storage_resource", principals.current())
    if query.q:
        rows = rows.where(StorageResource.name.contains(query.q))
    position = pagination.after(query)
    if position:
        rows = rows.where(StorageResource.name > position[0])
    found = list(rows.order_by(StorageResource.name).limit(query.limit + 1))
    whole = principals.current().is_admin
    return pagination.page(
        found, query, key=lambda row: [row.name], show=lambda row: _shown(row, whole=whole)
    )


@api.get("/<resource>", responses={200: StorageAnswer})
def get_storage_resource() -> Response:
    """Show a storage resource."""
    return _answer(StorageResource.get_by_id(access.target("storage_resource").id))


@api.patch("/<resource>", responses={200: StorageAnswer})
def change_storage_resource(body: StorageBody) -> Response:
    """Change a storage resource, or make it the default one."""
    changes = body.model_dump(exclude_none=True)
    found = access.target("storage_resource")
    if found.row["is_default"] and changes.get("state") == "disabled":
        raise Conflict(
            "The default storage resource cannot be disabled.",
            code="default_storage",
            hint='Make another one the default first: PATCH {"is_default": true}',
        )
    if body.is_default:
        access.authorize(principals.current(), "manage", naming.SYSTEM)
        if found.project_id is not None:
            raise BadInput(
                "A storage resource of one project cannot be the default of all.",
                field="is_default",
            )
    with transaction():
        if body.is_default:
            StorageResource.update(is_default=False).where(
                StorageResource.is_default & (StorageResource.id != found.id)
            ).execute()
        row = resources.change("storage_resource", changes)
    return _answer(row)


@api.delete("/<resource>", responses={204: None})
def delete_storage_resource() -> tuple[str, int]:
    """Delete a storage resource in which nothing lies; its folder stays as it is."""
    found = access.target("storage_resource")
    used_by = None
    if found.row["is_default"]:
        used_by = "the scheduler itself as the default"
    elif any(
        table.select().where(table.storage_id == found.id).limit(1).exists()
        for table in (Artifact, Blob, Experiment)
    ):
        used_by = "artifacts or experiments"
    resources.delete("storage_resource", used_by=used_by)
    return "", 204


@api.get("/<resource>/status", responses={200: StorageStatusAnswer})
def storage_status() -> dict[str, Any]:
    """Try whether a storage resource can be used now."""
    found = access.target("storage_resource")
    try:
        store(found.id).size("probe")
        free = shutil.disk_usage(found.row["location"]["path"]).free
    except StorageUnavailable as error:
        return {"usable": False, "detail": error.detail, "free_bytes": None}
    except OSError as error:
        return {"usable": False, "detail": os.strerror(error.errno or 0), "free_bytes": None}
    return {"usable": True, "detail": "The folder can be read.", "free_bytes": free}


def _check_folder(text: str) -> None:
    """Raise BadInput unless `text` is an absolute path of a folder that the server may write."""
    path = Path(text)
    if not text.isprintable() or not path.is_absolute() or ".." in path.parts or path == Path("/"):
        raise BadInput(
            "location.path must be the absolute path of a folder, in printable characters and "
            "without `..`.",
            field="location.path",
        )
    if not _is_usable(path):
        raise BadInput(
            f"The server finds no folder at {shown(text)} that it may write to.",
            code="folder_unusable",
            field="location.path",
            hint="Mount it on the scheduler's machine, and give its user write permission.",
        )


def _is_usable(path: Path) -> bool:
    """Whether data can lie there: a folder that we may write to, and none of the kernel's own."""
    try:
        top = path.resolve().parts[1:2]
        return path.is_dir() and os.access(path, os.W_OK | os.X_OK) and top not in _OF_THE_KERNEL
    except OSError:  # a name that is too long, or links that lead in a circle
        return False


def _answer(row: StorageResource) -> Response:
    return etagged(_shown(row, whole=principals.current().is_admin), row.version)


def _shown(row: StorageResource, *, whole: bool) -> dict[str, Any]:
    document = {
        "id": row.id,
        "name": row.name,
        "kind": row.kind,
        "description": row.description,
        "owner_id": row.owner_id,
        "project_id": row.project_id,
        "is_default": bool(row.is_default),
        "state": row.state,
        "version": row.version,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
    return {**document, "location": row.location} if whole else document
