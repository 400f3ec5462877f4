"""What must stand in SpiceDB: the relationships that follow from the rows of the database.

Each line of `PROJECTIONS` is a SELECT of pairs (object, subject) for one relation. Rows are the
truth: a relationship exists if its SELECT finds it now. Nothing else decides what is written to
SpiceDB, be it the relay (`true_among`) or a rebuild (`every`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from airavata_scheduler.models.database import execute, marks

PAGE_ROWS: Final = 1000
KEYS_PER_QUERY: Final = 200

SYSTEM: Final = ("system", "main")
EVERYBODY: Final = ("user", "*")
GROUP_SUBJECT: Final = "membership"  # a group as a subject means those who are in it

_TEXT = re.compile(r"(\w+):([\w*/-]+)#(\w+)@(\w+):([\w*/-]+)(?:#(\w+))?")


@dataclass(frozen=True, kw_only=True, order=True)
class Relationship:
    """One relationship: `project:P#admin@group:G#membership`."""

    kind: str
    id: str
    relation: str
    subject_kind: str
    subject_id: str
    subject_relation: str = ""

    def __str__(self) -> str:
        """As SpiceDB's tools write it."""
        tail = f"#{self.subject_relation}" if self.subject_relation else ""
        return f"{self.kind}:{self.id}#{self.relation}@{self.subject_kind}:{self.subject_id}{tail}"

    @classmethod
    def read(cls, text: str) -> Relationship:
        """The relationship that `text` names. Raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a relationship: {text!r}")
        kind, object_id, relation, subject_kind, subject_id, tail = match.groups()
        return cls(
            kind=kind,
            id=object_id,
            relation=relation,
            subject_kind=subject_kind,
            subject_id=subject_id,
            subject_relation=tail or "",
        )


@dataclass(frozen=True, kw_only=True)
class Projection:
    """One relation of one kind, as a SELECT.

    `object_column` and `subject_column` are columns of `source`; where one is None, `only_object`
    or `only_subject` stands there in every row.
    """

    kind: str
    relation: str
    subject_kind: str
    subject_relation: str = ""
    source: str
    object_column: str | None
    subject_column: str | None
    where: str = "1 = 1"
    only_object: str = SYSTEM[1]
    only_subject: str = SYSTEM[1]

    @property
    def shape(self) -> tuple[str, str, str, str, bool]:
        """By which a relationship finds its projection."""
        wild = self.subject_column is None and self.only_subject == EVERYBODY[1]
        return (self.kind, self.relation, self.subject_kind, self.subject_relation, wild)

    def made(self, object_id: str | None, subject_id: str | None) -> Relationship:
        """The relationship of one row."""
        return Relationship(
            kind=self.kind,
            id=object_id if object_id is not None else self.only_object,
            relation=self.relation,
            subject_kind=self.subject_kind,
            subject_id=subject_id if subject_id is not None else self.only_subject,
            subject_relation=self.subject_relation,
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

_BY_SHAPE: Final = {projection.shape: projection for projection in PROJECTIONS}
KINDS: Final = tuple(dict.fromkeys(projection.kind for projection in PROJECTIONS))


def _shape(key: Relationship) -> tuple[str, str, str, str, bool]:
    wild = key.subject_id == EVERYBODY[1]
    return (key.kind, key.relation, key.subject_kind, key.subject_relation, wild)


def is_known(key: Relationship) -> bool:
    """Whether rows can make `key` true at all."""
    return _shape(key) in _BY_SHAPE


def true_among(keys: Iterable[Relationship]) -> set[Relationship]:
    """Those of `keys` that follow from the rows as they are now."""
    by_shape: defaultdict[Projection, list[Relationship]] = defaultdict(list)
    for key in keys:
        by_shape[_BY_SHAPE[_shape(key)]].append(key)
    found: set[Relationship] = set()
    for projection, asked in by_shape.items():
        for start in range(0, len(asked), KEYS_PER_QUERY):
            part = asked[start : start + KEYS_PER_QUERY]
            found |= set(_rows(projection, part)) & set(part)
    return found


def _rows(projection: Projection, keys: list[Relationship]) -> Iterator[Relationship]:
    conditions, parameters = [projection.where], []
    if projection.object_column is not None:
        ids = sorted({key.id for key in keys})
        conditions.append(f"{projection.object_column} IN ({marks(ids)})")
        parameters += ids
    if projection.subject_column is not None:
        ids = sorted({key.subject_id for key in keys})
        conditions.append(f"{projection.subject_column} IN ({marks(ids)})")
        parameters += ids
    sql = f"SELECT {_columns(projection)} FROM {projection.source} WHERE " + " AND ".join(
        conditions
    )
    for object_id, subject_id in execute(sql, parameters):
        yield projection.made(object_id, subject_id)


def _columns(projection: Projection) -> str:
    return f"{projection.object_column or 'NULL'}, {projection.subject_column or 'NULL'}"


def every(kind: str | None = None) -> Iterator[Relationship]:
    """Every relationship that follows from the rows, of one kind of object or of all.

    Read in pages, so that memory stays small; each page sees the rows as they are then.
    """
    for projection in PROJECTIONS:
        if kind in (None, projection.kind):
            yield from _pages(projection)


def _pages(projection: Projection) -> Iterator[Relationship]:
    columns = (projection.object_column, projection.subject_column)
    order = [column for column in columns if column is not None]
    position: list[Any] = []
    while True:
        condition, limit = projection.where, f" LIMIT {PAGE_ROWS}"
        if position:
            condition += f" AND ({', '.join(order)}) > ({marks(position)})"
        ordering = f" ORDER BY {', '.join(order)}{limit}" if order else ""
        rows = execute(
            f"SELECT {_columns(projection)} FROM {projection.source} WHERE {condition}{ordering}",
            position,
        )
        for object_id, subject_id in rows:
            yield projection.made(object_id, subject_id)
        if not order or len(rows) < PAGE_ROWS:
            return
        position = [value for value in rows[-1] if value is not None]
