"""What the OpenAPI document says of answers that no view declares.

A view whose answer is one model says so itself (`responses=`). Here stand the others: lists whose
items have a page of their own in the docs, bytes, event streams, what agents are told, and the
problems that only some routes have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airavata_scheduler.functions.shapes import Answer

BYTES: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"
TEXT: Final = "text/plain"


class ItemPage(Answer):
    """One page of a list."""

    items: list[dict[str, Any]]
    next: str | None


class ItemList(Answer):
    """A whole list."""

    items: list[dict[str, Any]]


class WhyStateAnswer(Answer):
    """Why something is where it is: one line a cause, each with the next step."""

    state: str
    reasons: list[dict[str, Any]]


class EnrolledAnswer(Answer):
    """The agent's identity."""

    agent_id: str
    name: str
    compute: dict[str, Any]
    state: str


class AgentTokenAnswer(Answer):
    """An access token; `expires_in` in seconds."""

    access_token: str
    expires_in: int
    state: str


class AgentStateAnswer(Answer):
    """The agent's state now."""

    state: str


class SessionAnswer(Answer):
    """A new session, and what became of the leases that the agent named."""

    session_id: str
    epoch: str
    server_time_ms: int
    timers: dict[str, Any]
    leases: list[dict[str, Any]]
    compute: dict[str, Any]


class BeatAnswer(Answer):
    """What the agent must change; `interval_s` in seconds."""

    epoch: str
    server_time_ms: int
    interval_s: float
    want_full: bool
    leases: list[dict[str, Any]]
    agent: dict[str, Any]


class EndedAnswer(Answer):
    """The session has ended."""

    ended: bool


class ClaimAnswer(Answer):
    """New leases, the specs that they name, and those of a replayed claim that have ended."""

    epoch: str
    leases: list[dict[str, Any]]
    specs: dict[str, Any]
    dead: list[str]
    attention: bool
    poll_s: float


class LeaseAnswer(Answer):
    """What the server holds to be true of one lease."""

    lease: str
    state: str | None
    verdict: str
    cancel_requested: bool
    epoch: str


class ReportsAnswer(Answer):
    """One verdict an item, and the answer to the claim that came along."""

    items: list[dict[str, Any]]
    epoch: str
    claim: dict[str, Any] | None


class OffsetAnswer(Answer):
    """How many bytes of the stream are stored."""

    offset: int


class StoredAnswer(Answer):
    """What was stored."""

    size: int
    sha256: str


Content = type[Answer] | str | None  # a model, a media type, or no body at all

_FILE: Final[Mapping[str, Content]] = {"200": BYTES, "206": BYTES, "304": None}
_PAGE: Final[Mapping[str, Content]] = {"200": ItemPage}
_WHY: Final[Mapping[str, Content]] = {"200": WhyStateAnswer}
_API, _AGENT = "/api/v1", "/agent/v1"

