"""Logins, users and projects of the typed SDK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.client.collection import Collection, path_of
from airavata_scheduler.client.profile import Profile
from airavata_scheduler.client.records import Project, Record, User
from airavata_scheduler.client.transport import Transport


class Logins:
    """Who we are. A login is written to the profile, so that it holds for the next command."""

    def __init__(self, transport: Transport, profile: Profile) -> None:
        self._transport = transport
        self._profile = profile

    def log_in(self, username: str, password: str) -> dict[str, Any]:
        """Log in with a password and remember the tokens; returns the user's JSON."""
        return self._keep("/auth/login", {"username": username, "password": password})

    def bootstrap(self, token: str, username: str, password: str) -> dict[str, Any]:
        """Make the first administrator with the one-time `token`, and log in."""
        body = {"token": token, "username": username, "password": password}
        return self._keep("/auth/bootstrap", body)

    def set_password(self, token: str, password: str) -> dict[str, Any]:
        """Set a password with the one-time `token` of an invitation, and log in."""
        return self._keep("/auth/password-link", {"token": token, "password": password})

    def log_out(self) -> None:
        """End the login on the server and forget its tokens here."""
        self._transport.post("/auth/logout")
        self._profile.forget_tokens()

    def status(self) -> dict[str, Any]:
        """What the server says about our login."""
        answer: dict[str, Any] = self._transport.get("/auth/status")
        return answer

    def _keep(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._transport.send("POST", path, json=body, authenticated=False).json()
        self._profile.save(tokens=answer, server=self._transport.server)
        user: dict[str, Any] = answer.get("user") or {}
        return user


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


@dataclass(frozen=True, kw_only=True)
class Member(Record):
    """A user in a project; `raw` holds user and role."""


class Projects(Collection[Project]):
    """The projects that we may see."""

    path = "/projects"
    noun = "project"
    record = Project

    def members(self, project: str) -> Iterator[Member]:
        """Who is in the project, with which role."""
        return self.pages(path_of("/projects", project, "members"), Member)

    def add_member(self, project: str, user: str, role: str) -> dict[str, Any]:
        """Add `user` as owner, admin, member or viewer."""
        answer: dict[str, Any] = self.transport.post(
            path_of("/projects", project, "members"), {"user": user, "role": role}
        )
        return answer

    def change_member(self, project: str, user: str, role: str) -> dict[str, Any]:
        """Give a member another role."""
        answer: dict[str, Any] = self.transport.call(
            "PATCH", path_of("/projects", project, "members", user), body={"role": role}
        )
        return answer

    def remove_member(self, project: str, user: str) -> None:
        """Take a user out of the project."""
        self.transport.call("DELETE", path_of("/projects", project, "members", user))
