"""A user who keeps asking while the database is in trouble, and notes every answer.

What they may see is the work done, or 503 with `Retry-After` and a stable code; never a 500, never
the words of a driver, and never silence.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

from airavata_scheduler.client.errors import ClientError
from tests.campaign.site import PROJECT, Site

ANSWERS_WITHIN_S = 40.0  # POOL_WAIT_S and a lost connection's second try, on a busy machine
_PAUSE_S = 0.2
_LEAKS = ("Traceback", "psycopg2", "pymysql", "sqlite3", "peewee", "SELECT ", "UPDATE ")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of the API, as it came over the wire."""

    method: str
    path: str
    status: int
    code: str | None
    retry_after: str | None
    seconds: float
    text: str

    @property
    def is_as_promised(self) -> bool:
        """Whether a user can do something with it."""
        refused = self.status == 503 and self.code is not None and bool(self.retry_after)
        told = not any(word in self.text for word in _LEAKS)
        return (self.status < 400 or refused) and told and self.seconds < ANSWERS_WITHIN_S


class _Recorder(httpx.HTTPTransport):
    """The network, with notes."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Answer] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, read the whole answer and note it."""
        began = time.monotonic()
        response = super().handle_request(request)
        response.read()
        seconds = time.monotonic() - began
        is_problem = "problem+json" in response.headers.get("Content-Type", "")
        self.answers.append(
            Answer(
                method=request.method,
                path=request.url.path,
                status=response.status_code,
                code=response.json().get("code") if is_problem else None,
                retry_after=response.headers.get("Retry-After"),
                seconds=seconds,
                text=response.text if response.status_code >= 400 else "",
            )
        )
        return response


@dataclass(kw_only=True)
class Visitor:
    """One user in a thread of their own; `with` it they come, after it they are gone.

    `writes`: every other request is a call of the function `square`.
    """

    site: Site
    writes: bool
    calls: dict[str, int] = field(default_factory=dict)  # the calls that were accepted
    errors: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._recorder = _Recorder()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._visit, name="visitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()

    @property
    def answers(self) -> list[Answer]:
        """Every answer so far, retried ones too."""
        return list(self._recorder.answers)

    @property
    def surprises(self) -> list[Answer]:
        """The answers that no user should ever get."""
        return [answer for answer in self.answers if not answer.is_as_promised]

    def refusals(self) -> set[str]:
        """The codes of all that was refused."""
        return {str(answer.code) for answer in self.answers if answer.status == 503}

    def _visit(self) -> None:
        number = 0
        with self.site.client(http=self._recorder) as client:
            while not self._stop.wait(_PAUSE_S):
                number += 1
                try:
                    client.transport.get("/experiments", limit=1)
                    if self.writes:
                        body = {"arguments": {"number": number, "ledger": str(self.site.ledger)}}
                        made = client.calls.create("square", body, project=PROJECT)
                        self.calls[str(made.id)] = number
                except ClientError as error:
                    self.errors.append(str(error))
