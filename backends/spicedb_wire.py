"""What is said to SpiceDB, and what it says, as messages of its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from authzed.api.v1 import (
    CheckPermissionResponse,
    Consistency,
    ObjectReference,
    Precondition,
    RelationshipFilter,
    SubjectFilter,
    SubjectReference,
    ZedToken,
)
from authzed.api.v1 import Relationship as WireRelationship

from airavata_scheduler.backends.spicedb_faults import code_of, meaning
from airavata_scheduler.models.relations import Relationship

_YES: Final = CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION


@dataclass(frozen=True, kw_only=True)
class Question:
    """May user `user_id` do `permission` to the object?"""

    kind: str
    id: str
    permission: str
    user_id: str
    user_kind: str = "user"


@dataclass(frozen=True, kw_only=True)
class Fence:
    """One relationship that a write demands: to be there, or (with `absent`) no such relation."""

    relationship: Relationship
    absent: bool = False


def said_yes(pair: Any) -> bool:
    """Whether one answer of many is yes. Raises what its error means."""
    if pair.HasField("error"):
        raise meaning(code_of(pair.error.code), pair.error.message)
    return bool(pair.item.permissionship == _YES)


def at_least(token: str | None) -> Consistency:
    """A state as new as `token`; without one the newest there is."""
    if token is None:
        return Consistency(fully_consistent=True)
    return Consistency(at_least_as_fresh=ZedToken(token=token))


def an_object(kind: str, object_id: str) -> ObjectReference:
    """An object, as the resource or the subject of something."""
    return ObjectReference(object_type=kind, object_id=object_id)


def message(relationship: Relationship) -> WireRelationship:
    """A relationship as SpiceDB is told it."""
    return WireRelationship(
        resource=an_object(relationship.kind, relationship.id),
        relation=relationship.relation,
        subject=SubjectReference(
            object=an_object(relationship.subject_kind, relationship.subject_id),
            optional_relation=relationship.subject_relation,
        ),
    )


def relationship_of(wire: Any) -> Relationship:
    """A relationship as SpiceDB tells it."""
    return Relationship(
        kind=wire.resource.object_type,
        id=wire.resource.object_id,
        relation=wire.relation,
        subject_kind=wire.subject.object.object_type,
        subject_id=wire.subject.object.object_id,
        subject_relation=wire.subject.optional_relation,
    )


def precondition(fence: Fence) -> Precondition:
    """A fence as SpiceDB is told it."""
    wanted = fence.relationship
    if fence.absent:
        return Precondition(
            operation=Precondition.OPERATION_MUST_NOT_MATCH,
            filter=RelationshipFilter(
                resource_type=wanted.kind,
                optional_resource_id=wanted.id,
                optional_relation=wanted.relation,
            ),
        )
    return Precondition(
        operation=Precondition.OPERATION_MUST_MATCH,
        filter=RelationshipFilter(
            resource_type=wanted.kind,
            optional_resource_id=wanted.id,
            optional_relation=wanted.relation,
            optional_subject_filter=SubjectFilter(
                subject_type=wanted.subject_kind, optional_subject_id=wanted.subject_id
            ),
        ),
    )
