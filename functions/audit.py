"""The audit log: who did what to which object, written in the transaction that does it."""

from __future__ import annotations

from typing import Any

from flask import g, has_request_context, request

from airavata_scheduler.functions import principals
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import AuditEntry

OPERATOR = "operator"  # somebody at the server's own command line


def append(
    action: str,
    object_kind: str,
    object_id: str,
    *,
    project_id: str | None = None,
    actor_id: str | None = None,
    **detail: Any,
) -> None:
    """Append one entry; call it inside the transaction of the change.

    The actor is the request's principal, else `actor_id` (a user who is just logging in), else the
    operator at the command line. `detail` holds small JSON values and never a secret.
    """
    principal = principals.current_or_none() if has_request_context() else None
    user_id = principal.id if principal else actor_id
    AuditEntry.insert(
        id=new_id(),
        at=now_ms(),
        actor_kind="user" if user_id else OPERATOR,
        actor_id=user_id or OPERATOR,
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        project_id=project_id,
        request_id=g.get("request_id", "") if has_request_context() else "",
        address=(request.remote_addr or "") if has_request_context() else "",
        detail=detail,
    ).execute()