# Route → status → what comes with it.
ANSWERS: Final[Mapping[str, Mapping[str, Content]]] = {
    f"GET {_API}/audit/export": {"200": "application/x-ndjson"},
    f"GET {_API}/functions": _PAGE,
    f"GET {_API}/functions/{{function}}/versions": _PAGE,
    f"POST {_API}/functions/{{function}}/calls/batch": {"201": ItemList},
    f"POST {_API}/calls/results": {"200": ItemList},
    f"GET {_API}/projects/{{project}}/blobs/{{sha256}}": _FILE,
    f"GET {_API}/experiments": _PAGE,
    f"GET {_API}/experiments/{{experiment}}/timeline": _PAGE,
    f"GET {_API}/experiments/{{experiment}}/explain": _WHY,
    f"GET {_API}/experiments/{{experiment}}/tasks": _PAGE,
    f"GET {_API}/experiments/{{experiment}}/failed-tasks": _PAGE,
    f"GET {_API}/experiments/{{experiment}}/artifacts": _PAGE,
    f"GET {_API}/experiments/{{experiment}}/archive": {"200": "application/gzip"},
    f"GET {_API}/experiments/{{experiment}}/events": {"200": EVENTS},
    f"GET {_API}/tasks/{{task}}/attempts": _PAGE,
    f"GET {_API}/tasks/{{task}}/explain": _WHY,
    f"GET {_API}/tasks/{{task}}/artifacts": _PAGE,
    f"GET {_API}/tasks/{{task}}/logs/{{stream}}": {"200": TEXT},
    f"GET {_API}/tasks/{{task}}/logs/{{stream}}/events": {"200": EVENTS},
    f"GET {_API}/artifacts/{{artifact}}/content": _FILE,
    f"POST {_AGENT}/enroll": {"201": EnrolledAnswer},
    f"POST {_AGENT}/token": {"200": AgentTokenAnswer},
    f"POST {_AGENT}/rotate": {"200": AgentStateAnswer},
    f"POST {_AGENT}/unenroll": {"200": AgentStateAnswer},
    f"POST {_AGENT}/session": {"200": SessionAnswer},
    f"POST {_AGENT}/heartbeat": {"200": BeatAnswer},
    f"POST {_AGENT}/session/end": {"200": EndedAnswer},
    f"POST {_AGENT}/leases/claim": {"200": ClaimAnswer},
    f"POST {_AGENT}/leases/start": {"200": ItemList},
    f"POST {_AGENT}/leases/release": {"200": ItemList},
    f"GET {_AGENT}/leases/{{lease}}": {"200": LeaseAnswer},
    f"GET {_AGENT}/leases/{{lease}}/inputs/{{number}}": _FILE,
    f"GET {_AGENT}/blobs/{{sha256}}": _FILE,
    f"PATCH {_AGENT}/leases/{{lease}}/log/{{stream}}": {"202": OffsetAnswer, "416": OffsetAnswer},
    f"PUT {_AGENT}/leases/{{lease}}/artifacts": {"200": StoredAnswer, "201": StoredAnswer},
    f"POST {_AGENT}/reports": {"200": ReportsAnswer},
    f"GET {_AGENT}/download": {"200": BYTES},
    f"GET {_AGENT}/download.sha256": {"200": TEXT},
    f"GET {_AGENT}/install.sh": {"200": "text/x-shellscript"},
}

# Problems beyond those that a route's rule, method and parameters tell.
PROBLEMS: Final[Mapping[str, str]] = {
    "401": "The password, secret or token is wrong",
    "403": "Not allowed",
    "404": "It does not exist",
    "409": "The present state does not allow it",
    "410": "It was there, and has ended or has been used up",
    "416": "The range is not within the file",
}
MORE_PROBLEMS: Final[Mapping[str, tuple[str, ...]]] = {
    f"POST {_API}/auth/login": ("401",),
    f"POST {_API}/auth/refresh": ("401",),
    f"POST {_API}/auth/bootstrap": ("401", "410"),
    f"POST {_API}/auth/password-link": ("401", "410"),
    f"GET {_API}/auth/oidc/start": ("404",),
    f"GET {_API}/auth/oidc/callback": ("403", "404", "410"),
    f"POST {_API}/auth/oidc/token": ("401", "403", "404", "410"),
    f"POST {_API}/auth/oidc/link": ("404",),
    f"POST {_API}/auth/oidc/identities": ("404", "410"),
    f"GET {_API}/projects/{{project}}/blobs/{{sha256}}": ("416",),
    f"GET {_API}/artifacts/{{artifact}}/content": ("416",),
    f"POST {_AGENT}/enroll": ("404", "410"),
    f"POST {_AGENT}/token": ("401", "403"),
    f"GET {_AGENT}/leases/{{lease}}/inputs/{{number}}": ("416",),
    f"GET {_AGENT}/blobs/{{sha256}}": ("416",),
}
