"""Processes as the agent knows them: by id and start time."""

from __future__ import annotations

import signal
import subprocess

from airavata_scheduler.agent import processes


def test_a_signal_reaches_only_the_process_that_was_meant() -> None:
    """A process id that was used again by another process is let be."""
    process = subprocess.Popen(["sleep", "300"])
    ticks = processes.start_ticks(process.pid)
    assert ticks is not None

    missed = processes.send(process.pid, ticks - 1, signal.SIGKILL)
    still_runs = processes.is_alive(process.pid, ticks)
    reached = processes.send(process.pid, ticks, signal.SIGTERM)

    assert (missed, still_runs, reached) == (False, True, True)
    assert process.wait(10) == -signal.SIGTERM
    assert not processes.is_alive(process.pid, ticks)
