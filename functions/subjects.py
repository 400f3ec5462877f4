"""Users and groups as those who are given something: how bodies name them, how lists show them.

Whoever knows a colleague's or a group's exact name may share with them: it reveals nothing but that
the name exists. Where naming a group would show what is in it (in a project, in another group), the
route's row in the table demands `read` of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import peewee
from pydantic import BaseModel, Field

from airavata_scheduler.functions import pagination
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.shapes import Body, Line, rfc3339
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.tables import Group, User

SubjectKind = Literal["user", "group"]

_MODELS: Final[Mapping[SubjectKind, Any]] = {"user": User, "group": Group}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A user or a group."""

    kind: SubjectKind
    id: str
    name: str
    full_name: str = ""

    @property
    def named(self) -> tuple[str, str]:
        """Kind and id, as `grants` takes them; of a group it means those in it."""
        return (self.kind, self.id)


class SubjectBody(Body):
    """A user or a group, by name or id: one of the two."""

    user: Line | None = Field(None, description="Exact user name, or id")
    group: Line | None = Field(None, description="Name or id of a group")


class SubjectAnswer(BaseModel):
    """A user or a group."""

    kind: SubjectKind
    id: str
    name: str
    full_name: str = Field(description="Empty for a group")


def named_in(body: SubjectBody) -> Subject:
    """The active user or the group that a body names, exactly; a group's row is locked.

    So a group is not deleted while something is given to it. Raises BadInput.
    """
    return one_of(body.user, body.group, active=True)


def one_of(user: str | None, group: str | None, *, active: bool) -> Subject:
    """The user or the group that a request names: exactly one of them must be given.

    Raises BadInput.
    """
    if user is not None and group is not None:
        raise BadInput("Name a user or a group, not both.", code="ambiguous", field="group")
    if user is not None:
        return _called("user", user, active=active)
    if group is not None:
        return _called("group", group, active=active)
    raise BadInput(
        "It takes a user or a group.",
        code="missing_field",
        field="user",
        hint='Send {"user": NAME} or {"group": NAME}.',
    )


def _called(kind: SubjectKind, asked: str, *, active: bool) -> Subject:
    model = _MODELS[kind]
    condition = (model.id if is_id(asked) else model.name) == asked
    if kind == "user" and active:
        condition = condition & (User.state == "active")
    rows = model.select().where(condition)
    row = (rows if kind == "user" else locked(rows)).first()
    if row is None:
        code = "user_not_found" if kind == "user" else "group_not_found"
        raise BadInput(
            f"There is no {kind} {asked!r}.",
            code=code,
            field=kind,
            hint=f"It takes the exact name of the {kind}; ask for it.",
        )
    return Subject(kind=kind, id=row.id, name=row.name, full_name=getattr(row, "full_name", ""))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One half of a list: rows with `id`, `name` and more, sorted by `name`, then by `then`."""

    select: Any
    name: peewee.Field
    then: peewee.Field | None = None

    def read(self, kind: SubjectKind, position: list[Any] | None, limit: int) -> list[Any]:
        """The rows behind `position`, as dicts with `kind`."""
        rows = self.select.order_by(*[self.name, *([self.then] if self.then else [])]).limit(limit)
        if position:
            further = self.name > position[1]
            if self.then is not None:
                further = further | ((self.name == position[1]) & (self.then > position[2]))
            rows = rows.where(further)
        return [{"kind": kind, "full_name": "", **row} for row in rows.dicts()]


def page(query: PageQuery, users: Rows, groups: Rows) -> dict[str, Any]:
    """A page of users, and behind the last of them the groups."""
    position, wanted = pagination.after(query), query.limit + 1
    found: list[Any] = []
    if position is None or position[0] == "user":
        found = users.read("user", position, wanted)
        position = None
    if len(found) < wanted:
        found += groups.read("group", position, wanted - len(found))
    then = users.then.name if users.then is not None else "name"
    return pagination.page(
        found, query, key=lambda row: [row["kind"], row["name"], row[then]], show=shown
    )


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of such a list as JSON; its time as text."""
    first = {name: row[name] for name in ("kind", "id", "name", "full_name")}
    rest = {name: value for name, value in row.items() if name not in first}
    return {**first, **rest, "created_at": rfc3339(row["created_at"])}
