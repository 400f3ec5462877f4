"""Finding the object that a person named: by id, unique name, or unambiguous id prefix.

An object of another tenant and one that does not exist give the same answer, by the same steps: an
id is looked up and SpiceDB is asked about it, whether or not there is a row; a name is looked for
among what the caller may see. A wrong name is answered with the nearest three of those.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import peewee

from airavata_scheduler.functions import permissions
from airavata_scheduler.functions.principals import Principal
from airavata_scheduler.models.errors import BadInput, NotFound
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import (
    Agent,
    Artifact,
    ComputeResource,
    Credential,
    Experiment,
    Function,
    Group,
    Project,
    StorageResource,
    Task,
    User,
)

Kind = Literal[
    "system",
    "user",
    "project",
    "compute_resource",
    "storage_resource",
    "agent",
    "function",
    "experiment",
    "task",
    "artifact",
    "group",
    "credential",
]

MAX_NAME_CHARS = 255  # no object's name is longer
MIN_PREFIX = 6
NEAREST = 3
NEAREST_AMONG = 500  # names that are read to find the nearest ones

_PREFIX = re.compile(
    r"[0-9a-f]{6,8}|[0-9a-f]{8}(-[0-9a-f]{0,4}){1,3}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{0,12}"
)
_ZERO = "00000000-0000-0000-0000-000000000000"
_HIGH = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True, kw_only=True)
class Target:
    """An object that a request names, with what permissions are decided by.

    `row` holds the columns by name (of the `tasks` row for a task, and so on; an experiment's
    `spec`, `source` and `plan` are left out). `number` is the version that was asked for as
    `name@number`.
    """

    kind: Kind
    id: str
    name: str
    project_id: str | None
    owner_id: str | None
    asked: str = ""
    number: int | None = None
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """`the project diffusion`, for sentences."""
        return f"the {spoken(self.kind)} {self.name or self.id}"


SYSTEM: Final = Target(kind="system", id="", name="", project_id=None, owner_id=None)


def spoken(kind: str) -> str:
    """A kind as people say it."""
    return kind.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class _Source:
    """How the rows of one kind are read, and which of them a principal may see."""

    model: Any
    name: Any
    rows: Callable[[], Any]
    visible: Callable[[Principal], peewee.Expression]


def _experiment_rows() -> Any:
    """Without the documents, which may be megabytes: who needs them reads them by id."""
    fields = Experiment._meta.sorted_fields
    light = [column for column in fields if column.name not in ("spec", "source", "plan")]
    return Experiment.select(*light)


def _task_rows() -> Any:
    return Task.select(
        Task,
        Experiment.project_id.alias("project_id"),
        Experiment.owner_id.alias("owner_id"),
    ).join(Experiment, on=(Experiment.id == Task.experiment_id))


def _artifact_rows() -> Any:
    return Artifact.select(
        Artifact,
        Experiment.project_id.alias("project_id"),
        Experiment.owner_id.alias("owner_id"),
    ).join(Experiment, on=(Experiment.id == Artifact.experiment_id))


def _agent_rows() -> Any:
    return Agent.select(
        Agent,
        ComputeResource.project_id.alias("project_id"),
        ComputeResource.owner_id.alias("owner_id"),
    ).join(ComputeResource, on=(ComputeResource.id == Agent.compute_id))


def _by(kind: str, scope: peewee.Field) -> Callable[[Principal], peewee.Expression]:
    return lambda principal: permissions.visible(principal, kind, scope=scope)


_SOURCES: Final[Mapping[str, _Source]] = {
    "user": _Source(model=User, name=User.name, rows=User.select, visible=_by("user", User.id)),
    "group": _Source(
        model=Group, name=Group.name, rows=Group.select, visible=_by("group", Group.id)
    ),
    "credential": _Source(
        model=Credential,
        name=Credential.name,
        rows=lambda: Credential.select().where(Credential.state == "active"),
        visible=_by("credential", Credential.id),
    ),
    "project": _Source(
        model=Project,
        name=Project.name,
        rows=lambda: Project.select().where(Project.state == "active"),
        visible=_by("project", Project.id),
    ),
    "compute_resource": _Source(
        model=ComputeResource,
        name=ComputeResource.name,
        rows=ComputeResource.select,
        visible=_by("compute_resource", ComputeResource.id),
    ),
    "storage_resource": _Source(
        model=StorageResource,
        name=StorageResource.name,
        rows=StorageResource.select,
        visible=_by("storage_resource", StorageResource.id),
    ),
    "agent": _Source(
        model=Agent,
        name=Agent.name,
        rows=_agent_rows,
        visible=_by("agent", ComputeResource.id),
    ),
    "function": _Source(
        model=Function,
        name=Function.name,
        rows=lambda: Function.select().where(Function.state == "active"),
        visible=_by("function", Function.project_id),
    ),
    "experiment": _Source(
        model=Experiment,
        name=Experiment.name,
        rows=_experiment_rows,
        visible=_by("experiment", Experiment.project_id),
    ),
    "task": _Source(
        model=Task,
        name=None,
        rows=_task_rows,
        visible=_by("task", Experiment.project_id),
    ),
    "artifact": _Source(
        model=Artifact,
        name=None,
        rows=_artifact_rows,
        visible=_by("artifact", Experiment.project_id),
    ),
}


def find(
    kind: Kind,
    asked: str,
    principal: Principal,
    *,
    within: str | None = None,
    wanted: permissions.Permission = "read",
) -> Target:
    """The object of `kind` that `asked` names, among those that the principal may read.

    `within` (a project's name or id) narrows a function's name, which is unique in its project
    only. Whether the principal has `wanted` is asked along, for `permissions.allows`. Raises
    NotFound with the nearest names, or BadInput `ambiguous_name` if several fit.
    """
    source = _SOURCES[kind]
    name, number = _split_number(asked) if kind == "function" else (asked, None)
    if is_id(name) and within is None:
        return _find_by_id(kind, name, principal, asked=asked, number=number, wanted=wanted)
    scope = source.visible(principal)
    if within is not None and kind == "function":
        scope = scope & (Function.project_id == find("project", within, principal).id)
    for condition in _conditions(source, name):
        rows = list(source.rows().where(scope & condition).limit(3).dicts())
        if len(rows) == 1:
            return _target(kind, rows[0], asked, number)
        if rows:
            raise _ambiguous(kind, asked, rows)
    raise not_found(kind, asked, principal)


def _find_by_id(
    kind: Kind,
    object_id: str,
    principal: Principal,
    *,
    asked: str,
    number: int | None,
    wanted: permissions.Permission,
) -> Target:
    """One look, and one call of SpiceDB, also for an id that nothing has."""
    found = _with_ids(kind, [object_id], asked=asked, number=number)[0]
    readable, _ = permissions.decide(principal, [("read", found), (wanted, found)])
    if not readable or not found.row:
        raise not_found(kind, asked, principal)
    return found


def find_all(
    kind: Kind, ids: list[str], principal: Principal, *, wanted: permissions.Permission = "read"
) -> list[Target]:
    """The objects with exactly these ids, in their order: one query, one call of SpiceDB.

    Raises NotFound for the first that is not there or that the principal may not read.
    """
    distinct = [text for text in dict.fromkeys(ids) if is_id(text)]
    found = {item.id: item for item in _with_ids(kind, distinct)}
    targets = list(found.values())
    answers = permissions.decide(
        principal, [(way, item) for way in ("read", wanted) for item in targets]
    )
    readable = {item.id for item, yes in zip(targets, answers, strict=False) if yes and item.row}
    for text in ids:
        if text not in readable:
            raise not_found(kind, text, principal)
    return [found[text] for text in ids]


def _with_ids(
    kind: Kind, ids: list[str], *, asked: str | None = None, number: int | None = None
) -> list[Target]:
    """The objects with these ids, in their order; one without a row where nothing has the id."""
    source = _SOURCES[kind]
    rows: dict[str, dict[str, Any]] = {}
    if ids:
        query = source.rows().where(source.model._meta.primary_key.in_(ids))
        rows = {row["id"]: row for row in query.dicts()}
    return [
        _target(kind, rows[text], asked or text, number)
        if text in rows
        else Target(kind=kind, id=text, name="", project_id=None, owner_id=None, asked=text)
        for text in ids
    ]


def model_of(kind: Kind) -> Any:
    """The table of a kind's objects."""
    return _SOURCES[kind].model


def rows_visible(kind: Kind, principal: Principal) -> Any:
    """The rows of `kind` that the principal may read: a `ModelSelect` to order, narrow and page."""
    source = _SOURCES[kind]
    return source.rows().where(source.visible(principal))


def not_found(kind: Kind, asked: str, principal: Principal) -> NotFound:
    """The one 404 for what does not exist and for what the principal may not see."""
    near = _nearest(kind, asked, principal)
    shown = asked if len(asked) <= 80 else asked[:80] + "…"
    return NotFound(
        f"There is no {spoken(kind)} {shown!r}, or you may not see it.",
        code=f"{kind}_not_found",
        hint=f"Did you mean {', '.join(near)}?" if near else None,
    )


def _conditions(source: _Source, name: str) -> list[peewee.Expression]:
    """The ways in which `name` can fit, best first; none for text that no database would take."""
    key = source.model._meta.primary_key
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        return []
    if is_id(name):
        return [key == name]
    ways = [] if source.name is None else [source.name == name]
    if len(name) >= MIN_PREFIX and _PREFIX.fullmatch(name):
        # A range, not LIKE: PostgreSQL keeps ids as native UUIDs.
        low, high = name + _ZERO[len(name) :], name + _HIGH[len(name) :]
        if is_id(low):
            ways.append(key.between(low, high))
    return ways


def _split_number(asked: str) -> tuple[str, int | None]:
    name, mark, digits = asked.rpartition("@")
    if mark and digits.isascii() and digits.isdigit() and len(digits) <= 9:
        return name, int(digits)
    return asked, None


def _target(kind: Kind, row: dict[str, Any], asked: str, number: int | None) -> Target:
    return Target(
        kind=kind,
        id=row["id"],
        name=row.get("name") or "",
        project_id=row["id"] if kind == "project" else row.get("project_id"),
        owner_id=row.get("owner_id"),
        asked=asked,
        number=number,
        row=row,
    )


def _ambiguous(kind: Kind, asked: str, rows: list[dict[str, Any]]) -> BadInput:
    some = ", ".join(
        f"{row['id']} ({row['name']})" if row.get("name") else row["id"] for row in rows
    )
    return BadInput(
        f"Several {spoken(kind)}s are called {asked!r}.",
        code="ambiguous_name",
        hint=f"Name one by its id, for example: {some}",
    )


def _nearest(kind: Kind, asked: str, principal: Principal) -> list[str]:
    source = _SOURCES.get(kind)
    if source is None or source.name is None or is_id(asked) or len(asked) > MAX_NAME_CHARS:
        return []
    names = (
        source.rows()
        .select(source.name)
        .where(source.visible(principal))
        .distinct()
        .limit(NEAREST_AMONG)
        .tuples()
    )
    return difflib.get_close_matches(asked, [row[0] for row in names], n=NEAREST, cutoff=0.4)
