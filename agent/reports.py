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
AGAIN = "again"  # in an item: it was acknowledged before, in another epoch
_SETTLES = "_settles"  # the place in the queue behind all that an epoch is told again
_ENDED = "_ended"  # [uptime, wall clock, boot id] of the payload's end; becomes age_s when sent


class Reports:
    """A queue of items; `take` gives a batch within the protocol's bounds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._changed = threading.Condition()
        self._queue: deque[tuple[Json, bool]] = deque()  # (item, whether the journal has it)
        self._retold: deque[tuple[Json, bool]] = deque()  # what a new epoch is told again
        self._under_way: set[str] = set()  # leases whose results wait or are being sent
        self._old: Iterator[Json] | None = None
        self._settling = ""  # the epoch that is told again what was acknowledged

    def __len__(self) -> int:
        return len(self._queue) + len(self._retold)

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
            self._retold.clear()
            self._old = self._runtime.journal.history()
            self._changed.notify_all()

    def put_back(self, batch: list[tuple[Json, bool]]) -> None:
        """A batch that could not be sent."""
        with self._changed:
            for item, journalled in reversed(batch):
                self._queue_of(item).appendleft((item, journalled))

    def later(self, batch: list[tuple[Json, bool]]) -> None:
        """Results that the server could not judge now; others go first."""
        self.put_back([one for one in batch if AGAIN in one[0]])  # before the mark behind them
        with self._changed:
            self._queue.extend(one for one in batch if AGAIN not in one[0])

    def take(self) -> list[tuple[Json, bool]]:
        """The next batch; empty when there is none. The one before it has been answered.

        While old results are told again they have half of each call: the server may wait for them
        before it judges the new ones.
        """
        with self._changed:
            self._refill()
            if self._retold and _SETTLES in self._retold[0][0]:
                self._settle(self._retold.popleft()[0][_SETTLES])
            share = 2 if self._retold else 1
            batch: list[tuple[Json, bool]] = []
            _fill(batch, self._queue, MOST_ITEMS // share, (MOST_BYTES - 4096) // share)
            _fill(batch, self._retold, MOST_ITEMS, MOST_BYTES - 4096)
            return batch

    def gather(self, items: int, until_s: float) -> None:
        """Wait until `items` results are there, or until that monotonic second."""
        with self._changed:
            while 0 < len(self) < items and not self._runtime.stop.is_set():
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return
                self._changed.wait(left_s)

    def wait(self, stop: threading.Event) -> None:
        """Return when there is a result to report, or the agent stops."""
        with self._changed:
            while not len(self) and self._old is None and not stop.is_set():
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

    def _queue_of(self, item: Json) -> deque[tuple[Json, bool]]:
        return self._retold if AGAIN in item else self._queue

    def _refill(self) -> None:
        while self._old is not None and len(self._retold) < MOST_ITEMS:
            item = next(self._old, None)
            if item is None:
                self._old = None
                item = {_SETTLES: self._settling}
            self._retold.append(({**item, AGAIN: True}, True))

    def _settle(self, epoch: str) -> None:
        if epoch == self._settling:  # else a newer one is being told
            self._runtime.log.info("everything that was acknowledged has been reported again")
            epochs.settle(self._runtime, epoch)


def _fill(
    batch: list[tuple[Json, bool]],
    queue: deque[tuple[Json, bool]],
    most_items: int,
    most_bytes: int,
) -> None:
    """Move what there is room for, up to the mark that settles an epoch."""
    size = sum(len(compact(item)) for item, _ in batch)
    while queue and len(batch) < most_items and _SETTLES not in queue[0][0]:
        size += len(compact(queue[0][0]))
        if batch and size > most_bytes:
            return
        batch.append(queue.popleft())


def on_the_wire(item: Json, boot_id: str) -> Json:
    """The item as the protocol has it: private keys out, its age in."""
    found = {AGAIN: False} | {k: value for k, value in item.items() if not k.startswith("_")}
    ended = item.get(_ENDED)
    if ended is not None:
        found["age_s"] = age_s(ended[0], ended[1], ended[2] == boot_id)
    return found
