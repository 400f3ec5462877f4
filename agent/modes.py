"""Why the agent takes work or does not: paused, draining, safe mode, low disk."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from airavata_scheduler.agent.machine import free_disk, state_disk_is_low

CRASH_STARTS = 5
CRASH_WINDOW_S = 600.0
_DISK_EVERY_S = 5.0


def is_crash_loop(starts: list[float], now: float) -> bool:
    """Whether the agent died so often lately that it must be dying of something.

    `starts` are the wall-clock seconds of the present start and of those that did not end orderly.
    """
    return sum(1 for at in starts if 0 <= now - at < CRASH_WINDOW_S) >= CRASH_STARTS


class Modes:
    """The switches, each with its own owner: the local person, the server, the agent itself."""

    def __init__(self, disk: Path, state_folder: Path) -> None:
        """Tasks have their folders on `disk`, which need not be the state folder's."""
        self._disk = disk
        self._state_folder = state_folder
        self._checked_at = 0.0
        self._lock = threading.Lock()
        self.free_disk_mb = 0
        self.task_disk_mb = 0  # what is free beyond our reserve; 0 is low
        self.paused_here = False
        self.paused_by_server = False
        self.too_old = False  # for the server, which gives no new work until the upgrade
        self.drained_by_server = False  # stays connected and takes nothing until told otherwise
        self.draining = False  # ends once nothing runs
        self._safe_until = 0.0
        self.listening = threading.Event()  # a session is open
        self.disk_is_low()

    @property
    def safe(self) -> bool:
        """Safe mode: it ends by itself once the agent has lived for as long as crashes count."""
        return time.monotonic() < self._safe_until

    def enter_safe_mode(self) -> None:
        """Take no work until `leave_safe_mode`, or for ten minutes."""
        self._safe_until = time.monotonic() + CRASH_WINDOW_S

    def leave_safe_mode(self) -> None:
        """A person looked at it."""
        self._safe_until = 0.0

    def disk_is_low(self, *, look_now: bool = False) -> bool:
        """Whether too little is free to take work on; looked up at most every 5 s, or now."""
        with self._lock:
            now = time.monotonic()
            if look_now or now - self._checked_at >= _DISK_EVERY_S or not self._checked_at:
                self._checked_at = now
                free, for_tasks = free_disk(self._disk)
                if state_disk_is_low(self._state_folder):
                    for_tasks = 0
                self.free_disk_mb, self.task_disk_mb = free >> 20, for_tasks >> 20
            return self.task_disk_mb == 0

    def takes_work(self) -> bool:
        """Whether a claim may be made."""
        return self.why_not() is None

    def why_not(self) -> str | None:
        """Why no work is taken; None when it is."""
        for condition, reason in (
            (self.draining, "draining"),
            (self.drained_by_server, "drained by the server"),
            (self.too_old, "too old for the server; run `upgrade`"),
            (self.safe, "safe mode after a crash loop"),
            (self.paused_here, "paused by `pause`"),
            (self.paused_by_server, "paused by the server"),
            (self.disk_is_low(), "the disk is nearly full"),
        ):
            if condition:
                return reason
        return None

    def word(self) -> str:
        """The mode in the protocol's words."""
        if self.draining or self.drained_by_server:
            return "draining"
        return "safe" if self.safe else "normal"
