"""The calls of `/agent/v1`, with their retries, the access token and the session.

A call ends in one of four ways: its answer; Refused (a problem that a retry does not mend); one of
Revoked, Superseded, NotAllowed (the agent must end); Stopping (the agent was asked to stop).
"""

from __future__ import annotations

import hashlib
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from typing import IO, Any

from airavata_scheduler.agent.answers import is_answer
from airavata_scheduler.agent.backoff import BackOff, may_retry, retry_after_s
from airavata_scheduler.agent.faults import (
    AgentFault,
    NotAllowed,
    Refused,
    Revoked,
    SessionLost,
    Stopping,
    Superseded,
    Unreachable,
)
from airavata_scheduler.agent.framing import compact
from airavata_scheduler.agent.oplog import OpLog
from airavata_scheduler.agent.transport import Answer, Interrupt, Lost, Transport

BASE = "/agent/v1"
Json = dict[str, Any]
_RENEW_BEFORE_S = 60.0
_ENDS = {
    "agent_revoked": Revoked,
    "agent_unknown": Revoked,
    "session_superseded": Superseded,
    "session_expired": SessionLost,
    "session_ended": SessionLost,
    "session_unknown": SessionLost,
    "session_missing": SessionLost,
}
# `token_invalid` too: whoever judged it had another clock or key than whoever issued it.
_ENDED_TOKENS = ("token_expired", "token_invalid")
# These calls speak of the session as a whole: their loops must see that it ended.
_OF_THE_SESSION = ("/leases/claim", "/reports", "/heartbeat", "/session")


def content_digest(data: bytes) -> str:
    """The Content-Digest header (RFC 9530) of `data`."""
    return digest_header(hashlib.sha256(data).digest())


def digest_header(sha256: bytes) -> str:
    """The Content-Digest header for a digest that is known already."""
    return f"sha-256=:{b64encode(sha256).decode()}:"


