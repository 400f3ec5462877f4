"""The fetch loop: bundles and large arguments of Python functions, before their calls run."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airavata_scheduler.agent import outcomes
from airavata_scheduler.agent.faults import Refused, Unreachable
from airavata_scheduler.agent.inputs import InputProblem
from airavata_scheduler.agent.lease_book import Held
from airavata_scheduler.agent.loop import Loop

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]


class FetchLoop(Loop):
    """One download at a time; a bundle is fetched once."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "fetch")
        self.wanted: queue.SimpleQueue[Held | None] = queue.SimpleQueue()

    def wake(self) -> None:
        """The agent stops."""
        self.wanted.put(None)
        self.runtime.modes.listening.set()

    def turn(self) -> None:
        """Whatever one call needs."""
        held = self.wanted.get()
        if held is None:
            return
        self.runtime.modes.listening.wait()
        try:
            bundle = self._bundle(held)
            arguments = self._arguments(held)
        except (InputProblem, Refused, Unreachable, OSError) as problem:
            text = f"The function's bundle or arguments cannot be fetched: {problem}."
            self.runtime.log.warning(text, lease=held.lease)
            item = outcomes.lost(held, "input_missing", text)
            self.runtime.finisher.call_is_over(held, item)
            return
        self.runtime.pool.submit_prepared(held, arguments, bundle)

    def _bundle(self, held: Held) -> str | None:
        blob = (held.spec.get("python") or {}).get("blob")
        return None if not blob else self._blob(held, str(blob["sha256"]))

    def _arguments(self, held: Held) -> Json | None:
        arguments = held.offer.get("arguments") or {}
        if arguments.get("encoding") != "blob":
            return None
        return {"encoding": "pickle", "file": self._blob(held, str(arguments["sha256"]))}

    def _blob(self, held: Held, sha256: str) -> str:
        url = f"/blobs/{quote(sha256, safe='')}?lease={held.lease}"
        return str(self.runtime.inputs.fetch(f"blob {sha256}", url, sha256=sha256))
