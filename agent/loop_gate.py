"""The gate loop: leases that may start only after the API's OK, and their inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import outcomes
from airavata_scheduler.agent.faults import Refused, Unreachable
from airavata_scheduler.agent.inputs import InputProblem
from airavata_scheduler.agent.lease_book import REPORTING, WAITING, Held
from airavata_scheduler.agent.loop import Loop

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
_BATCH = 100


class GateLoop(Loop):
    """Confirms starts in batches; `confirmed` is on the disk before anything is started."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "gate")

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.modes.listening.set()
        with self.runtime.book.changed:
            self.runtime.book.changed.notify_all()

    def turn(self) -> None:
        """One batch of starts."""
        runtime = self.runtime
        book = runtime.book
        runtime.modes.listening.wait()
        with book.changed:
            book.changed.wait_for(lambda: runtime.stop.is_set() or book.waiting)
            waiting = [held for held in book.in_phase(WAITING) if held.reason is None][:_BATCH]
        if not waiting or runtime.stop.is_set():
            runtime.stop.wait(0.05)
            return
        answer = runtime.api.post("/leases/start", {"leases": [held.lease for held in waiting]})
        lines = {str(line.get("lease")): line for line in answer.get("items") or ()}
        for held in waiting:
            line = lines.get(held.lease)
            if line is not None:
                self._obey(held, line)

    def _obey(self, held: Held, line: Json) -> None:
        runtime = self.runtime
        verdict = str(line.get("verdict"))
        if verdict != "ok":
            runtime.stopper.obey(held.lease, verdict)
            return
        try:
            for wanted in line.get("inputs") or ():
                runtime.inputs.place(runtime.places.make(held.lease) / "work", wanted)
        except (InputProblem, Refused, Unreachable, OSError) as problem:
            runtime.log.warning(f"input missing: {problem}", lease=held.lease)
            runtime.book.set_phase(held, REPORTING)
            text = f"An input cannot be fetched: {problem}."
            runtime.reports.add(held, outcomes.lost(held, "input_missing", text))
            return
        held.inputs = dict(line.get("parameters") or {})
        runtime.journal.commit({"t": "confirmed", "leases": {held.lease: held.inputs}})
        with runtime.book.changed:
            if held.phase == WAITING:
                runtime.book.make_ready(held)
