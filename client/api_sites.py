"""Compute resources, storage resources and agents of the typed SDK."""

from __future__ import annotations

from typing import Any

from airavata_scheduler.client.api_shares import Shared
from airavata_scheduler.client.collection import Collection, path_of, without_none
from airavata_scheduler.client.errors import NotFoundError
from airavata_scheduler.client.records import Agent, EnrolmentToken, Resource


class ComputeResources(Shared[Resource]):
    """Places to run."""

    path = "/compute-resources"
    noun = "resource compute"
    record = Resource

    def status(self, name: str) -> dict[str, Any]:
        """What runs there and which agents are online."""
        try:
            answer: dict[str, Any] = self.transport.get(path_of(self.path, name, "status"))
        except NotFoundError as error:
            raise self.with_nearest(error, name) from error
        return answer

    def enrolment_token(self, name: str, *, agent_name: str | None = None) -> EnrolmentToken:
        """A one-time right to enrol an agent at the resource; it lapses in minutes."""
        path = path_of(self.path, name, "enrolment-tokens")
        try:
            answer = self.transport.post(path, without_none({"agent_name": agent_name}))
        except NotFoundError as error:
            raise self.with_nearest(error, name) from error
        return EnrolmentToken.from_json(answer)


class StorageResources(Shared[Resource]):
    """Places for data."""

    path = "/storage-resources"
    noun = "resource storage"
    record = Resource

    def status(self, name: str) -> dict[str, Any]:
        """Whether it can be used."""
        answer: dict[str, Any] = self.transport.get(path_of(self.path, name, "status"))
        return answer


class Agents(Collection[Agent]):
    """The programs at the sites."""

    path = "/agents"
    noun = "agent"
    record = Agent

    def act(self, name: str, action: str, **body: Any) -> Agent:
        """Apply `action`: approve (with `code`), drain, resume or revoke."""
        try:
            return Agent.from_json(
                self.transport.post(path_of(self.path, name, action), without_none(body))
            )
        except NotFoundError as error:
            raise self.with_nearest(error, name) from error
