"""The table of projections: which rows make which relationship in SpiceDB.

One SELECT for each relation of each kind of object, in the order of the schema
(`backends/spicedb_schema.zed`). A new relation gets its line here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from airavata_scheduler.models.relationship import (
    EVERYBODY,
    GROUP_SUBJECT,
    Projection,
)


def _roles(
    kind: str, roles: Iterable[str], *, source: str, where: str, object_column: str
) -> Iterator[Projection]:
    """Users' roles: one projection for each value of the column `role`."""
    for role in roles:
        yield Projection(
            kind=kind,
            relation=role,
            subject_kind="user",
            source=source,
            object_column=object_column,
            subject_column="m.user_id" if kind == "project" else "m.subject_id",
            where=f"m.role = '{role}' AND {where}",
        )


def _group_roles() -> Iterator[Projection]:
    for role in ("owner", "admin", "member", "viewer"):
        yield Projection(
            kind="project",
            relation=role,
            subject_kind="group",
            subject_relation=GROUP_SUBJECT,
            source=_GROUPS_IN_PROJECTS,
            object_column="m.project_id",
            subject_column="m.group_id",
            where=f"m.role = '{role}' AND p.state = 'active'",
        )


def _shares(kind: str, relations: Iterable[str]) -> Iterator[Projection]:
    for relation in relations:
        for subject_kind, tail in (("user", ""), ("group", GROUP_SUBJECT)):
            yield Projection(
                kind=kind,
                relation=relation,
                subject_kind=subject_kind,
                subject_relation=tail,
                source="shares s",
                object_column="s.object_id",
                subject_column="s.subject_id",
                where=f"s.object_kind = '{kind}' AND s.relation = '{relation}' "
                f"AND s.subject_kind = '{subject_kind}'",
            )


def _of_system(kind: str, source: str, where: str = "1 = 1") -> Projection:
    return Projection(
        kind=kind,
        relation="system",
        subject_kind="system",
        source=source,
        object_column="o.id",
        subject_column=None,
        where=where,
    )


def _column(
    kind: str, relation: str, subject_kind: str, *, source: str, subject: str, where: str = "1 = 1"
) -> Projection:
    """A relation to the object whose id stands in a column of the object's own row."""
    return Projection(
        kind=kind,
        relation=relation,
        subject_kind=subject_kind,
        source=source,
        object_column="o.id",
        subject_column=f"o.{subject}",
        where=f"o.{subject} IS NOT NULL AND {where}",
    )


def _resource(kind: str, source: str) -> Iterator[Projection]:
    yield _of_system(kind, source)
    yield _column(kind, "owner", "user", source=source, subject="owner_id")
    yield _column(kind, "project", "project", source=source, subject="project_id")
    yield Projection(
        kind=kind,
        relation="user",
        subject_kind="user",
        source=source,
        object_column="o.id",
        subject_column=None,
        only_subject=EVERYBODY[1],
        where="o.project_id IS NULL",
    )
    yield from _shares(kind, ("operator", "user"))
    yield Projection(
        kind=kind,
        relation="credential",
        subject_kind="credential",
        source="credential_bindings b JOIN credentials c ON c.id = b.credential_id",
        object_column="b.resource_id",
        subject_column="b.credential_id",
        where=f"b.resource_kind = '{kind}' AND c.state = 'active'",
    )


_IN_PROJECTS = "project_members m JOIN projects p ON p.id = m.project_id"
_GROUPS_IN_PROJECTS = "project_groups m JOIN projects p ON p.id = m.project_id"
_IN_GROUPS = "group_members m"
_ACTIVE = "p.state = 'active'"

PROJECTIONS: Final[tuple[Projection, ...]] = (
    Projection(
        kind="system",
        relation="anybody",
        subject_kind="user",
        source="schema_version v",
        object_column=None,
        subject_column=None,
        only_subject=EVERYBODY[1],
        where="v.version = (SELECT MIN(version) FROM schema_version)",
    ),
    Projection(
        kind="system",
        relation="administrator",
        subject_kind="user",
        source="users u",
        object_column=None,
        subject_column="u.id",
        where="u.is_admin = TRUE AND u.state = 'active'",
    ),
    _of_system("user", "users o"),
    Projection(
        kind="user",
        relation="account",
        subject_kind="user",
        source="users o",
        object_column="o.id",
        subject_column="o.id",
    ),
    Projection(
        kind="user",
        relation="project",
        subject_kind="project",
        source=_IN_PROJECTS,
        object_column="m.user_id",
        subject_column="m.project_id",
        where=_ACTIVE,
    ),
    Projection(
        kind="user",
        relation="group",
        subject_kind="group",
        source=_IN_GROUPS,
        object_column="m.subject_id",
        subject_column="m.group_id",
        where="m.subject_kind = 'user'",
    ),
    _of_system("group", "user_groups o"),
    *_roles(
        "group",
        ("owner", "manager", "member"),
        source=_IN_GROUPS,
        where="m.subject_kind = 'user'",
        object_column="m.group_id",
    ),
    Projection(
        kind="group",
        relation="member",
        subject_kind="group",
        subject_relation=GROUP_SUBJECT,
        source=_IN_GROUPS,
        object_column="m.group_id",
        subject_column="m.subject_id",
        where="m.subject_kind = 'group'",
    ),
    Projection(
        kind="group",
        relation="parent",
        subject_kind="group",
        source=_IN_GROUPS,
        object_column="m.subject_id",
        subject_column="m.group_id",
        where="m.subject_kind = 'group'",
    ),
    Projection(
        kind="group",
        relation="project",
        subject_kind="project",
        source=_GROUPS_IN_PROJECTS,
        object_column="m.group_id",
        subject_column="m.project_id",
        where=_ACTIVE,
    ),
    _of_system("project", "projects o", "o.state = 'active'"),
    *_roles(
        "project",
        ("owner", "admin", "member", "viewer"),
        source=_IN_PROJECTS,
        where=_ACTIVE,
        object_column="m.project_id",
    ),
    *_group_roles(),
    _column(
        "function",
        "project",
        "project",
        source="functions o",
        subject="project_id",
        where="o.state = 'active'",
    ),
    _column(
        "function",
        "owner",
        "user",
        source="functions o",
        subject="owner_id",
        where="o.state = 'active'",
    ),
    _column("experiment", "project", "project", source="experiments o", subject="project_id"),
    _column("experiment", "owner", "user", source="experiments o", subject="owner_id"),
    *_resource("compute_resource", "compute_resources o"),
    *_resource("storage_resource", "storage_resources o"),
    _column(
        "agent", "compute_resource", "compute_resource", source="agents o", subject="compute_id"
    ),
    _of_system("credential", "credentials o", "o.state = 'active'"),
    _column(
        "credential",
        "owner",
        "user",
        source="credentials o",
        subject="owner_id",
        where="o.state = 'active'",
    ),
    *_shares("credential", ("writer", "reader", "revealer")),
)
