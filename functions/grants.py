"""Changes of grants as relations, in the outbox, in the transaction that makes the change.

The rows (members, owners) are the truth; the outbox feeds the projection that SpiceDB will hold.
"""

from __future__ import annotations

from typing import Literal

from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import OutboxEntry

RELATION = "relation"


def grant(resource: tuple[str, str], relation: str, subject: tuple[str, str]) -> None:
    """Record that `subject` (kind, id) now has `relation` to `resource` (kind, id)."""
    _append("touch", resource, relation, subject)


def withdraw(resource: tuple[str, str], relation: str, subject: tuple[str, str]) -> None:
    """Record that `subject` no longer has `relation` to `resource`."""
    _append("delete", resource, relation, subject)


def _append(
    operation: Literal["touch", "delete"],
    resource: tuple[str, str],
    relation: str,
    subject: tuple[str, str],
) -> None:
    OutboxEntry.insert(
        id=new_id(),
        kind=RELATION,
        payload={
            "operation": operation,
            "resource": ":".join(resource),
            "relation": relation,
            "subject": ":".join(subject),
        },
        created_at=now_ms(),
    ).execute()
