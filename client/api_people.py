"""Users, groups and projects of the typed SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airavata_scheduler.client.collection import Collection, path_of
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.records import Group, Project, Record, User


class Users(Collection[User]):
    """The accounts (administrators) and one's own."""

    path = "/users"
    noun = "user"
    record = User

    def me(self) -> User:
        """One's own account."""
        return User.from_json(self.transport.get("/users/me"))

    def update_me(self, **changes: Any) -> User:
        """Change one's own `email` or `full_name`."""
        return User.from_json(self.transport.call("PATCH", "/users/me", body=changes))

    def change_password(self, current: str, new: str) -> None:
        """Set a new password; every other login of ours ends."""
        self.transport.post("/users/me/password", {"current": current, "new": new})

    def my_projects(self) -> Iterator[Project]:
        """The projects that we are a member of."""
        return self.pages("/users/me/projects", Project)

    def my_groups(self) -> Iterator[Group]:
        """The groups that we are in, ourselves (then `role` says as what) or through others."""
        return self.pages("/users/me/groups", Group)


@dataclass(frozen=True, kw_only=True)
class Member(Record):
    """A user or a group (`kind`) in a project or a group."""

    id: str
    kind: str
    name: str
    role: str
    full_name: str = ""
    created_at: datetime | None = None


def subject_of(user: str | None, group: str | None) -> dict[str, str]:
    """`{"user": …}` or `{"group": …}`. Raises `BadInputError` unless one of them is given."""
    if (user is None) == (group is None):
        raise BadInputError("Name a user or a group: one of the two.")
    return {"user": user} if user is not None else {"group": str(group)}


class Groups(Collection[Group]):
    """The groups that we may see."""

    path = "/groups"
    noun = "group"
    record = Group

    def members(self, group: str) -> Iterator[Member]:
        """Who is in the group: users, then groups."""
        return self.pages(path_of("/groups", group, "members"), Member)

    def add_member(
        self,
        group: str,
        user: str | None = None,
        *,
        member_group: str | None = None,
        role: str = "member",
    ) -> Member:
        """Add a user as owner, manager or member, or put another group into it."""
        body = {**subject_of(user, member_group), "role": role}
        return Member.from_json(self.transport.post(path_of("/groups", group, "members"), body))

    def change_member(self, group: str, user: str, role: str) -> Member:
        """Give a user in the group another role."""
        path = path_of("/groups", group, "members", user)
        return Member.from_json(self.transport.call("PATCH", path, body={"role": role}))

    def remove_member(
        self, group: str, user: str | None = None, *, member_group: str | None = None
    ) -> None:
        """Take a user or a group out of the group."""
        self.transport.call("DELETE", _place("/groups", group, subject_of(user, member_group)))


def _place(path: str, name: str, subject: Mapping[str, str]) -> str:
    """The path of a user or a group in a group or a project."""
    if "user" in subject:
        return path_of(path, name, "members", subject["user"])
    return path_of(path, name, "groups", subject["group"])


class Projects(Collection[Project]):
    """The projects that we may see."""

    path = "/projects"
    noun = "project"
    record = Project

    def members(self, project: str) -> Iterator[Member]:
        """Who is in the project, with which role: users, then groups."""
        return self.pages(path_of("/projects", project, "members"), Member)

    def add_member(
        self,
        project: str,
        user: str | None = None,
        role: str = "member",
        *,
        group: str | None = None,
    ) -> dict[str, Any]:
        """Add a user or a group as owner, admin, member or viewer."""
        body = {**subject_of(user, group), "role": role}
        answer: dict[str, Any] = self.transport.post(path_of("/projects", project, "members"), body)
        return answer

    def change_member(
        self,
        project: str,
        user: str | None = None,
        role: str = "member",
        *,
        group: str | None = None,
    ) -> dict[str, Any]:
        """Give a user or a group in the project another role."""
        path = _place("/projects", project, subject_of(user, group))
        answer: dict[str, Any] = self.transport.call("PATCH", path, body={"role": role})
        return answer

    def remove_member(
        self, project: str, user: str | None = None, *, group: str | None = None
    ) -> None:
        """Take a user or a group out of the project."""
        self.transport.call("DELETE", _place("/projects", project, subject_of(user, group)))
