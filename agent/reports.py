"""Results that wait to be reported; the journal holds them once the report loop took them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import epochs
from airavata_scheduler.agent.framing import compact
from airavata_scheduler.agent.lease_book import REPORTING, Held
from airavata_scheduler.agent.outcomes import age_s
from airavata_scheduler.agent.processes import uptime_s

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
MOST_ITEMS = 500
MOST_BYTES = 1 << 20
_SETTLES = "_settles"  # the place in the queue behind all that an epoch is told again
_ENDED = "_ended"  # [uptime, wall clock, boot id] of the payload's end; becomes age_s when sent


class Reports:
    """A queue of items; `take` gives a batch within the protocol's bounds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._changed = threading.Condition()
        self._queue: deque[tuple[Json, bool]] = deque()  # (item, whether the journal has it)
        self._under_way: set[str] = set()  # leases whose results wait or are being sent
        self._old: Iterator[Json] | None = None
        self._settling = ""  # the epoch that is told again what was acknowledged

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, held: Held, item: Json, ended: tuple[float, float] | None = None) -> None:
        """A result is final; `ended` is the (uptime, wall clock) of its payload's end."""
        at = ended or (uptime_s(), time.time())
        item[_ENDED] = [round(at[0], 3), round(at[1], 3), self._runtime.boot_id]
        held.report = item
        self._runtime.book.set_phase(held, REPORTING)
        self._queue_up(item, journalled=False)

    def restore(self, item: Json) -> None:
        """A result that the journal has and that was not acknowledged."""
        self._queue_up(item, journalled=True)

    def again(self, lease: str) -> None:
        """The server has a result that we still listed as unreported: its answer got lost.

        Often the question only crossed the answer. A result that is acknowledged by now, or is on
        its way, needs nothing more.
        """
        entry = self._runtime.journal.state.entries.get(lease)
        if entry is not None and entry.report is not None and lease not in self._under_way:
            self.restore(entry.report)

    def answered(self, leases: list[str]) -> None:
        """Verdicts on these results arrived."""
        with self._changed:
            self._under_way.difference_update(leases)

    def all_again(self, epoch: str) -> None:
        """Report what was acknowledged once more: the server's epoch changed.

        A restart on the way begins again; only when the last answer has come is the epoch settled.
        """
        with self._changed:
            self._settling = epoch
            self._old = self._runtime.journal.history()
            self._changed.notify_all()

    def put_back(self, batch: list[tuple[Json, bool]]) -> None:
        """A batch that could not be sent."""
        with self._changed:
            self._queue.extendleft(reversed(batch))

    def take(self, stop: threading.Event) -> list[tuple[Json, bool]]:
        """The next batch; empty when there is none, or the agent stops."""
        with self._changed:
            while not self._queue and self._old is not None and not stop.is_set():
                self._refill()
            batch: list[tuple[Json, bool]] = []
            size = 0
            while self._queue and len(batch) < MOST_ITEMS:
                if _SETTLES in self._queue[0][0]:
                    if batch:
                        break
                    self._settle(self._queue.popleft()[0][_SETTLES])
                    continue
                weight = len(compact(self._queue[0][0]))
                if batch and size + weight > MOST_BYTES - 4096:
                    break
                size += weight
                batch.append(self._queue.popleft())
            return batch

    def gather(self, items: int, until_s: float) -> None:
        """Wait until `items` results are there, or until that monotonic second."""
        with self._changed:
            while 0 < len(self._queue) < items and not self._runtime.stop.is_set():
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return
                self._changed.wait(left_s)

    def wait(self, stop: threading.Event) -> None:
        """Return when there is a result to report, or the agent stops."""
        with self._changed:
            while not self._queue and self._old is None and not stop.is_set():
                self._changed.wait()

    def release(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._changed.notify_all()

    def _queue_up(self, item: Json, *, journalled: bool) -> None:
        with self._changed:
            self._queue.append((item, journalled))
            self._under_way.add(item["lease"])
            self._changed.notify_all()

    def _refill(self) -> None:
        for item in self._old or ():
            self._queue.append((item, True))
            if len(self._queue) >= MOST_ITEMS:
                return
        self._old = None
        self._queue.append(({_SETTLES: self._settling}, True))

    def _settle(self, epoch: str) -> None:
        if epoch == self._settling:  # else a newer one is being told
            self._runtime.log.info("everything that was acknowledged has been reported again")
            epochs.settle(self._runtime, epoch)


def on_the_wire(item: Json, boot_id: str) -> Json:
    """The item as the protocol has it: private keys out, its age in."""
    found = {key: value for key, value in item.items() if not key.startswith("_")}
    ended = item.get(_ENDED)
    if ended is not None:
        found["age_s"] = age_s(ended[0], ended[1], ended[2] == boot_id)
    return found
