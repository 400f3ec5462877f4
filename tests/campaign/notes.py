"""The campaign's own history: what it did, beside what the processes noted."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path


def now() -> float:
    """Seconds since boot, as in every history."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Notes:
    """One file of the campaign's; threads may share it."""

    def __init__(self, folder: Path, by: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._by = f"{by}-{os.getpid()}"
        self._path = folder / f"{self._by}.jsonl"
        self._lock = threading.Lock()

    def __call__(self, event: str, *, t: float | None = None, **fields: object) -> None:
        """Append an event; it is now, unless `t` says when it began."""
        line = {"t": now() if t is None else t, "by": self._by, "event": event, **fields}
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
