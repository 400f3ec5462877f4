"""The gate loop: leases that may start only after the API's OK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.lease_book import Held
from airavata_scheduler.agent.loop import Loop

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
_BATCH = 500


class GateLoop(Loop):
    """Confirms starts in batches, as soon as leases come: an offer that is not taken up lapses."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "gate")

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.modes.listening.set()
        self.runtime.book.nudge()

    def turn(self) -> None:
        """One batch of starts."""
        runtime = self.runtime
        book = runtime.book
        runtime.modes.listening.wait()
        with book.came:
            book.came.wait_for(lambda: runtime.stop.is_set() or book.waiting)
            waiting = book.at_the_gate(_BATCH)
        if not waiting or runtime.stop.is_set():
            return
        answer = runtime.api.post("/leases/start", {"leases": [held.lease for held in waiting]})
        lines = {str(line.get("lease")): line for line in answer.get("items") or ()}
        for held in waiting:
            line = lines.get(held.lease)
            if line is not None:
                self._obey(held, line)
        if len(lines) < len(waiting):
            runtime.stop.wait(1.0)  # left unanswered: asked again, but not at once

    def _obey(self, held: Held, line: Json) -> None:
        runtime = self.runtime
        verdict = str(line.get("verdict"))
        runtime.book.pass_gate(held)
        if verdict == "ok":
            runtime.staging.add(held, line)
        else:
            runtime.stopper.obey(held.lease, verdict)
