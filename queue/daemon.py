"""The background program: a clock, and RQ worker processes that are started again when they die.

Several daemons may run beside each other (`cron.py` says why that is safe). While Redis is away, or
when no worker took an entry for long, the clock runs what is due in this process: everything goes
on, only slower.
"""

from __future__ import annotations

import logging
import multiprocessing
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from types import FrameType

from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import connected
from airavata_scheduler.models.errors import Unavailable
from airavata_scheduler.queue import connection, cron, jobs, worker
from airavata_scheduler.queue.enqueue import enqueue

TICK_S = 1.0
STOP_GRACE_S = 20.0
FIRST_RESTART_S = 1.0
LONGEST_RESTART_S = 30.0
STEADY_AFTER_S = 60.0  # a worker that lived this long starts its back-off anew

_ENDINGS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = (*_ENDINGS, signal.SIGCHLD)
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Slot:
    """One worker process and its restarts; times are monotonic seconds."""

    process: SpawnProcess | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    failures: int = 0


@dataclass(kw_only=True)
class _Workers:
    """The RQ worker processes of this daemon."""

    configuration: Configuration
    slots: list[_Slot] = field(default_factory=list)

    def keep(self) -> None:
        """Start what is missing and due; note what died."""
        now = time.monotonic()
        for number, slot in enumerate(self.slots):
            if slot.process is not None and not slot.process.is_alive():
                self._bury(number, slot, slot.process, now)
            if slot.process is None and now >= slot.restart_at:
                self._start(slot, now)

    def stop(self) -> None:
        """TERM to all; KILL for those that do not finish their job within the grace."""
        running = [slot.process for slot in self.slots if slot.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_GRACE_S
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                _log.warning("queue worker %s did not end in time and is killed", process.pid)
                process.kill()
                process.join()

    def _start(self, slot: _Slot, now: float) -> None:
        context = multiprocessing.get_context("spawn")
        slot.process = context.Process(target=worker.work, args=(self.configuration,))
        slot.process.start()
        slot.started_at = now

    def _bury(self, number: int, slot: _Slot, process: SpawnProcess, now: float) -> None:
        slot.process = None
        code, pid = process.exitcode, process.pid
        process.close()
        slot.failures = 1 if now - slot.started_at >= STEADY_AFTER_S else slot.failures + 1
        delay_s = min(FIRST_RESTART_S * 2 ** (slot.failures - 1), LONGEST_RESTART_S)
        slot.restart_at = now + delay_s
        _log.warning(
            "queue worker %d (pid %s) ended with %s; started again in %.0f s",
            number,
            pid,
            code,
            delay_s,
        )


class _Signals:
    """TERM, INT and CHLD as bytes of a pipe, so that waiting for them has no gap.

    Masks would not do: starting a process by `spawn` unblocks TERM and INT on its way.
    """

    def __enter__(self) -> _Signals:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # The handlers do nothing; that there are any makes Python write to the pipe.
        self._before = {number: signal.signal(number, _ignore) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def end_came(self, timeout_s: float) -> bool:
        """Wait for a signal up to `timeout_s`; whether TERM or INT has come."""
        select.select([self._reader], [], [], timeout_s)
        try:
            received = self._reader.recv(4096)
        except BlockingIOError:
            return False
        return bool(_ENDINGS.intersection(received))


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def run(configuration: Configuration) -> None:
    """Run until SIGTERM or SIGINT, then end the workers and return.

    The database must be connected (`database.connect`). Call it in the main thread.
    """
    connection.configure(configuration.redis_url)
    jobs.configure(configuration)
    slots = [_Slot() for _ in range(configuration.queue_workers)]
    workers = _Workers(configuration=configuration, slots=slots)
    entries = cron.table(configuration.worker_interval_s)
    with _Signals() as signals:
        try:
            ending = False
            while not ending:
                workers.keep()
                tick(entries)
                ending = signals.end_came(TICK_S)
        finally:
            workers.stop()


def tick(entries: tuple[cron.Entry, ...]) -> None:
    """Start every entry that is due: by RQ, or here when Redis is away or no worker takes it."""
    redis_is_up = connection.is_up()
    try:
        with connected():
            entries_due = cron.due(entries, redis_is_up=redis_is_up)
        for entry, overdue in entries_due:
            if overdue or not redis_is_up or not enqueue(entry.name):
                jobs.run_here(entry.name)
    except Unavailable as error:
        _log.error("daemon: the database is away, the clock tries again: %s", error)
