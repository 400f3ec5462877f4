"""The agent's own log: one structured line an event, no secrets.

    2026-11-23T13:49:05.120Z info lease=… task ended exit_code=0

Secrets that the agent knows (its own, access tokens) are masked in every line, whatever the caller
put into it.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

_ORDER = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_KEEP_BYTES = 8 << 20


class OpLog:
    """Writes lines to a stream; thread-safe. `level` may change while it runs."""

    def __init__(self, level: str = "info", stream: "TextIO | None" = None) -> None:
        self.level = level
        self._stream = stream if stream is not None else sys.stderr
        self._lock = threading.Lock()
        self._secrets: "set[str]" = set()

    def hide(self, secret: str) -> None:
        """Mask `secret` in every later line."""
        if len(secret) >= 8:
            self._secrets.add(secret)

    def say(self, level: str, message: str, **fields: object) -> None:
        """Write one line, ids first: fields in the order given, then the sentence."""
        if _ORDER[level] < _ORDER.get(self.level, 1):
            return
        now = time.time()
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        )
        pairs = "".join(f" {key}={_shown(value)}" for key, value in fields.items())
        line = f"{stamp} {level}{pairs} {_one_line(message)}"
        for secret in tuple(self._secrets):
            line = line.replace(secret, "[hidden]")
        with self._lock:
            try:
                print(line, file=self._stream, flush=True)
            except (OSError, ValueError):
                # The terminal or pipe of the log is gone; the agent's work goes on without it.
                return

    def debug(self, message: str, **fields: object) -> None:
        """For troubleshooting only."""
        self.say("debug", message, **fields)

    def info(self, message: str, **fields: object) -> None:
        """Something that the operator expects happened."""
        self.say("info", message, **fields)

    def warning(self, message: str, **fields: object) -> None:
        """Something works less well than it should."""
        self.say("warning", message, **fields)

    def error(self, message: str, **fields: object) -> None:
        """Something needs a person."""
        self.say("error", message, **fields)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _shown(value: object) -> str:
    text = _one_line(str(value))
    return f'"{text}"' if " " in text or not text else text
