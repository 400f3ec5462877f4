"""Results that wait to be reported; the journal holds them once the report loop took them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.framing import compact
from airavata_scheduler.agent.lease_book import REPORTING, Held
from airavata_scheduler.agent.outcomes import age_s
from airavata_scheduler.agent.processes import uptime_s

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
MOST_ITEMS = 500
MOST_BYTES = 1 << 20
_ENDED = "_ended"  # [uptime, wall clock, boot id] of the payload's end; becomes age_s when sent


class Reports:
    """A queue of items; `take` gives a batch within the protocol's bounds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._changed = threading.Condition()
        self._queue: deque[tuple[Json, bool]] = deque()  # (item, whether the journal has it)
        self._old: Iterator[Json] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, held: Held, item: Json, ended: tuple[float, float] | None = None) -> None:
        """A result is final; `ended` is the (uptime, wall clock) of its payload's end."""
        at = ended or (uptime_s(), time.time())
        item[_ENDED] = [round(at[0], 3), round(at[1], 3), self._runtime.boot_id]
        held.report = item
        self._runtime.book.set_phase(held, REPORTING)
        with self._changed:
            self._queue.append((item, False))
            self._changed.notify_all()

    def restore(self, item: Json) -> None:
        """A result that the journal has and that was not acknowledged."""
        with self._changed:
            self._queue.append((item, True))
            self._changed.notify_all()

    def again(self, lease: str) -> None:
        """The server asks for a result again."""
        entry = self._runtime.journal.state.entries.get(lease)
        if entry is not None and entry.report is not None:
            self.restore(entry.report)
        elif entry is None:
            self.all_again()

    def all_again(self) -> None:
        """Report what was acknowledged once more: the server's epoch changed."""
        with self._changed:
            self._old = self._runtime.journal.history()
            self._changed.notify_all()

    def put_back(self, batch: list[tuple[Json, bool]]) -> None:
        """A batch that could not be sent."""
        with self._changed:
            self._queue.extendleft(reversed(batch))

    def take(self, stop: threading.Event) -> list[tuple[Json, bool]]:
        """The next batch; waits for one. Empty when the agent stops."""
        with self._changed:
            while not self._queue and not stop.is_set():
                if self._old is not None:
                    self._refill()
                    continue
                self._changed.wait()
            batch: list[tuple[Json, bool]] = []
            size = 0
            while self._queue and len(batch) < MOST_ITEMS:
                weight = len(compact(self._queue[0][0]))
                if batch and size + weight > MOST_BYTES - 4096:
                    break
                size += weight
                batch.append(self._queue.popleft())
            return batch

    def release(self) -> None:
        """Wake a waiting `take`."""
        with self._changed:
            self._changed.notify_all()

    def _refill(self) -> None:
        for item in self._old or ():
            self._queue.append((item, True))
            if len(self._queue) >= MOST_ITEMS:
                return
        self._old = None


def on_the_wire(item: Json, boot_id: str) -> Json:
    """The item as the protocol has it: private keys out, its age in."""
    found = {key: value for key, value in item.items() if not key.startswith("_")}
    ended = item.get(_ENDED)
    if ended is not None:
        found["age_s"] = age_s(ended[0], ended[1], ended[2] == boot_id)
    return found
