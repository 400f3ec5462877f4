"""Taking folders away: of acknowledged leases at once, of kept ones when their time is over."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.framing import read_json
from airavata_scheduler.agent.loop import Loop

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

_SWEEP_S = 600.0
_LOOK_S = 15.0  # how soon a disk that is nearly full is noticed
_YOUNG_S = 120.0


class TidyLoop(Loop):
    """Removes; never while a lease is held."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "tidy")
        self._done: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._sweep_at = time.monotonic() + 5.0

    def remove_soon(self, lease: str) -> None:
        """The lease is acknowledged and succeeded: nobody needs its folder."""
        self._done.put(lease)

    def wake(self) -> None:
        """The agent stops."""
        self._done.put(None)

    def turn(self) -> None:
        """One folder, or the round over all; more is given up where the disk is nearly full."""
        try:
            lease = self._done.get(
                timeout=min(_LOOK_S, max(0.1, self._sweep_at - time.monotonic()))
            )
        except queue.Empty:
            if time.monotonic() >= self._sweep_at:
                self._sweep_at = time.monotonic() + _SWEEP_S
                self._sweep()
            if self.runtime.modes.disk_is_low():
                self._make_room()
            else:
                self.runtime.journal.keep_ballast()
            return
        if lease is not None:
            self.runtime.places.remove(lease)

    def _sweep(self) -> None:
        runtime = self.runtime
        held = {item.lease for item in runtime.book.all()} | set(runtime.journal.state.entries)
        removed = runtime.places.sweep(held)
        if removed:
            runtime.log.info(f"removed {removed} kept folders whose time is over")
        self._sweep_workers()

    def _make_room(self) -> None:
        """Else an agent whose disk failed tasks have filled would take no work for a day."""
        removed = self.runtime.places.give_up_failed()
        if removed:
            self.runtime.log.warning(
                f"the disk is nearly full: removed {removed} kept folders of failed tasks"
            )

    def _sweep_workers(self) -> None:
        runtime = self.runtime
        used = {entry.worker for entry in runtime.journal.state.entries.values()}
        pool = runtime.folder.path / "pool"
        if not pool.is_dir():
            return
        for folder in list(pool.iterdir()):
            if folder.name not in runtime.pool.workers and folder.name not in used:
                remove_worker_folder(folder)


def remove_worker_folder(folder: Path) -> None:
    """Take a worker's folder away; one that nobody uses any more but still runs is ended first."""
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime < _YOUNG_S:
            return
    about = read_json(folder / "worker.json") or {}
    if about.get("ticks") is not None and about.get("pid") != os.getpid():
        processes.send(int(about["pid"]), int(about["ticks"]), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
