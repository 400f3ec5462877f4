"""The log loop: while payloads run, their output goes out about once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airavata_scheduler.agent.faults import Refused, Unreachable
from airavata_scheduler.agent.lease_book import RUNNING, Held
from airavata_scheduler.agent.log_shipping import STREAMS, log_file, ship
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.processes import uptime_s

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

_EVERY_S = 1.0
_SHORT_S = 2.0  # the log of a payload that ends sooner travels with its report


class LogLoop(Loop):
    """Never waits for the server: what cannot go out now goes with the end."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "logs")

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.scripts_run.set()
        self.runtime.modes.listening.set()

    def turn(self) -> None:
        """One round over all running scripts."""
        runtime = self.runtime
        runtime.modes.listening.wait()
        runtime.scripts_run.wait()
        if runtime.stop.wait(_EVERY_S):
            return
        runtime.scripts_run.clear()
        running = [held for held in runtime.book.in_phase(RUNNING) if not held.is_python]
        if running:
            runtime.scripts_run.set()
        for held in running:
            if held.started_at is not None and uptime_s() - held.started_at >= _SHORT_S:
                self._ship(held)

    def _ship(self, held: Held) -> None:
        for stream in STREAMS:
            source = log_file(self.runtime, held, stream, ended=False)
            if source.total() <= held.streamed.get(stream, 0):
                continue
            try:
                ship(self.runtime, held, stream, ended=False, patient=False)
            except (Refused, Unreachable) as problem:
                self.runtime.log.debug(f"log not shipped: {problem}", lease=held.lease)
                return
