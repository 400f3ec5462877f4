"""Who sends what a machine made up: a layer of WSGI that puts a valid token on every request."""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from airavata_scheduler.models.database import connected
from tests.api import Api, LoggedIn
from tests.bad_input.world import World
from tests.wire_agent import BASE, Wire

_log = logging.getLogger(__name__)

# So many requests, and everybody is somebody new: whom a request has locked out is not missed.
RENEWED_EVERY = 500


@dataclass(kw_only=True)
class Cast:
    """The administrator asks most, a member of a project often, somebody without a token seldom.

    Who it is follows from the request itself, so the same request comes from the same one. Whoever
    is told 401 is somebody new the next time: a request may have ended their login.
    """

    api: Api
    user: LoggedIn
    admin: LoggedIn
    agent: Wire
    numbers: count[int] = field(default_factory=lambda: count(1))
    asked: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, api: Api, world: World) -> Cast:
        """The world's people to begin with."""
        return cls(api=api, user=world.ada, admin=world.root, agent=world.agent)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """One request, as a server hands it to the application."""
        self.asked += 1
        if self.asked % RENEWED_EVERY == 0:
            _log.info("%d requests: %s", self.asked, dict(sorted(self.statuses.items())))
            self._renew_all()
        who = self._authorize(environ)

        told: list[int] = []

        def answered(status: str, headers: Any, failure: Any = None) -> Any:
            told.append(int(status[:3]))
            return start(status, headers, failure)

        answer = self.api.app(environ, answered)
        self.statuses.update(told)
        if 401 in told:
            self._renew(who)
        return answer

    def _authorize(self, environ: dict[str, Any]) -> str:
        if environ["PATH_INFO"].startswith(BASE):
            environ["HTTP_AUTHORIZATION"] = f"Bearer {self.agent.token}"
            environ["HTTP_X_AGENT_SESSION"] = self.agent.session_id
            return "agent"
        lot = zlib.crc32(f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}".encode()) % 16
        if lot == 0:
            environ.pop("HTTP_AUTHORIZATION", None)
            return "nobody"
        who = "user" if lot < 4 else "admin"
        environ["HTTP_AUTHORIZATION"] = f"Bearer {getattr(self, who).token}"
        return who

    def _renew_all(self) -> None:
        for who in ("user", "admin", "agent"):
            self._renew(who)

    def _renew(self, who: str) -> None:
        with connected():
            if who == "user":
                self.user = self.api.user()
            elif who == "admin":
                self.admin = self.api.admin()
            elif who == "agent":
                self.agent = Wire.enrolled(self.api, f"site-{next(self.numbers)}")