class Api:
    """The client. Thread-safe: each loop calls it from its own thread."""

    def __init__(self, transport: Transport, log: OpLog, stop: threading.Event) -> None:
        self._transport = transport
        self._log = log
        self._stop = stop
        self._token_lock = threading.Lock()
        self._token = ""
        self._token_until = 0.0
        self._ask_token: Callable[[], Json] | None = None
        self.session_id = ""
        self.renew_session: Callable[[str], None] | None = None
        self.reached_at: float | None = None
        self.trouble = ""

    def use_identity(self, agent_id: str, secrets: Callable[[], list[str]]) -> None:
        """Sign calls for `agent_id`; `secrets` gives its secret, and the next one when rotating."""

        def ask() -> Json:
            refusal: AgentFault = NotAllowed("This agent has no secret; enrol it again.")
            for secret in secrets():
                body = {"agent_id": agent_id, "secret": secret}
                try:
                    return self.plain("POST", "/token", body, tries=3)
                except (Refused, Revoked) as error:
                    refusal = error
            raise refusal

        self._ask_token = ask

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def token_answer(self) -> Json:
        """Ask for an access token now; the answer also tells the agent's state."""
        if self._ask_token is None:
            raise NotAllowed("No identity is in use; enrol first.")
        answer = self._ask_token()
        with self._token_lock:
            self._token = str(answer.get("access_token", ""))
            self._token_until = time.monotonic() + float(answer.get("expires_in", 600))
        self._log.hide(self._token)
        return answer

    def post(self, path: str, body: Json, **how: Any) -> Json:
        """POST JSON, return JSON. See `call` for `how`."""
        return self.call("POST", path, body=compact(body), kind="application/json", **how).json()

    def get(self, path: str, **how: Any) -> Json:
        """GET JSON."""
        return self.call("GET", path, **how).json()

    def plain(self, method: str, path: str, body: Json, *, tries: int = 0) -> Json:
        """A call without an access token (`/enroll`, `/token`); `tries` 0: until it answers."""
        return self._persist(
            lambda: self._transport.request(
                method,
                BASE + path,
                body=compact(body),
                headers={"Content-Type": "application/json"},
            ),
            path,
            tries=tries,
        ).json()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Callable[[], IO[bytes]] | None = None,
        kind: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
        tries: int = 0,
        interrupt: Interrupt | None = None,
        sink: IO[bytes] | None = None,
        accept: tuple[int, ...] = (),
        patience_s: float | None = None,
    ) -> Answer:
        """One call with retries until it answers or the agent stops.

        `tries` and `patience_s` bound them (0 and None: no bound); Unreachable is raised then.

        A body that is too large for memory is a function that opens its file anew for each try.
        Statuses in `accept` are answers, not problems.
        """

        used = ""

        def once() -> Answer:
            nonlocal used
            used = self.session_id
            content = body() if callable(body) else body
            all_headers = {"Authorization": f"Bearer {self._access_token()}", **(headers or {})}
            if used:
                all_headers["X-Agent-Session"] = used
            if content is not None:
                all_headers["Content-Type"] = kind
            if sink is not None:
                sink.seek(0)
                sink.truncate()
            try:
                return self._transport.request(
                    method,
                    BASE + path,
                    body=content,
                    headers=all_headers,
                    timeout_s=timeout_s,
                    interrupt=interrupt,
                    sink=sink,
                )
            finally:
                if content is not None and not isinstance(content, bytes):
                    content.close()

        until = None if patience_s is None else time.monotonic() + patience_s
        while True:
            try:
                return self._persist(
                    once, path, tries=tries, accept=accept, interrupt=interrupt, until=until
                )
            except SessionLost as lost:
                lost.session_id = used
                if self.renew_session is None or path.startswith(_OF_THE_SESSION):
                    raise
                self.renew_session(used)

    def _access_token(self) -> str:
        with self._token_lock:
            if self._token and time.monotonic() < self._token_until - _RENEW_BEFORE_S:
                return self._token
        self.token_answer()
        return self._token

    def _persist(
        self,
        once: Callable[[], Answer],
        path: str,
        *,
        tries: int = 0,
        accept: tuple[int, ...] = (),
        interrupt: Interrupt | None = None,
        until: float | None = None,
    ) -> Answer:
        backoff = BackOff()
        renewals = 3
        attempt = 0
        while True:
            attempt += 1
            asked: float | None = None
            try:
                answer = once()
            except (Lost, Unreachable) as error:
                reason = str(error)
                if interrupt is not None and interrupt.raised:
                    raise Stopping("the call was cut short") from error
            else:
                self._reached()
                if answer.status < 400 or answer.status in accept:
                    if is_answer(path, answer.json()):
                        return answer
                    reason = f"{answer.status} with something that is no answer of this API"
                else:
                    problem = _problem(answer)
                    if problem.code in _ENDED_TOKENS and renewals:
                        renewals -= 1
                        self._forget_token()
                        continue
                    if not may_retry(answer.status):
                        raise problem
                    reason = f"{answer.status} {problem.code}"
                asked = retry_after_s(answer.headers.get("Retry-After"), time.time())
            self._wait(path, reason, backoff.next_s(asked), last=_is_last(attempt, tries, until))

    def _wait(self, path: str, reason: str, seconds: float, *, last: bool) -> None:
        self.trouble = reason
        if last:
            raise Unreachable(f"{path}: {reason}.")
        self._log.warning(f"{path}: {reason}; next try in {seconds:.1f} s")
        if self._stop.wait(seconds):
            raise Stopping(f"{path}: stopped while it was tried again ({reason})")

    def _reached(self) -> None:
        self.reached_at = time.monotonic()
        self.trouble = ""

    def _forget_token(self) -> None:
        with self._token_lock:
            self._token = ""


def _is_last(attempt: int, tries: int, until: float | None) -> bool:
    return bool(tries and attempt >= tries) or (until is not None and time.monotonic() >= until)


def _problem(answer: Answer) -> Any:
    document = answer.json()
    code = str(document.get("code") or f"http_{answer.status}")
    detail = str(
        document.get("detail") or document.get("title") or f"The API answered {answer.status}"
    )
    hint = document.get("hint")
    if hint:
        detail = f"{detail} {hint}"
    ending = _ENDS.get(code)
    if ending is not None:
        return ending(detail)
    return Refused(answer.status, code, detail, document)
