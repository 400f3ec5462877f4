"""Whether a user may do something to an object: asked of SpiceDB, at the right moment.

`allows` decides one object, `decide` many in one call, and `visible` narrows a list. Nothing else
in the house asks who may do what; what follows from which role stands in
`backends/spicedb_schema.zed`.

Before SpiceDB is asked, SQL says whether a change that matters here (a revoke, a change of the very
object, or of what it depends on) waits for its relay; then it is relayed first. So a revoke holds
from its commit on. Nothing is asked inside a transaction. While SpiceDB cannot be asked
nobody may do anything: `Unavailable`, 503.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import peewee
from flask import g

from airavata_scheduler.backends import relay
from airavata_scheduler.backends.spicedb import Question, StoreForeign, spicedb
from airavata_scheduler.functions.principals import Principal
from airavata_scheduler.models import outbox
from airavata_scheduler.models.outbox import Freshness, Named
from airavata_scheduler.models.relations import SYSTEM

if TYPE_CHECKING:
    from airavata_scheduler.functions.naming import Target

Permission = Literal[
    "read",
    "create",
    "manage",
    "operate",
    "own",
    "use",
    "call",
    "derive",
    "write",
    "share",
    "reveal",
    "delete",
]
Role = Literal["viewer", "member", "admin", "owner"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "member", "admin", "owner")  # each holds those before

VERBS: Final[Mapping[Permission, str]] = {
    "read": "read",
    "create": "create work in",
    "manage": "manage",
    "operate": "control",
    "own": "delete, or name admins of,",
    "use": "use",
    "call": "call",
    "derive": "derive from",
    "write": "change",
    "share": "share",
    "reveal": "reveal",
    "delete": "delete",
}

# What a person has to ask for who lacks a permission.
_ADVICE: Final[Mapping[str, Mapping[Permission, str]]] = {
    "project": {
        "create": "It takes the role member in it; a project admin can give it to you.",
        "manage": "It takes the role admin in it; an owner of the project can give it to you.",
        "own": "It takes the role owner in it; an owner of the project can give it to you.",
    },
    "function": {
        "call": "It takes the role member in its project; a project admin can give it to you.",
        "operate": "Its owner may, or an admin of its project.",
    },
    "experiment": {
        "derive": "It takes the role member in its project; a project admin can give it to you.",
        "operate": "Its owner may, or an admin of its project.",
    },
    "task": {"operate": "The owner of its experiment may, or an admin of its project."},
    "credential": {
        "use": "Its owner can share it with you.",
        "write": "Its owner can share it with you as a writer.",
        "share": "Only its owner may.",
        "reveal": "Only its owner may, and whom the owner made a revealer.",
        "delete": "Only its owner may.",
    },
    "group": {
        "manage": "An owner or manager of the group may.",
        "own": "An owner of the group may.",
    },
}
_RESOURCE_ADVICE: Final = "Its owner may, or whom the owner shared it with."

# Which object decides: a task and an artifact are decided by their experiment.
_BY_EXPERIMENT: Final = frozenset({"task", "artifact"})
# Where the scope of a list is another kind of object, and by which of its permissions.
_SCOPES: Final[Mapping[str, tuple[str, str]]] = {
    "project": ("project", "read"),
    "function": ("project", "view"),
    "experiment": ("project", "view"),
    "task": ("project", "view"),
    "artifact": ("project", "view"),
    "compute_resource": ("compute_resource", "read"),
    "storage_resource": ("storage_resource", "read"),
    "agent": ("compute_resource", "read"),
    "user": ("user", "read"),
    "group": ("group", "read"),
    "credential": ("credential", "read"),
}
# Lists that a system administrator sees whole: asking for every id would be a long list of ids.
_WHOLE_FOR_ADMINS: Final = frozenset(
    {"project", "compute_resource", "storage_resource", "agent", "user", "group", "credential"}
)

Asked = tuple[Permission, "Target"]


def allows(principal: Principal, permission: Permission, found: Target) -> bool:
    """Whether `principal` has `permission` on `found`; asked once in a request."""
    return decide(principal, [(permission, found)])[0]


def decide(principal: Principal, asked: Sequence[Asked]) -> list[bool]:
    """The answers to many questions, in order, by one call."""
    return decide_ids(principal, [(*named(found), permission) for permission, found in asked])


def decide_ids(principal: Principal, asked: Sequence[tuple[str, str, str]]) -> list[bool]:
    """As `decide`, for (kind, id, permission) of objects that SpiceDB knows by these names."""
    known: dict[tuple[str, str, str, str], bool] = g.setdefault("decisions", {})
    new = [name for name in dict.fromkeys(asked) if (principal.id, *name) not in known]
    if new:
        questions = [
            Question(kind=kind, id=object_id, permission=permission, user_id=principal.id)
            for kind, object_id, permission in new
        ]
        answers = ask(questions, [(kind, object_id) for kind, object_id, _ in new])
        known.update({(principal.id, *name): yes for name, yes in zip(new, answers, strict=True)})
    return [known[principal.id, *name] for name in asked]


def ask(questions: Sequence[Question], objects: Sequence[Named]) -> list[bool]:
    """SpiceDB's answers, at a state as new as every revoke and every change of `objects`.

    Raises Unavailable where it cannot be asked, or does not hold our relationships wholly.
    """
    state = _fresh(list(dict.fromkeys(objects)))
    projection = relay.projection_id()
    if projection is None:
        raise relay.missing()
    database, marks = spicedb(), (relay.whole(projection), relay.reached(state.position))
    try:
        *answers, whole, reached = database.check([*questions, *marks], token=state.token)
    except StoreForeign:
        whole = reached = False
    if not (whole and reached):
        # Mostly SpiceDB answered from a state of some seconds ago, which is new enough for us; but
        # it may be another's, empty, or restored: the newest marks tell, with the reason.
        relay.check_marks(relay.read_marks(database))
    if not whole:
        raise relay.missing()
    return answers


def _fresh(objects: Sequence[Named]) -> Freshness:
    """What to ask with; relays first where something that matters waits."""
    if outbox.in_transaction():
        # What others revoked could not be relayed here, and our own rows are not committed yet.
        raise RuntimeError("permissions are asked for before the transaction, not inside")
    state = outbox.freshness(objects)
    if state.waiting:
        relay.relay()
        state = outbox.freshness(objects)
    return state


def named(found: Target) -> Named:
    """The object in SpiceDB that decides about `found`."""
    if found.kind == "system":
        return SYSTEM
    if found.kind in _BY_EXPERIMENT:
        return ("experiment", str(found.row.get("experiment_id", found.id)))
    return (found.kind, found.id)


def scope_ids(principal: Principal, kind: str, permission: str) -> list[str]:
    """The ids of the objects of `kind` on which the principal has `permission`; once a request."""
    known: dict[tuple[str, str, str], list[str]] = g.setdefault("scopes", {})
    key = (principal.id, kind, permission)
    if key not in known:
        ask([], [])  # raises where SpiceDB does not hold our relationships
        token = _fresh([]).token
        try:
            known[key] = spicedb().objects(kind, permission, principal.id, token=token)
        except StoreForeign:
            raise relay.missing() from None
    return known[key]


def is_administrator(principal: Principal) -> bool:
    """Whether the principal administers the system."""
    return decide_ids(principal, [("system", "main", "administer")])[0]


def visible(principal: Principal, kind: str, *, scope: peewee.Field) -> peewee.Expression:
    """The WHERE clause of the rows of `kind` that the principal may read.

    `scope` is the column that decides: the row's project for work, its own id for what is shared by
    itself, the compute resource's id for agents. The lists' counterpart of `allows(…, "read", …)`.
    """
    if kind in _WHOLE_FOR_ADMINS and is_administrator(principal):
        return peewee.Expression(peewee.SQL("1"), peewee.OP.EQ, peewee.SQL("1"))
    ids = scope_ids(principal, *_SCOPES[kind])
    if not ids:
        return peewee.Expression(peewee.SQL("1"), peewee.OP.EQ, peewee.SQL("0"))
    return scope.in_(ids)


def roles_in(principal: Principal, project_ids: Iterable[str]) -> dict[str, Role | None]:
    """The principal's strongest role in each project, also by way of groups, in one call."""
    ids = list(project_ids)
    ways: list[tuple[Role, str]] = [
        ("owner", "owner"),
        ("admin", "administration"),
        ("member", "participation"),
        ("viewer", "view"),
    ]
    named = [("project", project_id, way) for project_id in ids for _, way in ways]
    answers = iter(decide_ids(principal, named))
    found: dict[str, Role | None] = {}
    for project_id in ids:
        held = [role for role, _ in ways if next(answers)]
        found[project_id] = held[0] if held else None
    return found


def forget(_: Any = None) -> None:
    """Ask again from here on: the request itself changed who may do what."""
    g.pop("decisions", None)
    g.pop("scopes", None)


def advice(permission: Permission, found: Target) -> str:
    """The next step for somebody who lacks `permission`."""
    said = _ADVICE.get(found.kind, {}).get(permission)
    if said is not None:
        return said
    if found.kind in ("compute_resource", "storage_resource", "agent"):
        return _RESOURCE_ADVICE
    return "A system administrator may."
