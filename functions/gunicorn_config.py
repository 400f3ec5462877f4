"""Gunicorn's hooks; its settings come from the command line (`commands/server.py`)."""

from __future__ import annotations

import os
from typing import Any

from airavata_scheduler.functions import streams


def worker_int(_worker: Any) -> None:
    """A worker was told to stop at once: let open streams and long polls end."""
    streams.end_all()


def worker_exit(_server: Any, _worker: Any) -> None:
    """A worker is about to leave."""
    streams.end_all()


def child_exit(_server: Any, worker: Any) -> None:
    """A worker is gone: its gauges end, its counters stay in the sum."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess  # noqa: PLC0415  only where there is a folder

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
