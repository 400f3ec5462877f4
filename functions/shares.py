"""One object shared with users and groups: a resource, or a credential.

The nouns' modules serve the routes; here is what they have in common. A share may name anybody by
exact name: it shows them the object, and shows the sharer nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from peewee import IntegrityError
from pydantic import BaseModel, Field

from airavata_scheduler.functions import audit, grants, naming, principals
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.row_locks import locked
from airavata_scheduler.functions.shapes import Line, Query
from airavata_scheduler.functions.subjects import (
    Rows,
    Subject,
    SubjectAnswer,
    one_of,
    page,
    shown,
)
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.errors import BadInput, Conflict, NotFound
from airavata_scheduler.models.tables import (
    ComputeResource,
    Credential,
    Group,
    Share,
    StorageResource,
    User,
)

SharedKind = Literal["compute_resource", "storage_resource", "credential"]

RELATIONS: Final[Mapping[SharedKind, tuple[str, ...]]] = {
    "compute_resource": ("operator", "user"),
    "storage_resource": ("operator", "user"),
    "credential": ("writer", "reader", "revealer"),
}
_MODELS: Final[Mapping[SharedKind, Any]] = {
    "compute_resource": ComputeResource,
    "storage_resource": StorageResource,
    "credential": Credential,
}


class ShareAnswer(SubjectAnswer):
    """What a user or a group may do with the object."""

    relation: str
    created_by: str = Field(description="The id of the user who shared it")
    created_at: str


class SharePage(BaseModel):
    """A page of shares: with users first, then with groups."""

    items: list[ShareAnswer]
    next: str | None


class UnshareQuery(Query):
    """Whose share to end: a user's or a group's; without a relation, all that they have."""

    user: Line | None = Field(None, description="User name or id")
    group: Line | None = Field(None, description="Group name or id")
    relation: Line | None = None


def add(kind: SharedKind, target: Target, relation: str, subject: Subject) -> dict[str, Any]:
    """Give `subject` this relation to the object; the share as JSON. Call it in a transaction.

    `subject` comes from `subjects.named_in` in the same transaction. Raises BadInput for a relation
    that the kind does not have, Conflict if it is shared so already, NotFound if the object is
    gone.
    """
    _check_relation(kind, relation)
    lock_object(kind, target)
    try:
        Share.insert(
            object_kind=kind,
            object_id=target.id,
            relation=relation,
            subject_kind=subject.kind,
            subject_id=subject.id,
            created_by=principals.current().id,
            created_at=now_ms(),
        ).execute()
    except IntegrityError:
        raise Conflict(
            f"{subject.name} is {relation} of {target.name} already.", code="share_exists"
        ) from None
    grants.grant((kind, target.id), relation, subject.named)
    _audit("share", kind, target, relation, subject)
    model, rows = (User, _users) if subject.kind == "user" else (Group, _groups)
    row = rows(kind, target.id).where((model.id == subject.id) & (Share.relation == relation))
    return shown({"kind": subject.kind, "full_name": "", **row.dicts().get()})


def remove(
    kind: SharedKind, target: Target, relation: str | None, subject: Subject
) -> tuple[str, ...]:
    """End what `subject` has of the object, one relation or all; which. Call it in a transaction.

    Raises NotFound if there is nothing to end.
    """
    if relation is not None:
        _check_relation(kind, relation)
    lock_object(kind, target)
    theirs = (
        _of(kind, target.id)
        & (Share.subject_kind == subject.kind)
        & (Share.subject_id == subject.id)
    )
    if relation is not None:
        theirs = theirs & (Share.relation == relation)
    ended = tuple(share.relation for share in Share.select().where(theirs))
    if not ended:
        raise NotFound(
            f"{target.name} is not shared with {subject.name}"
            + (f" as {relation}." if relation else "."),
            code="share_not_found",
        )
    Share.delete().where(theirs).execute()
    for one in ended:
        grants.withdraw((kind, target.id), one, subject.named)
        _audit("unshare", kind, target, one, subject)
    return ended


def unshared(kind: SharedKind, target: Target, query: UnshareQuery) -> None:
    """As `remove`, for whom a query names. Raises BadInput or NotFound."""
    remove(kind, target, query.relation, one_of(query.user, query.group, active=False))


def listed(kind: SharedKind, target: Target, query: PageQuery) -> dict[str, Any]:
    """A page of whom the object is shared with."""
    return page(
        query,
        users=Rows(select=_users(kind, target.id), name=User.name, then=Share.relation),
        groups=Rows(select=_groups(kind, target.id), name=Group.name, then=Share.relation),
    )


def forget_object(kind: SharedKind, object_id: str) -> None:
    """End every share of an object that is being deleted, in its transaction."""
    for share in Share.select().where(_of(kind, object_id)):
        grants.withdraw((kind, object_id), share.relation, (share.subject_kind, share.subject_id))
    Share.delete().where(_of(kind, object_id)).execute()


def forget_group(group_id: str) -> int:
    """End every share with a group that is being deleted, its row locked; how many."""
    theirs = (Share.subject_kind == "group") & (Share.subject_id == group_id)
    shares = list(Share.select().where(theirs))
    for share in shares:
        grants.withdraw((share.object_kind, share.object_id), share.relation, ("group", group_id))
    Share.delete().where(theirs).execute()
    return len(shares)


def _check_relation(kind: SharedKind, relation: str) -> None:
    if relation not in RELATIONS[kind]:
        raise BadInput(
            f"A {naming.spoken(kind)} is shared as {' or '.join(RELATIONS[kind])}.",
            code="relation_unknown",
            field="relation",
        )


def lock_object(kind: SharedKind, target: Target) -> None:
    """Lock the object's row, so that it is not deleted meanwhile. Raises NotFound if it was."""
    model = _MODELS[kind]
    row = locked(model.select().where(model.id == target.id)).first()
    if row is None or row.state == "deleted":
        raise naming.not_found(target.kind, target.asked, principals.current())


def _audit(action: str, kind: SharedKind, target: Target, relation: str, subject: Subject) -> None:
    audit.append(
        action, kind, target.id, project_id=target.project_id,
        relation=relation, subject_kind=subject.kind, subject_id=subject.id,
    )  # fmt: skip


def _of(kind: SharedKind, object_id: str) -> Any:
    return (Share.object_kind == kind) & (Share.object_id == object_id)


def _users(kind: SharedKind, object_id: str) -> Any:
    columns = (User.id, User.name, User.full_name)
    return (
        Share.select(*columns, Share.relation, Share.created_by, Share.created_at)
        .join(User, on=(User.id == Share.subject_id))
        .where(_of(kind, object_id) & (Share.subject_kind == "user"))
    )


def _groups(kind: SharedKind, object_id: str) -> Any:
    return (
        Share.select(Group.id, Group.name, Share.relation, Share.created_by, Share.created_at)
        .join(Group, on=(Group.id == Share.subject_id))
        .where(_of(kind, object_id) & (Share.subject_kind == "group"))
    )
