"""What one bad input is: which family of the catalogue, what is sent, how it must be answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.api import Answered
    from tests.bad_input.world import World

Holds = Callable[["World", "Answered"], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request.

    `send` is `WHO METHOD PATH`, where WHO is somebody of the world (`ada`, `root`, `eve`, `nobody`,
    `agent`, `other_agent`); the path and strings of `json` may hold places such as `{experiment}`.
    `data` is the raw body, or makes it. Where `code` is None the request is taken, and `holds` says
    what must be true then: the input did no harm.
    """

    family: int
    name: str
    send: str
    json: Any = None
    data: bytes | Callable[[], bytes] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 422
    code: str | None = None
    field: str | None = None
    holds: Holds | None = None

    def __str__(self) -> str:
        """As a failure shows it."""
        return f"family {self.family}, {self.name}"

    @property
    def who(self) -> str:
        """Who sends it."""
        return self.send.split(" ", 2)[0]

    @property
    def where(self) -> str:
        """Which surface it is tried on: the users' API or the agents'."""
        return "agent_api" if self.who.endswith("agent") else "api"
