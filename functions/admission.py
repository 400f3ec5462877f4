"""What the API gives up when its threads run short, and in which order.

A process has a fixed number of threads. Whatever waits on purpose (long-polls, event streams, files
on their way to a slow reader) holds some of them and is bounded on its own; of the rest, each class
of requests may use a share. Users' reads are refused first, then claims, logs, starts and users'
writes, at last new sessions and uploads. Heartbeats, reports and access tokens never are: they keep
leases and results, and the last threads are theirs.

A refusal is made before anything else is looked at: no body is read, no token, no row. It costs
tens of microseconds, and names a time to come back that is spread, so that not all come at once.
"""

from __future__ import annotations

import json
import math
import random
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from airavata_scheduler.functions import metrics
from airavata_scheduler.functions.https_only import PROBES
from airavata_scheduler.functions.problems import MEDIA_TYPE, TYPE_PREFIX
from airavata_scheduler.models.errors import Unavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Call = Literal["read", "claim", "log", "start", "write", "session", "upload", "always"]

# The share of the threads that may be at work when such a call is still let in.
LIMITS: Final[dict[Call, float]] = {
    "read": 0.60,
    "claim": 0.70,
    "log": 0.80,
    "start": 0.90,
    "write": 0.90,
    "session": 0.95,
    "upload": 0.95,
    "always": math.inf,
}
# When to come back: somewhere between so many seconds and three times as many.
_RETRY_AFTER_S: Final[dict[Call, int]] = {
    "read": 2,
    "claim": 5,
    "log": 3,
    "start": 2,
    "write": 2,
    "session": 2,
    "upload": 3,
    "always": 1,
}
_SPREAD: Final = 3
_DRAINED_BYTES: Final = 65_536  # a refused body of more is not read to its end: the connection goes
_AGENTS: Final = "/agent/v1/"
_AGENT_CALLS: Final[tuple[tuple[re.Pattern[str], Call], ...]] = (
    (re.compile(r"POST leases/claim"), "claim"),
    (re.compile(r"PATCH leases/[^/]+/log/.*"), "log"),
    (re.compile(r"POST leases/start"), "start"),
    (re.compile(r"GET leases/[^/]+/inputs/.*"), "start"),
    (re.compile(r"GET (blobs/.*|download.*|install\.sh)"), "start"),
    (re.compile(r"POST (session|enroll)"), "session"),
    (re.compile(r"PUT leases/[^/]+/artifacts"), "upload"),
)
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Overloaded(Unavailable):
    """The server has more requests than it can serve now; try again a little later."""

    code = "overloaded"


def call_of(method: str, path: str) -> Call:
    """The class of a request, by its first line alone."""
    if path.startswith(_AGENTS):
        line = f"{method} {path.removeprefix(_AGENTS)}"
        return next((call for form, call in _AGENT_CALLS if form.fullmatch(line)), "always")
    if path in PROBES or path == "/metrics":
        return "always"
    return "read" if method in _READS else "write"


class Load:
    """How many requests this process works on, and how many of its threads wait or send."""

    def __init__(self, threads: int = 32) -> None:
        self._lock = threading.Lock()
        self.threads = threads
        self.working = 0
        self.waiting = 0  # agents' long-polls
        self.aside = 0  # users' waits and streams, files that are sent

    def enter(self, call: Call) -> bool:
        """Count one more at work, if `call` may be added; whether it was."""
        with self._lock:
            room = max(1, self.threads - self.waiting - self.aside)
            if self.working and (self.working + 1) / room > LIMITS[call]:
                return False
            self.working += 1
            return True

    def leave(self) -> None:
        """One that entered has been answered."""
        with self._lock:
            self.working -= 1

    @contextmanager
    def poll(self) -> Iterator[bool]:
        """Hold one of the places for long-polls during the block; whether there was one."""
        with self._lock:
            got = self.waiting < max(1, self.threads // 4)
            if got:
                self.waiting += 1
                self.working -= 1
        try:
            yield got
        finally:
            if got:
                with self._lock:
                    self.waiting -= 1
                    self.working += 1

    @contextmanager
    def stepped_aside(self) -> Iterator[None]:
        """This thread's request waits during the block; it is not work meanwhile."""
        self._move(working=-1, aside=1)
        try:
            yield
        finally:
            self._move(working=1, aside=-1)

    @contextmanager
    def held(self) -> Iterator[None]:
        """This thread sends an answer during the block."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def hold(self) -> None:
        """A thread now sends an answer to whoever reads it, however slowly."""
        self._move(working=0, aside=1)

    def let_go(self) -> None:
        """Such an answer has been sent, or given up."""
        self._move(working=0, aside=-1)

    def _move(self, *, working: int, aside: int) -> None:
        with self._lock:
            self.working += working
            self.aside += aside


load = Load()


def allow(threads: int) -> None:
    """Share out this process's `threads` from now on."""
    load.threads = threads


class Gate:
    """The outermost layer of the application: lets a request in, or refuses it at once."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        call = call_of(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        if not load.enter(call):
            return _refuse(call, environ, start_response)
        try:
            return self._application(environ, start_response)
        finally:
            load.leave()


def _refuse(call: Call, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    metrics.count_shed(call)
    least_s = _RETRY_AFTER_S[call]
    retry_after_s = random.randint(least_s, least_s * _SPREAD)  # noqa: S311  only spreads load
    request_id = secrets.token_hex(8)
    body = json.dumps(_problem(retry_after_s, request_id)).encode()
    headers = [
        ("Content-Type", MEDIA_TYPE),
        ("Content-Length", str(len(body))),
        ("Retry-After", str(retry_after_s)),
        ("X-Request-Id", request_id),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ]
    if _has_long_body(environ):
        headers.append(("Connection", "close"))
    start_response("503 Service Unavailable", headers)
    return [body]


def _problem(retry_after_s: int, request_id: str) -> dict[str, Any]:
    return {
        "type": TYPE_PREFIX + Overloaded.code,
        "title": "Service Unavailable",
        "status": 503,
        "detail": Overloaded.__doc__,
        "code": Overloaded.code,
        "hint": f"Send the same request again in {retry_after_s} s.",
        "request_id": request_id,
    }


def _has_long_body(environ: WSGIEnvironment) -> bool:
    length = environ.get("CONTENT_LENGTH") or "0"
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    return chunked or not length.isdigit() or int(length) > _DRAINED_BYTES
