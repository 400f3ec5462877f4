"""What a role allows, and what follows from owning: the decision behind `access.authorize`.

The seam for SpiceDB is `allows` and `visible`: nothing else in the house asks about roles.

viewer  reads
member  reads, creates, and operates (cancels, pauses, retries) their own work and functions
admin   besides that operates everybody's work in the project and manages its members and resources
owner   besides that deletes the project and names admins

System admins manage users, resources and agents, and a project's members; the *work* of a project
is not theirs to see before they made themselves a member, which the audit log shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import peewee
from flask import g

from airavata_scheduler.functions.principals import Principal
from airavata_scheduler.models.tables import Project, ProjectMember

if TYPE_CHECKING:
    from airavata_scheduler.functions.naming import Target

Permission = Literal["read", "create", "manage", "own", "use", "call", "operate", "derive"]
Role = Literal["viewer", "member", "admin", "owner"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "member", "admin", "owner")  # each holds those before

VERBS: Final[Mapping[Permission, str]] = {
    "read": "read",
    "create": "create work in",
    "manage": "manage",
    "own": "delete, or name admins of,",
    "use": "run work on",
    "call": "call",
    "operate": "control",
    "derive": "derive from",
}

# The weakest role in the object's project that has a permission on it, whoever owns the object.
NEEDED: Final[Mapping[str, Mapping[Permission, Role]]] = {
    "project": {"read": "viewer", "create": "member", "manage": "admin", "own": "owner"},
    "function": {"read": "viewer", "call": "member", "operate": "admin"},
    "experiment": {"read": "viewer", "derive": "member", "operate": "admin"},
    "task": {"read": "viewer", "operate": "admin"},
    "artifact": {"read": "viewer"},
    "compute_resource": {"read": "viewer", "use": "member", "manage": "admin"},
    "storage_resource": {"read": "viewer", "use": "member", "manage": "admin"},
    "agent": {"read": "viewer", "manage": "admin"},
}

# What an owner may do with their own object, given at least this role in its project.
OWNERS: Final[Mapping[str, Mapping[Permission, Role]]] = {
    "function": {"operate": "member"},
    "experiment": {"operate": "member"},
    "task": {"operate": "member"},
}

_RESOURCES: Final = frozenset({"compute_resource", "storage_resource", "agent"})
_SYSTEM_ADMINS: Final[Mapping[str, frozenset[Permission]]] = {
    "system": frozenset({"manage"}),
    "user": frozenset({"read", "manage"}),
    "project": frozenset({"read", "manage", "own"}),
    "compute_resource": frozenset({"read", "use", "manage"}),
    "storage_resource": frozenset({"read", "use", "manage"}),
    "agent": frozenset({"read", "manage"}),
}


def allows(principal: Principal, permission: Permission, found: Target) -> bool:
    """Whether `principal` has `permission` on `found`."""
    if principal.is_admin and permission in _SYSTEM_ADMINS.get(found.kind, ()):
        return True
    if found.kind == "system":
        return permission == "read"  # that there is one is no secret
    if found.kind == "user":
        return permission == "read" and (
            found.id == principal.id or _share_a_project(principal.id, found.id)
        )
    if found.kind in _RESOURCES and _allows_resource(principal, permission, found):
        return True
    return _allows_by_role(principal, permission, found)


def _allows_resource(principal: Principal, permission: Permission, found: Target) -> bool:
    """Owners manage their resource; everybody may read and use one that is bound to no project."""
    if found.owner_id == principal.id:
        return True
    return found.project_id is None and permission in ("read", "use")


def _allows_by_role(principal: Principal, permission: Permission, found: Target) -> bool:
    if found.project_id is None:
        return False
    role = role_in(principal, found.project_id)
    if role is None:
        return False
    if found.owner_id == principal.id and _enough(role, OWNERS.get(found.kind, {}).get(permission)):
        return True
    return _enough(role, NEEDED.get(found.kind, {}).get(permission))


def _enough(role: Role, needed: Role | None) -> bool:
    return needed is not None and ROLES.index(role) >= ROLES.index(needed)


def role_in(principal: Principal, project_id: str) -> Role | None:
    """The principal's role in a project, or None; asked once in a request."""
    known: dict[tuple[str, str], Role | None] = g.setdefault("roles", {})
    key = (principal.id, project_id)
    if key not in known:
        known[key] = _read_role(principal.id, project_id)
    return known[key]


def _read_role(user_id: str, project_id: str) -> Role | None:
    row = (
        ProjectMember.select(ProjectMember.role)
        .join(Project, on=(Project.id == ProjectMember.project_id))
        .where(
            (ProjectMember.user_id == user_id)
            & (ProjectMember.project_id == project_id)
            & (Project.state == "active")
        )
        .tuples()
        .first()
    )
    return row[0] if row else None


def _share_a_project(one: str, other: str) -> bool:
    mine, theirs = ProjectMember.alias(), ProjectMember.alias()
    return bool(
        mine.select(mine.project_id)
        .join(theirs, on=(mine.project_id == theirs.project_id))
        .where((mine.user_id == one) & (theirs.user_id == other))
        .limit(1)
        .exists()
    )


def projects_of(principal: Principal) -> peewee.ModelSelect[ProjectMember]:
    """A subquery of the ids of the active projects in which the principal has any role."""
    return (
        ProjectMember.select(ProjectMember.project_id)
        .join(Project, on=(Project.id == ProjectMember.project_id))
        .where((ProjectMember.user_id == principal.id) & (Project.state == "active"))
    )


def visible(
    principal: Principal,
    kind: str,
    *,
    project: peewee.Field,
    owner: peewee.Field | None = None,
) -> peewee.Expression:
    """The WHERE clause of the rows of `kind` that the principal may read.

    `project` is the column with the row's project; for resources NULL there means shared, and
    `owner` is the column with their owner. The lists' counterpart of `allows(…, "read", …)`.
    """
    if principal.is_admin and "read" in _SYSTEM_ADMINS.get(kind, ()):
        return peewee.Expression(peewee.SQL("1"), peewee.OP.EQ, peewee.SQL("1"))
    clause = project.in_(projects_of(principal))
    if kind in _RESOURCES:
        clause = clause | project.is_null()
        if owner is not None:
            clause = clause | (owner == principal.id)
    return clause


def advice(permission: Permission, found: Target) -> str:
    """The next step for somebody who lacks `permission`."""
    role = NEEDED.get(found.kind, {}).get(permission)
    if role is None or found.project_id is None:
        return "A system administrator may."
    return f"It takes the role {role} in its project; a project admin can give it to you."
