"""A proxy before an HTTPS server that loses a request, or the answer to one."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx

_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}


@dataclass(kw_only=True)
class LossyProxy:
    """Forwards to `target`; `lose` is what happens to the next request that has `path` in it."""

    target: str
    ca_file: str
    path: str = ""
    lose: Literal["nothing", "request", "answer"] = "nothing"
    lost: list[str] = field(default_factory=list)
    address: str = ""

    @contextmanager
    def running(self) -> Iterator[LossyProxy]:
        """Listen on a port of the loopback interface for the block."""
        trust = ssl.create_default_context(cafile=self.ca_file)
        with httpx.Client(base_url=self.target, verify=trust, timeout=20) as client:
            server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(client))
            self.address = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                server.server_close()
                thread.join()

    def _handler(self, client: httpx.Client) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                how = proxy._how(self.command, self.path)
                self.close_connection = True
                if how == "request":
                    return
                sent = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in _HOP_BY_HOP
                }
                answer = client.request(self.command, self.path, headers=sent, content=body)
                if how == "answer":
                    return
                self.send_response(answer.status_code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        for method in ("GET", "POST", "PUT", "DELETE", "LIST"):
            setattr(Handler, f"do_{method}", Handler._forward)
        return Handler

    def _how(self, method: str, path: str) -> str:
        if self.lose == "nothing" or method == "GET" or self.path not in path:
            return "nothing"
        how, self.lose = self.lose, "nothing"
        self.lost.append(f"{how} {method} {path}")
        return how
