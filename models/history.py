"""The witness's notes: what this process did with leases, for a campaign's checker.

Off by default. With `HISTORY_DIR` set, each process appends one line of JSON an event to a file of
its own in that folder, with one `write` each, so that `kill -9` of the process loses nothing that
was noted. Outside our stores on purpose: what a database forgot, this still knows.

An event that follows a commit carries `began`, the time before its transaction: the commit lies
somewhere between `began` and `t`. Times are seconds since boot, which all processes of a machine
share and which no clock change moves. docs/proof.md lists the events.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any


class _History:
    """Where this process notes; nowhere without a folder."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by = ""
        self._opened: tuple[int, int] | None = None  # (pid, descriptor): a fork opens its own
        self.folder: Path | None = None

    def keep(self, folder: Path | None, by: str) -> None:
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                os.close(self._opened[1])
            self.folder, self._by, self._opened = folder, by, None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def append(self, folder: Path, event: dict[str, Any]) -> None:
        by = f"{self._by}-{os.getpid()}"
        line = json.dumps({"t": now(), "by": by, **event}, separators=(",", ":"))
        os.write(self._descriptor(folder / f"{by}.jsonl"), line.encode() + b"\n")

    def _descriptor(self, path: Path) -> int:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._opened = (os.getpid(), os.open(path, flags, 0o600))
            return self._opened[1]


_history = _History()


def keep(folder: Path | None, by: str) -> None:
    """Write the history of this process, called `by`, below `folder`; None: write none."""
    _history.keep(folder, by)


def now() -> float:
    """Seconds since boot; what `began` is taken from. 0 where no history is kept."""
    return 0.0 if _history.folder is None else time.clock_gettime(time.CLOCK_BOOTTIME)


def note(event: str, **fields: Any) -> None:
    """Append one event. Costs one comparison where no history is kept."""
    if _history.folder is not None:
        _history.append(_history.folder, {"event": event, **fields})
