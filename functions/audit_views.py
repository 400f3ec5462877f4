"""Reading the audit: who did what, as far as the asking person may know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, get_args

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.functions import access, audit, pagination, permissions, principals
from airavata_scheduler.functions.naming import Kind
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.permissions import Permission
from airavata_scheduler.functions.principals import Principal
from airavata_scheduler.functions.shapes import Line, Moment, rfc3339
from airavata_scheduler.models import audit_chain
from airavata_scheduler.models.database import connected
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import AuditEntry, User

api = APIBlueprint("audit", __name__, url_prefix="/api/v1/audit", abp_tags=[Tag(name="audit")])

# What it takes on an object to see everything that was done to it.
_TO_SEE: Final[dict[str, Permission]] = {"credential": "share"}
_MANAGED: Final = frozenset(
    {"project", "group", "compute_resource", "storage_resource", "agent", "user"}
)


class AuditQuery(PageQuery):
    """Which entries; without an object or a project, your own deeds (administrators: all)."""

    object: Line | None = Field(
        None,
        description="KIND:NAME, such as credential:cluster; KIND:ID for what is gone",
    )
    actor: Line | None = Field(
        None, description="The name or id of the user who did it; or operator, or nobody"
    )
    action: Line | None = None
    project: Line | None = Field(None, description="Entries of a project that you manage")
    since: Moment | None = Field(None, description="RFC 3339")
    until: Moment | None = Field(None, description="RFC 3339")


class AuditAnswer(BaseModel):
    """One deed."""

    id: str
    at: str
    actor_kind: str
    actor_id: str
    actor: str = Field(description="The user's name, or operator, or nobody")
    action: str
    object_kind: str
    object_id: str
    project_id: str | None
    request_id: str
    address: str
    detail: dict[str, Any] | str = Field(
        description="A text where somebody changed the row: verify the chain"
    )
    seq: int | None = Field(description="Place in the chain; null for a moment")
    hash: str | None


class AuditPage(BaseModel):
    """A page of the audit, newest first."""

    items: list[AuditAnswer]
    next: str | None


@api.get("", responses={200: AuditPage})
def list_entries(query: AuditQuery) -> dict[str, Any]:
    """List who did what, newest first."""
    found = AuditEntry.select().where(_scope(query)).where(_filter(query))
    position = pagination.after(query)
    if position:
        found = found.where(AuditEntry.id < position[0])
    page = list(found.order_by(AuditEntry.id.desc()).limit(query.limit + 1))
    names = _names({row.actor_id for row in page if is_id(row.actor_id)})
    return pagination.page(
        page, query, key=lambda row: [row.id], show=lambda row: _shown(row, names)
    )


@api.get("/export", responses={200: None})
def export_entries() -> Response:
    """Export every sealed entry as lines of JSON; the last line names the chain's head."""
    return Response(_lines(), mimetype="application/x-ndjson")


def _lines() -> Iterator[str]:
    with connected():
        head = audit_chain.head()
        for entry in audit_chain.entries():
            if entry["seq"] > head.seq:
                break
            yield json.dumps(entry, sort_keys=True) + "\n"
        yield json.dumps({"head": {"seq": head.seq, "hash": head.hash}}) + "\n"


def _scope(query: AuditQuery) -> Any:
    """What the caller may see at all. Raises NotFound or Forbidden for what they ask too far."""
    principal = principals.current()
    scope: Any = AuditEntry.id.is_null(False)
    for project in access.targets("project"):
        scope = scope & (AuditEntry.project_id == project.id)
    if query.object is not None:
        return scope & _of_object(query.object, principal)
    if query.project is None and not permissions.is_administrator(principal):
        return AuditEntry.actor_id == principal.id
    return scope


def _of_object(text: str, principal: Principal) -> Any:
    kind, _, name = text.partition(":")
    if kind not in get_args(Kind) or kind == "system" or not name:
        raise BadInput(
            "object must be KIND:NAME, such as credential:cluster or project:spine.",
            code="invalid_object",
            field="object",
        )
    if is_id(name) and permissions.is_administrator(principal):
        object_id = name  # also of what was deleted, and of what only its project sees
    else:
        wanted = _TO_SEE.get(kind, "manage" if kind in _MANAGED else "operate")
        object_id = access.require(kind, name, wanted).id  # type: ignore[arg-type]
    return (AuditEntry.object_kind == kind) & (AuditEntry.object_id == object_id)


def _filter(query: AuditQuery) -> Any:
    clause: Any = AuditEntry.id.is_null(False)
    if query.actor in (audit.OPERATOR, audit.NOBODY):
        clause = clause & (AuditEntry.actor_id == query.actor)
    elif query.actor is not None:
        actor = access.require("user", query.actor, "read")
        clause = clause & (AuditEntry.actor_id == actor.id)
    if query.action is not None:
        clause = clause & (AuditEntry.action == query.action)
    if query.since is not None:
        clause = clause & (AuditEntry.at >= _milliseconds("since", query.since))
    if query.until is not None:
        clause = clause & (AuditEntry.at < _milliseconds("until", query.until))
    return clause


def _milliseconds(field: str, at: datetime) -> int:
    if at.tzinfo is None:
        raise BadInput(
            f"{field} needs a time zone, such as 2026-11-26T12:00:00Z.",
            code="invalid_time",
            field=field,
        )
    return int(at.timestamp() * 1000)


def _names(ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    return {row.id: row.name for row in User.select(User.id, User.name).where(User.id.in_(ids))}


def _shown(row: AuditEntry, names: dict[str, str]) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": rfc3339(row.at),
        "actor_kind": row.actor_kind,
        "actor_id": row.actor_id,
        "actor": names.get(row.actor_id, row.actor_id),
        "action": row.action,
        "object_kind": row.object_kind,
        "object_id": row.object_id,
        "project_id": row.project_id,
        "request_id": row.request_id,
        "address": row.address,
        "detail": row.detail,
        "seq": row.seq,
        "hash": row.hash,
    }
