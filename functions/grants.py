"""Changes of grants as relations, in the outbox, in the transaction that makes the change.

The rows (members, owners) are the truth; the outbox feeds the projection that SpiceDB will hold.
"""

from __future__ import annotations

from typing import Literal

from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import OutboxEntry

RELATION = "relation"


Named = tuple[str, str]  # kind and id
Update = dict[str, str]


def grant(resource: Named, relation: str, subject: Named) -> None:
    """Record that `subject` now has `relation` to `resource`."""
    _append([_update("touch", resource, relation, subject)])


def withdraw(resource: Named, relation: str, subject: Named) -> None:
    """Record that `subject` no longer has `relation` to `resource`."""
    _append([_update("delete", resource, relation, subject)])


def replace(resource: Named, before: str, after: str, subject: Named) -> None:
    """Record that `subject` has the relation `after` instead of `before`.

    One entry, because two of the same millisecond have no order.
    """
    _append(
        [
            _update("delete", resource, before, subject),
            _update("touch", resource, after, subject),
        ]
    )


def _update(
    operation: Literal["touch", "delete"], resource: Named, relation: str, subject: Named
) -> Update:
    return {
        "operation": operation,
        "resource": ":".join(resource),
        "relation": relation,
        "subject": ":".join(subject),
    }


def _append(updates: list[Update]) -> None:
    OutboxEntry.insert(
        id=new_id(), kind=RELATION, payload={"updates": updates}, created_at=now_ms()
    ).execute()
