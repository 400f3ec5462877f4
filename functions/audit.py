"""The audit log: who did what to which object, written in the transaction that does it."""

from __future__ import annotations

from typing import Any

from flask import g, has_request_context, request

from airavata_scheduler.functions import principals
from airavata_scheduler.models.database import database, now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import AuditEntry

OPERATOR = "operator"  # somebody at the server's own command line
NOBODY = "nobody"  # somebody who did not prove who they are: a failed login


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

    Raises RuntimeError outside one: a deed and its entry are stored together or not at all.
    The actor is the request's principal, else `actor_id` (a user who is just logging in), else
    nobody that we know, or outside a request the operator at the command line. `detail` holds small
    JSON values and never a secret.
    """
    if not database.in_transaction():
        raise RuntimeError(f"the audit's {action} belongs into the transaction of its deed")
    principal = principals.current_or_none() if has_request_context() else None
    user_id = principal.id if principal else actor_id
    unknown = NOBODY if has_request_context() else OPERATOR
    AuditEntry.insert(
        id=new_id(),
        at=now_ms(),
        actor_kind="user" if user_id else unknown,
        actor_id=user_id or unknown,
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        project_id=project_id,
        request_id=g.get("request_id", "") if has_request_context() else "",
        address=(request.remote_addr or "") if has_request_context() else "",
        detail=detail,
    ).execute()
