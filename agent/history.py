"""The witness's notes: what this agent did with leases, for a campaign's checker.

Off by default. With `HISTORY_DIR` set, each event is one line of JSON, appended with one `write`
to a file of this process in that folder, so that `kill -9` loses nothing that was noted. The form
is that of the server's history (docs/proof.md): `t` in seconds since boot, `by`, `event`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from airavata_scheduler.agent.framing import compact
from airavata_scheduler.agent.processes import uptime_s


class History:
    """Where events go; nowhere without a folder."""

    def __init__(self, folder: Optional[Path], by: str) -> None:
        """Raises OSError where the folder cannot be written."""
        self._by = f"{by}-{os.getpid()}"
        self._fd = -1
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(folder / f"{self._by}.jsonl", flags, 0o600)

    def note(self, event: str, **fields: object) -> None:
        """Append one event."""
        if self._fd >= 0:
            line = {"t": uptime_s(), "by": self._by, "event": event, **fields}
            os.write(self._fd, compact(line) + b"\n")
