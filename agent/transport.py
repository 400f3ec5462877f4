"""HTTP to one origin over kept-alive connections: proxy, TLS (always verified), timeouts.

One request at a time per connection; the most recently used one is taken first, so that an idle
agent holds a single connection.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from airavata_scheduler.agent.faults import BadSetting

_IDLE_S = 50.0  # common proxies close idle connections after 60 s
_SURPLUS_S = 5.0  # more than one is kept only while there is traffic for it
_CONNECT_S = 15.0


class Lost(Exception):
    """No answer came; whether the request had its effect is unknown. The text says why."""


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> dict[str, Any]:
        """The object in the body; an empty one when there is none. Read once, then kept."""
        return self._document

    @cached_property
    def _document(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body or b"{}")
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class Interrupt:
    """Lets another thread cut a call short that waits for the server (a long-poll)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.raised = False

    def watch(self, sock: socket.socket | None) -> None:
        """The call now waits on `sock` (None: it ended)."""
        with self._lock:
            self._socket = sock
            if sock is not None and self.raised:
                _shut(sock)

    def cut(self) -> None:
        """End the call; it raises Lost."""
        with self._lock:
            self.raised = True
            if self._socket is not None:
                _shut(self._socket)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class _Question:
    method: str
    path: str
    body: bytes | IO[bytes] | None
    headers: dict[str, str]
    interrupt: Interrupt | None
    sink: IO[bytes] | None


class Transport:
    """Connections to the origin of `url`. Thread-safe."""

    def __init__(self, url: str, *, ca_bundle: Path | None = None, version: str = "") -> None:
        """`url` is the API's address, perhaps with a path; BadSetting for a bad bundle."""
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._proxy = _proxy_for(self._scheme, self._host)
        self._agent = f"airavata-agent/{version}"
        self._lock = threading.Lock()
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        self._tls: ssl.SSLContext | None = None
        if self._scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=str(ca_bundle) if ca_bundle else None)
            except (OSError, ssl.SSLError) as error:
                raise BadSetting(f"The CA bundle {ca_bundle} cannot be read: {error}.") from error

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
        interrupt: Interrupt | None = None,
        sink: IO[bytes] | None = None,
    ) -> Answer:
        """Send one request and read the whole answer; raises Lost when none comes.

        With `sink` the body of a 200 is written there instead of kept in memory. A kept connection
        that the other side had closed meanwhile is replaced once without a word: every write of
        this protocol is idempotent by its key.
        """
        question = _Question(method, path, body, headers or {}, interrupt, sink)
        connection, reused = self._take(timeout_s)
        try:
            return self._once(connection, question)
        except (ConnectionError, http.client.BadStatusLine, http.client.CannotSendRequest) as error:
            connection.close()
            if not reused or (interrupt is not None and interrupt.raised) or _spent(body):
                raise Lost(_reason(error)) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Lost(_reason(error)) from error
        fresh = self._open(timeout_s)
        try:
            return self._once(fresh, question)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            raise Lost(_reason(error)) from error

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _once(self, connection: http.client.HTTPConnection, question: _Question) -> Answer:
        interrupt = question.interrupt
        if connection.sock is None:
            connection.connect()
        if interrupt is not None:
            interrupt.watch(connection.sock)
        try:
            connection.request(
                question.method,
                self._target(question.path),
                body=question.body,
                headers={"User-Agent": self._agent, **self._proxy_headers(), **question.headers},
            )
            response = connection.getresponse()
            content = _drain(response, question.sink)
        finally:
            if interrupt is not None:
                interrupt.watch(None)
        self._give_back(connection, keep=not response.will_close)
        return Answer(response.status, response.headers, content)

    def _take(self, timeout_s: float) -> tuple[http.client.HTTPConnection, bool]:
        now = time.monotonic()
        with self._lock:
            # In the order of their last use; the newest is the one that an idle agent stays on.
            fresh = [item for item in self._idle[:-1] if now - item[1] < _SURPLUS_S]
            fresh += [item for item in self._idle[-1:] if now - item[1] < _IDLE_S]
            stale = [item for item in self._idle if item not in fresh]
            self._idle = fresh
            found = fresh.pop()[0] if fresh else None
        for connection, _ in stale:
            connection.close()
        if found is None:
            return self._open(timeout_s), False
        found.timeout = timeout_s
        if found.sock is not None:
            found.sock.settimeout(timeout_s)
        return found, True

    def _give_back(self, connection: http.client.HTTPConnection, *, keep: bool) -> None:
        if not keep:
            connection.close()
            return
        with self._lock:
            self._idle.append((connection, time.monotonic()))

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._host, self._port
        if self._proxy is not None:
            host, port = self._proxy.hostname or "", self._proxy.port or 3128
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        if self._proxy is not None:
            connection.set_tunnel(self._host, self._port, headers=self._credentials())
        return connection

    def _target(self, path: str) -> str:
        if self._proxy is not None and self._scheme == "http":
            return f"http://{self._host}:{self._port}{self._prefix}{path}"
        return self._prefix + path

    def _proxy_headers(self) -> dict[str, str]:
        return self._credentials() if self._proxy is not None and self._scheme == "http" else {}

    def _credentials(self) -> dict[str, str]:
        if self._proxy is None or not self._proxy.username:
            return {}
        pair = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return {"Proxy-Authorization": "Basic " + b64encode(pair.encode()).decode()}


def proxy_address(scheme: str, host: str) -> str | None:
    """The proxy that the environment (HTTPS_PROXY, NO_PROXY) names for `host`; None without one."""
    address = urllib.request.getproxies_environment().get(scheme)
    # The type stubs know this function for one other system only.
    bypass: Callable[[str], bool] = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    return None if not address or bypass(host) else address


def _proxy_for(scheme: str, host: str) -> Any:
    address = proxy_address(scheme, host)
    if address is None:
        return None
    return urlsplit(address if "://" in address else "http://" + address)


def _drain(response: http.client.HTTPResponse, sink: IO[bytes] | None) -> bytes:
    if sink is None or response.status != 200:
        return response.read()
    while True:
        piece = response.read(1 << 20)
        if not piece:
            return b""
        sink.write(piece)


def _spent(body: bytes | IO[bytes] | None) -> bool:
    """Whether the body was a file that has been read already."""
    return body is not None and not isinstance(body, bytes)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the API is not trusted ({error.verify_message})"
    if isinstance(error, socket.gaierror):
        return f"the API's host name does not resolve ({error.strerror})"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "the API did not answer in time"
    return str(error) or type(error).__name__
