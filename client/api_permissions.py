"""Who may do what, for the typed SDK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from airavata_scheduler.client.collection import Collection
from airavata_scheduler.client.records import Record


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """Whether a user may do something to an object, and (from `explain`) why."""

    allowed: bool
    user: str
    object: str
    object_id: str
    permission: str
    detail: str = ""
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class AllowedObject(Record):
    """An object on which we have a permission."""

    id: str
    name: str


class Permissions(Collection[AllowedObject]):
    """Questions about permissions; objects are written `KIND:NAME`."""

    path = "/permissions"
    noun = "permission"
    record = AllowedObject

    def check(self, target: str, permission: str, *, user: str | None = None) -> Verdict:
        """Whether we, or another user, may do `permission` to `target`."""
        answer = self.transport.get(
            "/permissions/check", object=target, permission=permission, user=user
        )
        return Verdict.from_json(answer)

    def explain(self, target: str, permission: str, *, user: str | None = None) -> Verdict:
        """The same, with the roles, groups and shares that it follows from."""
        answer = self.transport.get(
            "/permissions/explain", object=target, permission=permission, user=user
        )
        return Verdict.from_json(answer)

    def allowed(self, kind: str, permission: str) -> Iterator[AllowedObject]:
        """The objects of a kind on which we have a permission, by name."""
        return self.list(kind=kind, permission=permission)
