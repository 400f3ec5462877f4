"""What every noun of the SDK can do: list, find, create, change, delete."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from airavata_scheduler.client.errors import ClientError, NotFoundError
from airavata_scheduler.client.records import Record
from airavata_scheduler.client.transport import Transport

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=Record)
PAGE_SIZE = 200
# A wrong name is compared with this many names; more would make a typing mistake slow.
NAMES_COMPARED = 1000


def path_of(*parts: str) -> str:
    """A path from its parts: the first as it is, the others escaped whole."""
    return "/".join(
        [parts[0], *(quote(part, safe="", errors="surrogatepass") for part in parts[1:])]
    )


class Collection(Generic[R]):
    """One noun of the API. Names, ids and unambiguous prefixes of ids are accepted everywhere."""

    path: ClassVar[str]
    noun: ClassVar[str]
    record: type[R]

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def list(self, *, limit: int | None = None, **query: Any) -> Iterator[R]:
        """The objects that we may see, page by page as they are read, at most `limit`."""
        return self.pages(self.path, self.record, limit=limit, **query)

    def get(self, name: str, **query: Any) -> R:
        """One object. Raises `NotFoundError`, with the nearest names as its hint."""
        try:
            return self.record.from_json(self.transport.get(path_of(self.path, name), **query))
        except NotFoundError as error:
            raise self.with_nearest(error, name, **query) from error

    def create(self, **body: Any) -> R:
        """Make an object; values that are None are left out."""
        return self.record.from_json(self.transport.post(self.path, without_none(body)))

    def update(self, name: str, /, *, if_version: int | None = None, **changes: Any) -> R:
        """Change an object. With `if_version`, only if nobody changed it since that version.

        Raises `ConflictError` when somebody did.
        """
        headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        answer = self.transport.call(
            "PATCH", path_of(self.path, name), body=changes, headers=headers
        )
        return self.record.from_json(answer)

    def delete(self, name: str, **query: Any) -> None:
        """Delete an object."""
        try:
            self.transport.call("DELETE", path_of(self.path, name), query=query)
        except NotFoundError as error:
            raise self.with_nearest(error, name, **query) from error

    def pages(
        self, path: str, record: type[S], /, *, limit: int | None = None, **query: Any
    ) -> Iterator[S]:
        """Every record of a list at `path`, fetching the next page when it is needed."""
        cursor: str | None = None
        given = 0
        while limit is None or given < limit:
            size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - given)
            answer = self.transport.get(path, limit=size, cursor=cursor, **query)
            for item in answer["items"]:
                yield record.from_json(item)
                given += 1
            cursor = answer.get("next")
            if cursor is None:
                return

    def with_nearest(self, error: NotFoundError, name: str, **query: Any) -> NotFoundError:
        """`error`, with the three nearest names as its hint where the server gave none."""
        if error.hint:
            return error
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        message = error.message if name in error.message else f"There is no {self.noun} “{shown}”."
        return NotFoundError(
            message,
            reason=error.reason,
            hint=self._nearest_hint(name, **query),
            code=error.code,
            status=error.status,
            request_id=error.request_id,
        )

    def _nearest_hint(self, name: str, **query: Any) -> str:
        command = f"airavata {self.noun} list"
        try:
            known = [
                str(record.raw["name"])
                for record in self.list(limit=NAMES_COMPARED, **query)
                if record.raw.get("name")
            ]
        except ClientError:
            return f"See what there is: {command}"
        nearest = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.3)
        if nearest:
            return f"Did you mean {', '.join(nearest)}? All of them: {command}"
        return f"See what there is: {command}"


def without_none(body: dict[str, Any]) -> dict[str, Any]:
    """`body` without the values that were not given."""
    return {name: value for name, value in body.items() if value is not None}
