"""Changes of grants: what a view calls in the transaction that changes the rows.

Rows (members, owners, shares) are the truth. These calls note which relationships may have changed;
`relay_now` brings them to SpiceDB once the transaction is committed. The application does that at
the end of each request, and the daemon for a request that did not come to its end.
"""

from __future__ import annotations

import logging

from airavata_scheduler.backends.relay import relay
from airavata_scheduler.models import outbox
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import Unavailable
from airavata_scheduler.models.outbox import Named, relationship, resource_changed

__all__ = [
    "grant",
    "project_deleted",
    "project_made",
    "project_role_changed",
    "relay_now",
    "replace",
    "resource_changed",
    "user_changed",
    "withdraw",
]

_log = logging.getLogger(__name__)


def grant(resource: Named, relation: str, subject: Named) -> None:
    """Note that `subject` now has `relation` to `resource`.

    A subject `("group", id)` means the people of the group, `("group_object", id)` the group.
    """
    outbox.append([relationship(resource, relation, subject)], about=resource, revokes=False)


def withdraw(resource: Named, relation: str, subject: Named) -> None:
    """Note that `subject` no longer has `relation` to `resource`: it ends at the commit."""
    outbox.append([relationship(resource, relation, subject)], about=resource, revokes=True)


def replace(resource: Named, before: str, after: str, subject: Named) -> None:
    """Note that `subject` has the relation `after` instead of `before`."""
    keys = [relationship(resource, relation, subject) for relation in (before, after)]
    outbox.append(keys, about=resource, revokes=True)


def user_changed(user_id: str, *, revokes: bool = False) -> None:
    """Note a new user, or one who became or ceased to be an administrator, or was disabled."""
    user, system = ("user", user_id), ("system", "main")
    keys = [
        relationship(user, "account", user),
        relationship(user, "system", system),
        relationship(system, "administrator", user),
    ]
    outbox.append(keys, about=user, revokes=revokes)


def project_made(project_id: str, owner_id: str) -> None:
    """Note a new project and its owner."""
    grant(("project", project_id), "system", ("system", "main"))
    project_role_changed(project_id, ("user", owner_id), after="owner")


def project_role_changed(
    project_id: str, subject: Named, *, before: str | None = None, after: str | None = None
) -> None:
    """Note that a user or group got, changed or lost its role in a project.

    With it goes that the project's people may see the user or group.
    """
    project = ("project", project_id)
    keys = [relationship(project, role, subject) for role in (before, after) if role is not None]
    keys.append(relationship(subject, "project", project))
    outbox.append(keys, about=project, revokes=before is not None)


def project_deleted(project_id: str) -> None:
    """Note that a project ended, and with it every role in it."""
    project = ("project", project_id)
    users = execute(
        "SELECT role, user_id FROM project_members WHERE project_id = %s", (project_id,)
    )
    groups = execute(
        "SELECT role, group_id FROM project_groups WHERE project_id = %s", (project_id,)
    )
    keys = [relationship(project, "system", ("system", "main"))]
    for kind, rows in (("user", users), ("group", groups)):
        for role, subject_id in rows:
            subject = (kind, str(subject_id))
            keys.append(relationship(project, role, subject))
            keys.append(relationship(subject, "project", project))
    outbox.append(keys, about=project, revokes=True)


def relay_now() -> None:
    """Relay what this thread's transactions noted. Never raises: what fails, the daemon does.

    A revoke is safe all the same: no check passes while one waits.
    """
    if not outbox.take_written() or outbox.in_transaction():
        return
    try:
        relay()
    except Unavailable as error:
        _log.warning("grants: not relayed yet: %s", error.detail)
