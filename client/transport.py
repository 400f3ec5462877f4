"""One HTTP request with its retries: the only place of the client that sends anything.

Every POST carries an `Idempotency-Key` that stays the same over its retries, so that a request
whose answer was lost does its work once. One predicate decides what is sent again.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from airavata_scheduler.client import errors
from airavata_scheduler.client.errors import ClientError, UnreachableError, from_problem
from airavata_scheduler.client.json_body import encoded
from airavata_scheduler.client.profile import TokenSource
from airavata_scheduler.client.retries import RETRY_FOR_S, may_retry, wait_before

API = "/api/v1"
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
_SILENT_FOR_S = 3.0  # a person is not told of a shorter wait


class Transport:
    """Speaks HTTP to one server as one user. Threads may share it.

    Requests are repeated for `retry_for_s` seconds, `away_for_s` where nobody ever answered.
    `on_wait` is told once, where that takes longer than a moment, what is being waited for.
    `http` replaces the network in tests; `sleep` and `clock` replace time there.
    """

    def __init__(
        self,
        server: str,
        tokens: TokenSource | None = None,
        *,
        http: httpx.BaseTransport | None = None,
        retry_for_s: float = RETRY_FOR_S,
        away_for_s: float | None = None,
        on_wait: Callable[[ClientError], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server.rstrip("/")
        self._tokens = tokens
        self._retry_for_s = retry_for_s
        # A server that never answered is more likely not there at all, or named wrongly, than busy
        # or being restarted: a person at a prompt is told soon.
        self._away_for_s = retry_for_s if away_for_s is None else min(away_for_s, retry_for_s)
        self._on_wait = on_wait
        self._sleep = sleep
        self._clock = clock
        self._has_answered = False
        self._client = httpx.Client(
            base_url=self.server,
            transport=http,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            headers={"User-Agent": "airavata-client/0.1", "Accept": "application/json"},
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, /, **query: Any) -> Any:
        """The JSON that a GET answers; `query` values that are None are left out."""
        return self.call("GET", path, query=query)

    def post(self, path: str, /, body: Any = None, *, timeout_s: float = 0.0, **query: Any) -> Any:
        """The JSON that a POST answers. `timeout_s` is added to the usual wait (for long polls)."""
        return self.call(
            "POST", path, body=body if body is not None else {}, query=query, timeout_s=timeout_s
        )

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.0,
    ) -> Any:
        """Send one request, with retries; return the decoded JSON, None for an empty answer.

        Raises the `ClientError` of the answer's problem, or `UnreachableError`.
        """
        options: dict[str, Any] = {"json": body} if body is not None else {}
        if timeout_s:
            options["timeout"] = httpx.Timeout(
                ANSWER_TIMEOUT_S + timeout_s, connect=CONNECT_TIMEOUT_S
            )
        response = self.send(method, path, query=query, headers=headers, **options)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise UnreachableError(
                f"{self.server} does not answer like an Airavata Scheduler.",
                reason=f"{path} gave {response.headers.get('Content-Type')} instead of JSON.",
                hint="Check the address: airavata config get server",
            ) from error

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        authenticated: bool = True,
        **options: Any,
    ) -> httpx.Response:
        """Send one request, with retries, and read the whole answer (status < 400)."""
        with self.stream(
            method, path, query=query, headers=headers, authenticated=authenticated, **options
        ) as response:
            response.read()
            return response

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        authenticated: bool = True,
        **options: Any,
    ) -> Iterator[httpx.Response]:
        """Send one request, with retries until the answer's head is there.

        The body is the caller's to read.
        """
        all_headers = dict(headers or {})
        if "json" in options:
            options["content"] = encoded(options.pop("json"))
            all_headers["Content-Type"] = "application/json"
        if method == "POST":
            all_headers.setdefault("Idempotency-Key", str(uuid.uuid4()))
        options["params"] = {
            name: value for name, value in (query or {}).items() if value is not None
        }
        token = self._token() if authenticated else None
        refreshed = False
        while True:
            if token:
                all_headers["Authorization"] = f"Bearer {token}"
            response = self._answered(method, self._url(path), all_headers, options)
            if response.status_code == 401 and authenticated and not refreshed:
                refreshed = True
                newer = (
                    self._tokens.after_refusal(token, self._refresh)
                    if self._tokens is not None
                    else None
                )
                if newer is not None and newer != token:
                    response.close()
                    token = newer
                    continue
            break
        try:
            if response.status_code >= 400:
                response.read()
                raise from_problem(response.status_code, _problem(response))
            try:
                yield response
            except httpx.TransportError as error:
                raise self._unreachable(error) from error
        finally:
            response.close()

    def _answered(
        self, method: str, url: str, headers: Mapping[str, str], options: dict[str, Any]
    ) -> httpx.Response:
        """Try until an answer may be kept, or the time for retries is used up."""
        repeatable = method != "POST" or "Idempotency-Key" in headers
        started = self._clock()
        attempt, is_told = 0, False
        while True:
            outcome = self._try(method, url, headers, dict(options))
            kept = isinstance(outcome, httpx.Response) and outcome.status_code < 400
            wait_s = wait_before(attempt, outcome, random.random)
            waited_s = self._clock() - started + wait_s
            over = waited_s > self._patience_s(outcome)
            if kept or over or not may_retry(outcome, repeatable=repeatable):
                if isinstance(outcome, httpx.Response):
                    return outcome
                raise self._unreachable(outcome) from outcome
            if waited_s > _SILENT_FOR_S and not is_told:
                is_told = True
                self._on_wait(self._refusal(outcome))
            if isinstance(outcome, httpx.Response):
                outcome.close()
            self._sleep(wait_s)
            attempt += 1

    def _refusal(self, outcome: httpx.Response | httpx.TransportError) -> ClientError:
        """What `outcome` would be for the caller, were it the last one."""
        if not isinstance(outcome, httpx.Response):
            return self._unreachable(outcome)
        with contextlib.suppress(httpx.TransportError):
            outcome.read()
        known = _problem(outcome) if outcome.is_stream_consumed else {}
        return from_problem(outcome.status_code, known)

    def _patience_s(self, outcome: httpx.Response | httpx.TransportError) -> float:
        """For how long in all to try again after `outcome`."""
        self._has_answered = self._has_answered or isinstance(outcome, httpx.Response)
        return self._retry_for_s if self._has_answered else self._away_for_s

    def _try(
        self, method: str, url: str, headers: Mapping[str, str], options: dict[str, Any]
    ) -> httpx.Response | httpx.TransportError:
        content = options.get("content")
        if callable(content):  # a body that is read from a file is opened anew for each try
            options["content"] = content()
        try:
            request = self._client.build_request(method, url, headers=headers, **options)
            return self._client.send(request, stream=True)
        except httpx.TransportError as error:
            return error
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise errors.BadInputError(
                f"A name in the request cannot be sent: {_first_line(error)}.",
                hint="Correct the name.",
            ) from error

    def _token(self) -> str | None:
        return None if self._tokens is None else self._tokens.current(self._refresh)

    def _refresh(self, refresh_token: str) -> Mapping[str, Any]:
        """Rotate the refresh token. Only the holder of the profile's lock comes here."""
        response = self.send(
            "POST", "/auth/refresh", authenticated=False, json={"refresh_token": refresh_token}
        )
        answer: Mapping[str, Any] = response.json()
        return answer

    def _url(self, path: str) -> str:
        """Paths are below /api/v1; one that starts with // is below the server's root."""
        return path[1:] if path.startswith("//") else API + path

    def _unreachable(self, error: httpx.TransportError) -> ClientError:
        waited = isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        )
        return UnreachableError(
            f"Cannot reach the server at {self.server}.",
            reason="It did not answer in time." if waited else f"{_first_line(error)}.",
            hint="Is it running? Start one here: airavata-scheduler local. "
            "Another address: airavata config set server URL",
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".")


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    """The answer's problem details; {} where a proxy answered with something else."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, Mapping) else {}
