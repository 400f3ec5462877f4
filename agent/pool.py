"""The warm pool: which call goes to which worker, and what becomes of calls whose worker dies.

A call is bound to a worker in the journal before it is sent there. Only a worker that is certainly
dead (and whose ledger has no "S" for the call) frees it for another: so no call runs twice.
"""

from __future__ import annotations

import os
import secrets
import select
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import outcomes
from airavata_scheduler.agent.lease_book import Held
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.payload_order import call_order, worker_order
from airavata_scheduler.agent.processes import uptime_s
from airavata_scheduler.agent.warm_worker import WarmWorker

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
_IDLE_S = 60.0
_START_S = 20.0
_STATUS_S = 1.0  # the shepherd writes a dead worker's status within this
_BATCH_S = 0.02  # a batch is about this much work
_MOST_CALLS = 64
_HELD_UP_S = 1.0  # a call that runs for so long gives those behind it to others
_OVERTIME_S = 5.0


class Pool(Loop):
    """All warm workers of this agent."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "pool")
        self._lock = threading.Lock()
        self._incoming: deque[Held] = deque()
        self._stops: deque[Held] = deque()
        self._pending: dict[str, deque[Held]] = {}
        self._prepared: dict[str, Json] = {}  # lease → arguments as the worker gets them
        self._bundles: dict[str, str] = {}
        self.workers: dict[str, WarmWorker] = {}
        self._bad_starts: dict[str, int] = {}
        self._tick_at = 0.0
        self._nudge_r, self._nudge_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def submit(self, calls: list[Held]) -> None:
        """Run these; what has to be downloaded first takes its own way and comes back here."""
        direct = [held for held in calls if not self._needs_download(held)]
        for held in calls:
            if held not in direct:
                self.runtime.fetcher.wanted.put(held)
        with self._lock:
            self._incoming.extend(direct)
        self.nudge()

    def submit_prepared(self, held: Held, arguments: Json | None, bundle: str | None) -> None:
        """A call whose downloads are there."""
        if arguments is not None:
            self._prepared[held.lease] = arguments
        if bundle is not None:
            self._bundles[held.offer["spec"]] = bundle
        with self._lock:
            self._incoming.append(held)
        self.nudge()

    def stop_call(self, held: Held) -> None:
        """End a call because of its `reason`."""
        with self._lock:
            self._stops.append(held)
        self.nudge()

    def room_came(self) -> None:
        """Cores were freed: calls that wait for a worker may get one."""
        if self._pending:
            self.nudge()

    def nudge(self) -> None:
        """Something changed; look at once."""
        try:
            os.write(self._nudge_w, b".")
        except BlockingIOError:
            return

    wake = nudge

    def adopt(self, worker: WarmWorker) -> None:
        """Take over a worker of before the restart, with its calls (before the loop starts)."""
        self.workers[worker.id] = worker
        if worker.calls:
            worker.reserved = True
            self.runtime.book.force_worker(worker.spec)
        for entry in worker.read_ends():
            self._call_ended(worker, entry)
        for held in worker.calls.values():
            if held.lease == worker.begun:
                continue
            if self._needs_download(held):
                self.runtime.fetcher.wanted.put(held)
            else:
                worker.unsent.append(self._call(held, worker))

    def turn(self) -> None:
        """Hear workers, end what must end, give out what waits."""
        sockets: dict[Any, WarmWorker] = {
            w.socket: w for w in self.workers.values() if w.socket is not None
        }
        readable, _, _ = select.select([self._nudge_r, *sockets], [], [], self._wait_s())
        if self.runtime.stop.is_set():
            return
        if self._nudge_r in readable:
            os.read(self._nudge_r, 4096)
        for sock in readable:
            if sock in sockets:
                self._hear(sockets[sock])
        if uptime_s() >= self._tick_at:
            self._tick_at = uptime_s() + 1.0
            self._tick()
        for worker in self.workers.values():
            if worker.is_awaited:
                worker.flush()
        self._bury_dead()
        self._take_orders()
        self._assign()

    def _needs_download(self, held: Held) -> bool:
        python = held.spec.get("python") or {}
        arguments = held.offer.get("arguments") or {}
        path = self._bundles.get(held.offer["spec"])
        bundle = bool(python.get("blob")) and (path is None or not Path(path).exists())
        return bundle or arguments.get("encoding") == "blob"

    def _wait_s(self) -> float | None:
        if any(w.dead_since is not None or w.is_awaited for w in self.workers.values()):
            return 0.02
        if any(w.calls for w in self.workers.values()):
            return max(0.0, self._tick_at - uptime_s())
        return _IDLE_S if self.workers else None

    def _hear(self, worker: WarmWorker) -> None:
        messages = worker.hear()
        for entry in worker.read_ends():
            self._call_ended(worker, entry)
        for message in messages or ():
            for lease in message.get("given_back", ()):
                held = worker.calls.pop(lease, None)
                if held is not None:
                    self._back_to_queue(held)
            if "given_back" in message:
                worker.asked_back = False
                self._stop_begun(worker)
        if messages is None:
            worker.close()
            if worker.dead_since is None:
                worker.dead_since = uptime_s()
        self._rest(worker)

    def _stop_begun(self, worker: WarmWorker) -> None:
        """A call that was to be stopped and did not come back: it had begun meanwhile."""
        for held in list(worker.calls.values()):
            if held.reason is not None:
                self._stop_at(worker, held.lease, "cancelled")

    def _call_ended(self, worker: WarmWorker, entry: Json) -> None:
        held = worker.calls.pop(entry["l"], None)
        if held is not None:
            self._prepared.pop(held.lease, None)
            self.runtime.finisher.call_ended(held, entry)

    def _back_to_queue(self, held: Held) -> None:
        if held.reason is None:
            self._pending.setdefault(held.offer["spec"], deque()).appendleft(held)
        else:
            self._withdraw(held)

    def _withdraw(self, held: Held) -> None:
        self._prepared.pop(held.lease, None)
        self.runtime.finisher.call_is_over(held, outcomes.cancelled(held))

    def _rest(self, worker: WarmWorker) -> None:
        """A worker without calls gives its share back."""
        if not worker.calls and worker.reserved:
            worker.reserved = False
            worker.idle_since = uptime_s()
            self.runtime.book.free_worker(worker.spec)

    def _take_orders(self) -> None:
        with self._lock:
            incoming, self._incoming = self._incoming, deque()
            stops, self._stops = self._stops, deque()
        for held in incoming:
            bound = self.workers.get(held.worker or "")
            if bound is not None and held.lease in bound.calls:
                bound.unsent.append(self._call(held, bound))
                bound.flush()
            elif held.reason is None:
                self._pending.setdefault(held.offer["spec"], deque()).append(held)
            else:
                self._withdraw(held)
        for held in stops:
            self._stop_one(held)

    def _stop_one(self, held: Held) -> None:
        queue = self._pending.get(held.offer["spec"], deque())
        if held in queue:
            queue.remove(held)
            self._withdraw(held)
            return
        for worker in self.workers.values():
            if held.lease in worker.calls:
                self._stop_at(worker, held.lease, "cancelled")
                return

    def _stop_at(self, worker: WarmWorker, lease: str, why: str) -> None:
        for entry in worker.kill_if_in(lease, why):
            self._call_ended(worker, entry)
        if lease in worker.calls and worker.told is None:
            worker.asked_back = True
            worker.say({"give_back": True})

    def _tick(self) -> None:
        now = uptime_s()
        for worker in list(self.workers.values()):
            if worker.dead_since is None:
                self._check(worker, now)

    def _check(self, worker: WarmWorker, now: float) -> None:
        if worker.socket is None and not worker.connect():
            if now - worker.made_at > _START_S or (worker.process() and not worker.is_alive()):
                worker.dead_since = now
            return
        worker.flush()
        held = worker.calls.get(worker.begun or "")
        if held is not None:
            self._check_call(worker, held, now - worker.begun_at)
        if not worker.calls and (worker.is_worn() or now - worker.idle_since > _IDLE_S):
            worker.retiring = True
            worker.say({"retire": True})

    def _check_call(self, worker: WarmWorker, held: Held, age_s: float) -> None:
        limit = held.offer.get("timeout_s")
        ram_kb = int(held.spec.get("ram_mb") or 0) * 1024
        if limit is not None and age_s > limit + _OVERTIME_S:
            self._stop_at(worker, held.lease, "timeout")
        elif ram_kb and worker.resident_kb() > ram_kb:
            self._stop_at(worker, held.lease, "out_of_memory")
        elif len(worker.calls) > 1 and age_s > _HELD_UP_S and not worker.asked_back:
            worker.asked_back = True
            worker.say({"give_back": True})
        if held.told != "running" and age_s > 0.3:
            self.runtime.beat.news()

    def _bury_dead(self) -> None:
        now = uptime_s()
        for worker in list(self.workers.values()):
            if worker.dead_since is None or worker.is_alive():
                continue
            if worker.wait_status() is not None or now - worker.dead_since > _STATUS_S:
                self._bury(worker)

    def _bury(self, worker: WarmWorker) -> None:
        for entry in worker.read_ends():
            self._call_ended(worker, entry)
        begun = worker.calls.pop(worker.begun or "", None)
        if begun is not None:
            item = outcomes.of_dead_worker(begun, worker.wait_status(), worker.why_it_ended())
            self._prepared.pop(begun.lease, None)
            self.runtime.finisher.call_is_over(begun, item)
        bad = self._count_bad_start(worker)
        for held in reversed(list(worker.calls.values())):
            if bad:
                text = "The process for the function does not start on this machine."
                self.runtime.finisher.call_is_over(held, outcomes.lost(held, "wrapper_lost", text))
            else:
                self._back_to_queue(held)
        worker.calls.clear()
        self._rest(worker)
        worker.close()
        del self.workers[worker.id]

    def _count_bad_start(self, worker: WarmWorker) -> bool:
        """Whether workers of this kind died three times in a row before they took a call."""
        if worker.process() is not None or not worker.calls:
            self._bad_starts.pop(worker.key, None)
            return False
        count = self._bad_starts[worker.key] = self._bad_starts.get(worker.key, 0) + 1
        return count >= 3

    def _assign(self) -> None:
        records: list[Json] = []
        touched: list[WarmWorker] = []
        for key, queue in list(self._pending.items()):
            for worker, calls in self._share_out(key, queue):
                records.append(
                    {"t": "launching", "w": worker.id, "leases": [held.lease for held in calls]}
                )
                touched.append(worker)
            if not queue:
                del self._pending[key]
        if records:
            self.runtime.journal.commit(*records)
            self.runtime.crash_point("pool.journalled")
        for worker in touched:
            worker.flush()
        if records:
            sent = [lease for record in records for lease in record["leases"]]
            self.runtime.history.note("launched", leases=sent)

    def _share_out(self, key: str, queue: deque[Held]) -> list[tuple[WarmWorker, list[Held]]]:
        batch = self._batch_size(key)
        shares = []
        mine = [w for w in self.workers.values() if w.key == key and w.may_take]
        for worker in sorted(mine, key=lambda w: len(w.calls)):
            room = (batch if batch == 1 else 2 * batch) - len(worker.calls)
            if queue and room > 0 and self._wake_up(worker):
                shares.append((worker, self._give(worker, queue, room)))
        while queue and self.runtime.book.reserve_worker(queue[0].spec):
            try:
                worker = self._start(key, queue[0].spec)
            except OSError as problem:
                self._not_started(queue.popleft(), problem)
            else:
                shares.append((worker, self._give(worker, queue, batch)))
        return shares

    def _not_started(self, held: Held, problem: OSError) -> None:
        """The disk has no room for another worker: the call is lost, its cores are free again."""
        self.runtime.book.free_worker(held.spec)
        self.runtime.log.error(f"no worker can be started: {problem}", lease=held.lease)
        self._prepared.pop(held.lease, None)
        text = f"The process for the function could not be started: {problem}."
        self.runtime.finisher.call_is_over(held, outcomes.lost(held, "wrapper_lost", text))

    def _batch_size(self, key: str) -> int:
        mean = self.runtime.book.durations.mean_s(key)
        return 1 if mean is None else max(1, min(_MOST_CALLS, int(_BATCH_S / max(mean, 0.0001))))

    def _wake_up(self, worker: WarmWorker) -> bool:
        if not worker.reserved:
            worker.reserved = self.runtime.book.reserve_worker(worker.spec)
        return worker.reserved

    def _give(self, worker: WarmWorker, queue: deque[Held], most: int) -> list[Held]:
        given: list[Held] = []
        while queue and len(given) < most:
            held = queue.popleft()
            held.worker = worker.id
            worker.calls[held.lease] = held
            worker.unsent.append(self._call(held, worker))
            given.append(held)
        return given

    def _call(self, held: Held, worker: WarmWorker) -> Json:
        order = call_order(
            held, self.runtime.places.of(held.lease), worker.folder, self.runtime.policy
        )
        return {**order, "arguments": self._prepared.get(held.lease, held.offer.get("arguments"))}

    def _start(self, key: str, spec: Json) -> WarmWorker:
        runtime = self.runtime
        self._make_room()
        worker_id = secrets.token_hex(8)
        folder = runtime.folder.path / "pool" / worker_id
        folder.mkdir(mode=0o700, parents=True)
        worker = WarmWorker(worker_id, key, folder, spec)
        worker.reserved = True
        self.workers[worker_id] = worker
        order = worker_order(
            spec,
            folder,
            base=runtime.base_environment,
            policy=runtime.policy,
            boot_id=runtime.boot_id,
        )
        order.update(id=worker_id, key=key, bundle=self._bundles.get(key))
        runtime.shepherd.send({"worker": order})
        return worker

    def _make_room(self) -> None:
        """Idle workers of other functions go when there are too many processes."""
        idle = [w for w in self.workers.values() if not w.calls and w.may_take]
        most = 2 * self.runtime.book.capacity.cpu + 4
        for worker in sorted(idle, key=lambda w: w.idle_since)[: max(0, len(self.workers) - most)]:
            worker.retiring = True
            worker.say({"retire": True})

    def retire_idle(self) -> None:
        """The agent ends (its loops have ended): idle workers need not wait for the next one."""
        for worker in self.workers.values():
            if not worker.calls:
                worker.say({"retire": True})
