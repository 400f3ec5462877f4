"""Which relations follow from a place in a group and from a role in a project.

The rows are written by the nouns' modules; here is what SpiceDB is told of them, in one place.
`group` as a subject means those in the group, `group_object` the group itself.
"""

from __future__ import annotations

from collections.abc import Callable

from airavata_scheduler.functions import grants
from airavata_scheduler.functions.subjects import Subject

Change = Callable[[tuple[str, str], str, tuple[str, str]], None]


def joined_group(group_id: str, role: str, subject: Subject) -> None:
    """`subject` is now in the group."""
    _place_in_group(grants.grant, group_id, role, subject)


def left_group(group_id: str, role: str, subject: Subject) -> None:
    """`subject` is no longer in the group."""
    _place_in_group(grants.withdraw, group_id, role, subject)


def joined_project(project_id: str, role: str, subject: Subject) -> None:
    """`subject` now has this role in the project."""
    _place_in_project(grants.grant, project_id, role, subject)


def left_project(project_id: str, role: str, subject: Subject) -> None:
    """`subject` no longer has this role in the project, nor another one."""
    _place_in_project(grants.withdraw, project_id, role, subject)


def _place_in_group(change: Change, group_id: str, role: str, subject: Subject) -> None:
    change(("group", group_id), role, subject.named)
    # Whoever may read a group may read the users in it and the groups in it.
    back = "group" if subject.kind == "user" else "parent"
    change(subject.named, back, ("group_object", group_id))


def _place_in_project(change: Change, project_id: str, role: str, subject: Subject) -> None:
    change(("project", project_id), role, subject.named)
    change(subject.named, "project", ("project", project_id))
