"""Gunicorn's hooks; its settings come from the command line (`commands/server.py`)."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from types import FrameType
from typing import Any

from airavata_scheduler.functions import streams

_PR_SET_PDEATHSIG = 1


def post_worker_init(worker: Any) -> None:
    """A worker is ready: let SIGTERM end its open streams and long polls first.

    Gunicorn waits for open answers before it stops, and has no hook for the moment at which that
    waiting begins. So its own handler is called behind ours.
    """
    stop = signal.getsignal(signal.SIGTERM)

    def end_streams(number: int, frame: FrameType | None) -> None:
        streams.end_all()
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, end_streams)
    signal.siginterrupt(signal.SIGTERM, False)  # as gunicorn has it: system calls go on
    _end_with_the_arbiter(worker.ppid)


def _end_with_the_arbiter(arbiter: int) -> None:
    """Let the kernel send SIGTERM to this worker when its arbiter is killed.

    Gunicorn notices that as well, but goes on for 30 s while clients keep their connections; so
    long nobody accepts new ones, and the next server cannot bind the port.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != arbiter:  # it died while we loaded the application
        signal.raise_signal(signal.SIGTERM)


def worker_int(_worker: Any) -> None:
    """A worker was told to stop at once: let open streams and long polls end."""
    streams.end_all()


def worker_exit(_server: Any, _worker: Any) -> None:
    """A worker is about to leave."""
    streams.end_all()


def on_exit(_server: Any) -> None:
    """The last process leaves: the counters that its workers added up go with it."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def child_exit(_server: Any, worker: Any) -> None:
    """A worker is gone: its gauges end, its counters stay in the sum."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess  # noqa: PLC0415  only where there is a folder

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
