"""A proxy before an HTTP server that does to requests and answers what networks do.

request     it is lost on the way there; the line breaks
answer      it is carried out, and its answer is lost
truncated   half of the answer comes, then the line breaks
late        the line breaks at once, and the request arrives after others that were sent later
twice       it arrives again after its answer was given
slow        there and back take a while
"""

from __future__ import annotations

import random
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args

import httpx

How = Literal["nothing", "request", "answer", "truncated", "late", "twice", "slow"]
FAULTS: tuple[How, ...] = tuple(how for how in get_args(How) if how != "nothing")
_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}
_OURS = _HOP_BY_HOP | {"content-encoding", "date", "server", "keep-alive"}
_LONGEST_S = 60.0  # longer than any long-poll


def at_random(seed: int, share: float) -> Callable[[], How]:
    """Some fault for this share of the requests, from a seed."""
    dice, lock = random.Random(seed), threading.Lock()

    def choose() -> How:
        with lock:
            return dice.choice(FAULTS) if dice.random() < share else "nothing"

    return choose


@dataclass(kw_only=True)
class LossyProxy:
    """Forwards to `target`. The next request that has `path` in it and is no GET suffers `lose`;
    every other request suffers what `choose` says."""

    target: str
    ca_file: str = ""
    path: str = ""
    lose: How = "nothing"
    choose: Callable[[], How] = lambda: "nothing"
    delay_s: float = 0.5  # of what is slow or late
    host: str = "127.0.0.1"
    lost: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # of what was suffered
    address: str = ""
    _ending: threading.Event = field(default_factory=threading.Event)
    _late: list[threading.Thread] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[LossyProxy]:
        """Listen on a port of `host` for the block."""
        trust = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        with httpx.Client(
            base_url=self.target, verify=trust, timeout=_LONGEST_S, limits=limits
        ) as client:
            server = ThreadingHTTPServer((self.host, 0), self._handler(client))
            self.address = f"http://{self.host}:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                self._ending.set()
                server.shutdown()
                server.server_close()
                thread.join()
                for late in self._late:
                    late.join()

    def _handler(self, client: httpx.Client) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                how = proxy._how(self.command, self.path)
                self.close_connection = True
                sent = _without(dict(self.headers.items()), _HOP_BY_HOP)

                def send() -> httpx.Response:
                    return client.request(self.command, self.path, headers=sent, content=body)

                # The server is away, or the agent is: a broken line either way.
                with suppress(httpx.TransportError, OSError):
                    proxy._carry(how, send, self._answer)

            def _answer(self, answer: httpx.Response, share: float) -> None:
                self.send_response(answer.status_code)
                for name, value in _without(answer.headers, _OURS).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content[: int(len(answer.content) * share)])

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "LIST"):
            setattr(Handler, f"do_{method}", Handler._forward)
        return Handler

    def _carry(
        self,
        how: How,
        send: Callable[[], httpx.Response],
        answer: Callable[[httpx.Response, float], None],
    ) -> None:
        if how == "request":
            return
        if how == "late":
            self._send_late(send)
            return
        if how == "slow":
            self._ending.wait(self.delay_s)
        found = send()
        if how == "slow":
            self._ending.wait(self.delay_s)
        if how != "answer":
            answer(found, 0.5 if how == "truncated" else 1.0)
        if how == "twice":
            self._send_late(send)

    def _send_late(self, send: Callable[[], httpx.Response]) -> None:
        def later() -> None:
            self._ending.wait(self.delay_s)
            with suppress(httpx.TransportError):
                send()

        thread = threading.Thread(target=later, daemon=True)
        self._late.append(thread)
        thread.start()

    def _how(self, method: str, path: str) -> How:
        if self.lose == "nothing" or method == "GET" or self.path not in path:
            how = self.choose()
        else:
            how, self.lose = self.lose, "nothing"
            self.lost.append(f"{how} {method} {path}")
        self.counts[how] += 1
        return how


def _without(headers: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in names}
