"""The heartbeat: one small call for all leases; deltas and a digest, the full list when needed."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.backoff import BackOff
from airavata_scheduler.agent.faults import Unreachable
from airavata_scheduler.agent.framing import compact
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.processes import uptime_s

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
_FULL_EVERY = 10
_NEWS_REST_S = 5.0  # heartbeats for news alone are at least this far apart
_NEWS_DELAY_S = 0.3  # what ends sooner need not be announced


class Beat:
    """When the next heartbeat is due; shared with the loops that want one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due = time.monotonic()
        self._sent_at = 0.0
        self.full = True
        self.confirmed_at: float | None = (
            None  # monotonic second of *sending* the last confirmed one
        )

    def due_in_s(self) -> float:
        """Seconds until the next heartbeat."""
        return max(0.0, self._due - time.monotonic())

    def soon(self, *, full: bool = False) -> None:
        """Send one at once: the server asked for attention."""
        with self._changed:
            self.full = self.full or full
            self._due = time.monotonic()
            self._changed.notify_all()

    def news(self) -> None:
        """A payload started that users wait for; its state is told soon, but not for each one."""
        with self._changed:
            due = max(time.monotonic() + _NEWS_DELAY_S, self._sent_at + _NEWS_REST_S)
            if due < self._due:
                self._due = due
                self._changed.notify_all()

    def wait(self, stop: threading.Event) -> None:
        """Return when a heartbeat is due, or the agent stops."""
        with self._changed:
            while self.due_in_s() > 0 and not stop.is_set():
                self._changed.wait(self.due_in_s())

    def let_pass(self) -> None:
        """Let a heartbeat that is due soon have the idle connection first, and at once.

        Nobody asks for work meanwhile: a task that came now would wait.
        """
        with self._changed:
            if self.due_in_s() < 0.5:
                self._due = time.monotonic()
                self._changed.notify_all()
                self._changed.wait(1.0)

    def plan(self, seconds: float) -> None:
        """The next one in `seconds`."""
        with self._changed:
            now = time.monotonic()
            self._sent_at, self._due = now, now + seconds
            self._changed.notify_all()

    def release(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._changed.notify_all()


class HeartbeatLoop(Loop):
    """Extends the session."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "heartbeat")
        self._seq = 0
        self._backoff = BackOff()
        self._dice = random.Random()  # noqa: S311  only spreads load

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.modes.listening.set()
        self.runtime.beat.release()

    def turn(self) -> None:
        """One heartbeat."""
        runtime = self.runtime
        runtime.modes.listening.wait()
        runtime.beat.wait(runtime.stop)
        if runtime.stop.is_set():
            return
        full = runtime.beat.full or self._seq % _FULL_EVERY == 0
        body, told = self._body(full)
        sent_at = time.monotonic()
        try:
            answer = runtime.api.call(
                "POST",
                "/heartbeat",
                body=compact(body),
                kind="application/json",
                timeout_s=20.0,
                tries=1,
            ).json()
        except Unreachable as fault:
            runtime.log.warning(f"heartbeat: {fault}")
            runtime.beat.plan(self._backoff.next_s())
            return
        self._backoff.reset()
        runtime.beat.confirmed_at = sent_at
        if full:
            runtime.beat.full = False
        for held, phase in told:
            held.told = phase
        self._obey(answer)

    def _body(self, full: bool) -> tuple[Json, list[tuple[Any, str]]]:
        runtime = self.runtime
        self._seq += 1
        runtime.modes.disk_is_low()
        held_now = runtime.book.all()
        told = [
            (held, held.server_phase)
            for held in held_now
            if held.server_phase not in ("leased", held.told)
        ]
        deltas = [
            {"lease": held.lease, "phase": phase, "started_s_ago": _started_s_ago(held.started_at)}
            for held, phase in told
        ]
        everything = [{"lease": held.lease, "phase": held.server_phase} for held in held_now]
        body = {
            "seq": self._seq,
            "epoch": runtime.epoch,
            "settled": runtime.journal.state.settled,
            "deltas": deltas,
            "digest": runtime.book.digest(),
            "full": everything if full else None,
            "unresolved_claims": runtime.claims.unresolved() if full else [],
            "mode": runtime.modes.word(),
            "free": {**runtime.book.free(), "disk_mb": runtime.modes.task_disk_mb},
            "disk": {"free_mb": runtime.modes.free_disk_mb},
            "spool": {"results": len(runtime.reports)},
        }
        return body, told

    def _obey(self, answer: Json) -> None:
        runtime = self.runtime
        interval = float(answer.get("interval_s") or runtime.timers.heartbeat_s)
        runtime.beat.plan(interval * self._dice.uniform(0.8, 1.2))
        runtime.attend(answer)
        if answer.get("want_full"):
            runtime.beat.soon(full=True)
        for verdict in answer.get("leases") or ():
            runtime.stopper.obey(str(verdict.get("lease")), str(verdict.get("verdict")))
        runtime.obey_agent_orders(answer.get("agent") or {})


def _started_s_ago(started_at: float | None) -> float:
    return 0.0 if started_at is None else round(max(0.0, uptime_s() - started_at), 3)
