"""What compute and storage resources have in common: who may make one, changing and deleting it."""

from __future__ import annotations

from typing import Any, Literal

from peewee import IntegrityError

from airavata_scheduler.functions import access, audit, grants, naming, principals, shares
from airavata_scheduler.functions.bootstrap import name_taken
from airavata_scheduler.functions.etags import check_if_match, lost_race
from airavata_scheduler.models import credentials
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import ComputeResource, StorageResource

ResourceKind = Literal["compute_resource", "storage_resource"]

_MODELS: dict[ResourceKind, Any] = {
    "compute_resource": ComputeResource,
    "storage_resource": StorageResource,
}


def project_to_bind() -> str | None:
    """The project that the request binds its new resource to; None makes a shared one.

    The gate has checked that the caller manages the project. Raises Forbidden for a shared resource
    if the caller is no system administrator.
    """
    bound = access.targets("project")
    if bound:
        return bound[0].id
    access.authorize(principals.current(), "manage", naming.SYSTEM)
    return None


def create(kind: ResourceKind, columns: dict[str, Any]) -> Any:
    """Insert a resource of the caller's; its row. Call it inside `create_once`.

    Raises Conflict if the name is taken.
    """
    model, owner_id = _MODELS[kind], principals.current().id
    resource_id, now = new_id(), now_ms()
    try:
        with transaction():
            model.insert(
                id=resource_id, owner_id=owner_id, created_at=now, updated_at=now, **columns
            ).execute()
    except IntegrityError:
        raise name_taken(naming.spoken(kind), columns["name"]) from None
    grants.resource_changed((kind, resource_id), owner_id, columns["project_id"])
    audit.append("create", kind, resource_id, project_id=columns["project_id"])
    return model.get_by_id(resource_id)


def change(kind: ResourceKind, changes: dict[str, Any]) -> Any:
    """Apply `changes` to the request's resource, checking If-Match; its new row.

    Raises PreconditionFailed, or Conflict if the new name is taken.
    """
    model, found = _MODELS[kind], access.target(kind)
    try:
        with transaction():
            row = model.get_by_id(found.id)
            check_if_match(row.version)
            changed = (
                model.update(**changes, version=model.version + 1, updated_at=now_ms())
                .where((model.id == found.id) & (model.version == row.version))
                .execute()
            )
            if not changed:
                raise lost_race()
            audit.append(
                "update", kind, found.id, project_id=found.project_id, changes=sorted(changes)
            )
    except IntegrityError:
        raise name_taken(naming.spoken(kind), changes["name"]) from None
    return model.get_by_id(found.id)


def delete(kind: ResourceKind, *, used_by: str | None) -> None:
    """Delete the request's resource. Raises Conflict if `used_by` says what needs its row."""
    model, found = _MODELS[kind], access.target(kind)
    refusal = Conflict(
        f"{found.name} is used by {used_by or 'other objects'}, so its record must stay.",
        code="resource_in_use",
        hint='Disable it instead: PATCH {"state": "disabled"}',
    )
    if used_by:
        raise refusal
    try:
        with transaction():
            check_if_match(model.get_by_id(found.id).version)
            model.delete().where(model.id == found.id).execute()
            shares.forget_object(kind, found.id)
            credentials.forget_resource(kind, found.id)
            grants.resource_changed((kind, found.id), found.owner_id, found.project_id, ends=True)
            audit.append("delete", kind, found.id, project_id=found.project_id)
    except IntegrityError:
        raise refusal from None
