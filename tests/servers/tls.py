"""An HTTPS server within the test's process that looks at tokens and client certificates.

It answers as a Kubernetes API does: `/api` with 200 for who is known, 401 for who is not, 403 for
strangers without any credential.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.credentials import Authority, authority, key, key_pem

TOKEN = "eyToken-of-jane-0123456789-abcdef"
STATUSES = {"/moved": 302, "/forbidden": 403, "/broken": 500, "/missing": 404, "/continue": 308}


@dataclass
class TLSServer:
    """A running server; `requests` are (path, Authorization, subject of the client)."""

    port: int
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    @property
    def target(self) -> str:
        """Its address by name."""
        return f"https://127.0.0.1:{self.port}"


class _Server(ThreadingHTTPServer):
    context: ssl.SSLContext
    seen: TLSServer

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(20)
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except OSError:
            return

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some tests are about."""


class _Asked(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        certificate = self.connection.getpeercert()
        subject = certificate["subject"][0][0][1] if certificate else None
        token = self.headers["Authorization"]
        self.server.seen.requests.append((self.path, token, subject))
        status = STATUSES.get(self.path) or self._status(token, subject)
        body = b"system:anonymous may not" if token is None and subject is None else b"{}"
        self.send_response(status)
        if status in (302, 308):
            self.send_header("Location", f"{self.server.seen.target}/api")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _status(self, token: str | None, subject: str | None) -> int:
        if token is None and subject is None:
            return 403
        return 200 if token == f"Bearer {TOKEN}" or (token is None and subject == "jane") else 401

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's own name
        """No lines among the tests' own."""


@contextmanager
def tls_server(
    folder: Path, *, names: tuple[str, ...] = ("127.0.0.1",), by: Authority | None = None,
    client_certificates: ssl.VerifyMode = ssl.CERT_OPTIONAL,
) -> Iterator[TLSServer]:  # fmt: skip
    """A server with a certificate for `names`, signed by `by` or the tests' authority."""
    certificate = (by or authority()).sign(key("p384").public_key(), "server", *names)
    (folder / "server.pem").write_text(certificate + key_pem("p384"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(cadata=authority().pem)
    context.verify_mode = client_certificates
    with _Server(("127.0.0.1", 0), _Asked) as server:
        server.context = context
        server.seen = TLSServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.seen
        finally:
            server.shutdown()
            thread.join()
