"""The stage loop: brings inputs to leases that passed the gate, in the order in which they came."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import outcomes
from airavata_scheduler.agent.faults import Refused, Unreachable
from airavata_scheduler.agent.inputs import InputProblem
from airavata_scheduler.agent.lease_book import REPORTING, WAITING, Held
from airavata_scheduler.agent.loop import Loop

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
LOOPS = 3  # so many leases have their inputs fetched beside each other


class Staging:
    """Leases whose inputs are wanted; the loops take from here."""

    def __init__(self) -> None:
        self.wanted: queue.SimpleQueue[tuple[Held, Json] | None] = queue.SimpleQueue()

    def add(self, held: Held, line: Json) -> None:
        """`line` is the API's answer for the lease: its inputs and parameters."""
        self.wanted.put((held, line))

    def release(self) -> None:
        """Wake the loops that wait."""
        for _ in range(LOOPS):
            self.wanted.put(None)


class StageLoop(Loop):
    """Apart from the gate: a slow download must not keep other leases from being confirmed."""

    def __init__(self, runtime: Runtime, number: int) -> None:
        super().__init__(runtime, f"stage-{number}")

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.modes.listening.set()
        self.runtime.staging.release()

    def turn(self) -> None:
        """The inputs of one lease."""
        got = self.runtime.staging.wanted.get()
        if got is None:
            return
        held, line = got
        if held.phase != WAITING:
            return  # cancelled, or given back
        runtime = self.runtime
        runtime.modes.listening.wait()
        try:
            for wanted in line.get("inputs") or ():
                runtime.inputs.place(runtime.places.make(held.lease) / "work", wanted)
        except (InputProblem, Refused, Unreachable, OSError) as problem:
            self._fail(held, problem)
            return
        self._make_ready(held, dict(line.get("parameters") or {}))

    def _make_ready(self, held: Held, parameters: Json) -> None:
        runtime = self.runtime
        with runtime.book.changed:
            if held.phase != WAITING:
                return
            held.inputs = parameters
            # Durable with the `launching` that follows: the journal keeps its order. An agent that
            # dies before asks the gate again.
            runtime.journal.append({"t": "confirmed", "leases": {held.lease: held.inputs}})
            runtime.book.make_ready(held)

    def _fail(self, held: Held, problem: Exception) -> None:
        runtime = self.runtime
        with runtime.book.changed:
            if held.phase != WAITING:
                return
            runtime.book.set_phase(held, REPORTING)
        runtime.log.warning(f"input missing: {problem}", lease=held.lease)
        text = f"An input cannot be fetched: {problem}."
        runtime.reports.add(held, outcomes.lost(held, "input_missing", text))
