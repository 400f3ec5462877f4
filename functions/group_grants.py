"""Changes of groups, noted for SpiceDB as `grants.py` notes those of projects."""

from __future__ import annotations

from collections.abc import Iterable

from airavata_scheduler.functions import grants
from airavata_scheduler.models import outbox
from airavata_scheduler.models.outbox import Named, relationship
from airavata_scheduler.models.relations import Relationship


def group_made(group_id: str, owner_id: str) -> None:
    """Note a new group and its owner."""
    grants.grant(("group", group_id), "system", ("system", "main"))
    group_role_changed(group_id, ("user", owner_id), after="owner")


def group_role_changed(
    group_id: str, subject: Named, *, before: str | None = None, after: str | None = None
) -> None:
    """Note that a user or a group got, changed or lost its place in a group.

    With it goes that the group's people may see the user or the group.
    """
    roles = [role for role in (before, after) if role is not None]
    keys = [key for role in roles for key in _place(group_id, role, subject)]
    outbox.append(dict.fromkeys(keys), about=("group", group_id), revokes=before is not None)


def group_deleted(group_id: str, members: Iterable[tuple[str, Named]]) -> None:
    """Note that a group ended and its `members` (role, subject) are not in it any more."""
    group = ("group", group_id)
    keys = [relationship(group, "system", ("system", "main"))]
    keys += [key for role, subject in members for key in _place(group_id, role, subject)]
    outbox.append(keys, about=group, revokes=True)


def _place(group_id: str, role: str, subject: Named) -> list[Relationship]:
    back = "group" if subject[0] == "user" else "parent"
    return [
        relationship(("group", group_id), role, subject),
        relationship(subject, back, ("group_object", group_id)),
    ]
