"""Asking who may do what, and why: the verdict is SpiceDB's, the reasons are the rows'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, get_args

from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.backends import spicedb_schema
from airavata_scheduler.backends.spicedb import Question
from airavata_scheduler.functions import (
    access,
    naming,
    pagination,
    permission_paths,
    permissions,
    principals,
)
from airavata_scheduler.functions.naming import Kind, Target
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.permissions import Permission
from airavata_scheduler.functions.shapes import Line, Query
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import User

api = APIBlueprint(
    "permissions", __name__, url_prefix="/api/v1/permissions", abp_tags=[Tag(name="permissions")]
)

# Whoever may do this to an object may know what others may do to it.
_OVERSEES: Final[Mapping[str, Permission]] = {
    "credential": "share",
    "function": "operate",
    "experiment": "operate",
    "task": "operate",
}
_LISTED: Final = frozenset(
    {"project", "compute_resource", "storage_resource", "group", "credential"}
)


class CheckQuery(Query):
    """What is asked: may the user do this to the object?"""

    object: Line = Field(description="KIND:NAME, such as credential:cluster")
    permission: Line
    user: Line | None = Field(None, description="Another user than you")


class VerdictAnswer(BaseModel):
    """The verdict."""

    allowed: bool
    user: str
    object: str
    object_id: str
    permission: str


class WhyAnswer(VerdictAnswer):
    """The verdict, and what relates the user to the object."""

    detail: str
    reasons: list[str]


class ListQuery(PageQuery):
    """Which objects: those of a kind on which you have a permission."""

    kind: Line
    permission: Line


class AllowedObject(BaseModel):
    """One object."""

    id: str
    name: str


class AllowedPage(BaseModel):
    """A page of objects by name."""

    items: list[AllowedObject]
    next: str | None


@api.get("/check", responses={200: VerdictAnswer})
def check_permission(query: CheckQuery) -> dict[str, Any]:
    """Say whether you, or another user, may do something to an object."""
    return _check(query)[0]


@api.get("/explain", responses={200: WhyAnswer})
def explain_permission(query: CheckQuery) -> dict[str, Any]:
    """Say it, and why: by which roles, groups and shares."""
    verdict, user, found = _check(query)
    reasons = permission_paths.facts(permission_paths.someone(user), found)
    deed = f"{query.permission} {found.label}"
    if verdict["allowed"]:
        detail = f"{user.name} may {deed}."
    elif reasons:
        advice = permissions.advice(query.permission, found)  # type: ignore[arg-type]
        detail = f"{user.name} may not {deed}: what relates the two is not enough. {advice}"
    else:
        detail = f"{user.name} may not {deed}: nothing relates the two."
    return {**verdict, "detail": detail, "reasons": reasons}


@api.get("", responses={200: AllowedPage})
def list_allowed(query: ListQuery) -> dict[str, Any]:
    """List the objects of a kind on which you have a permission, by name."""
    if query.kind not in _LISTED:
        raise BadInput(
            f"kind must be one of {', '.join(sorted(_LISTED))}.", code="invalid_kind", field="kind"
        )
    _known(query.kind, query.permission)
    principal = principals.current()
    ids = permissions.scope_ids(principal, query.kind, query.permission)
    if not ids:
        return {"items": [], "next": None}
    kind: Kind = query.kind  # type: ignore[assignment]
    model = naming.model_of(kind)
    rows = naming.rows_visible(kind, principal).where(model.id.in_(ids))
    position = pagination.after(query)
    if position:
        name, identity = position
        rows = rows.where((model.name > name) | ((model.name == name) & (model.id > identity)))
    found = list(rows.order_by(model.name, model.id).limit(query.limit + 1))
    return pagination.page(
        found,
        query,
        key=lambda row: [row.name, row.id],
        show=lambda row: {"id": row.id, "name": row.name},
    )


def _check(query: CheckQuery) -> tuple[dict[str, Any], User, Target]:
    kind, name = _object(query.object)
    _known(kind, query.permission)
    principal = principals.current()
    if query.user is None:
        found = _found(kind, name, "read")
        user: User | None = User.get_by_id(principal.id)
    else:
        found = _found(kind, name, _OVERSEES.get(kind, "manage"))
        column = User.id if is_id(query.user) else User.name
        user = User.get_or_none((column == query.user) & (User.state == "active"))
    if user is None:
        raise BadInput(f"There is no user {query.user!r}.", code="user_not_found", field="user")
    object_kind, object_id = permissions.named(found)
    question = Question(
        kind=object_kind, id=object_id, permission=query.permission, user_id=user.id
    )
    (allowed,) = permissions.ask([question], [(object_kind, object_id)])
    verdict = {
        "allowed": allowed,
        "user": user.name,
        "object": f"{kind}:{found.name or found.id}",
        "object_id": found.id,
        "permission": query.permission,
    }
    return verdict, user, found


def _found(kind: Kind, name: str, permission: Permission) -> Target:
    if kind == "system":
        access.authorize(principals.current(), permission, naming.SYSTEM)
        return naming.SYSTEM
    return access.require(kind, name, permission)


def _object(text: str) -> tuple[Kind, str]:
    kind, _, name = text.partition(":")
    if kind not in get_args(Kind) or (not name and kind != "system"):
        raise BadInput(
            "object must be KIND:NAME, such as credential:cluster or project:spine.",
            code="invalid_object",
            field="object",
            hint=f"Kinds: {', '.join(get_args(Kind))}.",
        )
    return kind, name  # type: ignore[return-value]


def _known(kind: str, permission: str) -> None:
    """Raise BadInput unless the schema has this permission for the kind."""
    by_kind = _permissions()
    decides = "experiment" if kind in ("task", "artifact") else kind
    if permission not in by_kind[decides]:
        raise BadInput(
            f"There is no permission {permission!r} on a {naming.spoken(kind)}.",
            code="permission_unknown",
            field="permission",
            hint=f"There are: {', '.join(by_kind[decides])}.",
        )


@cache
def _permissions() -> dict[str, tuple[str, ...]]:
    """The permissions of each kind, as the schema has them."""
    found: dict[str, tuple[str, ...]] = {}
    for block in re.split(r"^definition ", spicedb_schema.text(), flags=re.MULTILINE)[1:]:
        kind = block.split(" ", 1)[0]
        found[kind] = tuple(re.findall(r"^\s*permission (\w+) =", block, re.MULTILINE))
    return found
