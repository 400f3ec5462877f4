"""Sharing compute and storage resources: as operator, who looks after them, or as user."""

from __future__ import annotations

from typing import Any, Literal

from flask_openapi3 import APIBlueprint, Tag

from airavata_scheduler.functions import access, shares
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.resources import ResourceKind
from airavata_scheduler.functions.shares import ShareAnswer, SharePage, UnshareQuery
from airavata_scheduler.functions.subjects import SubjectBody, named_in
from airavata_scheduler.models.database import transaction

api = APIBlueprint(
    "resource_shares", __name__, url_prefix="/api/v1", abp_tags=[Tag(name="resources")]
)


class ResourceShareBody(SubjectBody):
    """With whom to share a resource, and as what."""

    relation: Literal["operator", "user"] = "user"


@api.get("/compute-resources/<resource>/shares", responses={200: SharePage})
def list_compute_shares(query: PageQuery) -> dict[str, Any]:
    """List with whom a compute resource is shared."""
    return shares.listed("compute_resource", access.target("compute_resource"), query)


@api.post("/compute-resources/<resource>/shares", responses={201: ShareAnswer})
def share_compute(body: ResourceShareBody) -> tuple[dict[str, Any], int]:
    """Share a compute resource with a user or a group."""
    return _share("compute_resource", body)


@api.delete("/compute-resources/<resource>/shares", responses={204: None})
def unshare_compute(query: UnshareQuery) -> tuple[str, int]:
    """Share a compute resource with a user or a group no longer."""
    return _unshare("compute_resource", query)


@api.get("/storage-resources/<resource>/shares", responses={200: SharePage})
def list_storage_shares(query: PageQuery) -> dict[str, Any]:
    """List with whom a storage resource is shared."""
    return shares.listed("storage_resource", access.target("storage_resource"), query)


@api.post("/storage-resources/<resource>/shares", responses={201: ShareAnswer})
def share_storage(body: ResourceShareBody) -> tuple[dict[str, Any], int]:
    """Share a storage resource with a user or a group."""
    return _share("storage_resource", body)


@api.delete("/storage-resources/<resource>/shares", responses={204: None})
def unshare_storage(query: UnshareQuery) -> tuple[str, int]:
    """Share a storage resource with a user or a group no longer."""
    return _unshare("storage_resource", query)


def _share(kind: ResourceKind, body: ResourceShareBody) -> tuple[dict[str, Any], int]:
    target = access.target(kind)
    made = create_once(lambda: shares.add(kind, target, body.relation, named_in(body)))
    return made.document, 201


def _unshare(kind: ResourceKind, query: UnshareQuery) -> tuple[str, int]:
    target = access.target(kind)
    with transaction():
        shares.unshared(kind, target, query)
    return "", 204
