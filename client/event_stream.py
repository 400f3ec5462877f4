"""Server-sent events: lines in, events out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event: `kind` as the server named it ("message" where it did not), `data` as text."""

    kind: str
    data: str
    id: str | None = None

    def json(self) -> Any:
        """The data decoded, None where it is not JSON."""
        try:
            return json.loads(self.data)
        except ValueError:
            return None


def events_of(lines: Iterable[str]) -> Iterator[Event]:
    """Group the lines of a stream into events. Comments (the server's sign of life) are dropped."""
    kind, identity = "message", None
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield Event(kind=kind, data="\n".join(data), id=identity)
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            identity = value
