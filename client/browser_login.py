"""Waiting for a browser that comes back from an OpenID provider to this machine.

We listen on a free port of the loopback, at a path that nobody can guess. The code that arrives is
of no use without the verifier, which never leaves this process (RFC 8252, RFC 7636).
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from airavata_scheduler.client.errors import NotAllowedError, WaitTimeoutError

_REQUEST_TIMEOUT_S = 5.0
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Airavata Scheduler</title>'
    "<p>{}</p></html>"
)


class BrowserReturn:
    """A listener for one browser, with the verifier of one login."""

    def __init__(self) -> None:
        self.verifier = secrets.token_urlsafe(32)
        self._path = f"/{secrets.token_urlsafe(16)}"
        self._arrived = threading.Event()
        self._said: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def redirect(self) -> str:
        """The address that the browser shall end at."""
        return f"http://127.0.0.1:{self._server.server_port}{self._path}"

    @property
    def challenge(self) -> str:
        """The S256 challenge of `verifier`."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")

    def code(self, timeout_s: float) -> str:
        """The code that the browser brings.

        Raises `NotAllowedError` with the sentence that it brings instead, and `WaitTimeoutError`.
        """
        if not self._arrived.wait(timeout_s):
            raise WaitTimeoutError(
                "Nobody came back from the OpenID provider.",
                hint="Begin again: airavata auth login --oidc",
            )
        if "code" in self._said:
            return self._said["code"]
        raise NotAllowedError(
            self._said.get("error_description") or "The OpenID provider refused the login.",
            code=self._said.get("error"),
            hint=_HINTS.get(self._said.get("error", "")),
        )

    def _take(self, address: str) -> str | None:
        """What to show for a request, None where it is not the one that we wait for."""
        parts = urlsplit(address)
        if not secrets.compare_digest(parts.path.encode(), self._path.encode()):
            return None
        said = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not self._arrived.is_set() and ("code" in said or "error" in said):
            self._said = said
            self._arrived.set()
        if "code" in said:
            return "You can close this window: the command goes on."
        return "The login was refused; the command says why."

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_TIMEOUT_S
            server_version, sys_version = "airavata", ""

            def do_GET(self) -> None:
                """One request of a browser."""
                shown = take(self.path)
                page = _PAGE.format(shown or "Nothing is here.").encode()
                self.send_response(200 if shown else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                """The address has the code in it: nothing is printed."""

        return Handler

    def serve(self) -> None:
        """Answer requests until `close`."""
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


_HINTS = {
    "identity_unknown": "Log in with your password and type: airavata auth link",
    "openid_unavailable": "Try again in a moment, or log in with your password.",
}


@contextmanager
def browser_return() -> Iterator[BrowserReturn]:
    """Listen for the block."""
    listener = BrowserReturn()
    thread = threading.Thread(target=listener.serve, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.close()
        thread.join()


def open_browser(address: str) -> bool:
    """Open the user's browser, if there is a screen; a text browser would take the terminal."""
    has_screen = sys.platform == "darwin" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if not has_screen:
        return False
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
