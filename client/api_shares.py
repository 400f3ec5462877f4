"""Nouns of the typed SDK whose objects can be shared with users and groups."""

from __future__ import annotations

from collections.abc import Iterator

from airavata_scheduler.client.api_people import subject_of
from airavata_scheduler.client.collection import Collection, R, path_of, without_none
from airavata_scheduler.client.errors import NotFoundError
from airavata_scheduler.client.records import Share


class Shared(Collection[R]):
    """A collection whose objects have shares."""

    def shares(self, name: str) -> Iterator[Share]:
        """With whom an object is shared: users, then groups."""
        return self.pages(path_of(self.path, name, "shares"), Share)

    def share(
        self, name: str, user: str | None = None, *, group: str | None = None, relation: str
    ) -> Share:
        """Share an object with a user or a group, called by their exact name."""
        body = {**subject_of(user, group), "relation": relation}
        try:
            return Share.from_json(self.transport.post(path_of(self.path, name, "shares"), body))
        except NotFoundError as error:
            raise self.with_nearest(error, name) from error

    def unshare(
        self,
        name: str,
        user: str | None = None,
        *,
        group: str | None = None,
        relation: str | None = None,
    ) -> None:
        """End a share; without `relation`, all that the user or the group has."""
        query = without_none({**subject_of(user, group), "relation": relation})
        try:
            self.transport.call("DELETE", path_of(self.path, name, "shares"), query=query)
        except NotFoundError as error:
            if error.code == "share_not_found":
                raise
            raise self.with_nearest(error, name) from error
