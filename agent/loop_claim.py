"""The claim loop: long-polls for work; when full, only listens for attention."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from airavata_scheduler.agent.faults import Stopping
from airavata_scheduler.agent.framing import compact
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.transport import Interrupt

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

_POLL_S = 20.0
_FULL_FOR_S = 0.5  # short tasks make room at once; do not hold a server's thread for that


class ClaimLoop(Loop):
    """One long-poll at a time."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "claim")
        self._lock = threading.Lock()
        self._waiting: Interrupt | None = None
        self._only_listens = False

    def turn(self) -> None:
        """Claim when there is room, else wait for room or attention."""
        self.runtime.modes.listening.wait()
        self.runtime.beat.let_pass()
        wait_s = self._wait_s()
        if self.runtime.claims.want():
            body = self.runtime.claims.take()
            if body is not None:
                self._claim({**body, "wait_s": wait_s})
        elif not self._room_comes():
            body = self.runtime.claims.take(coreless=True)
            if body is None or not self._claim(body):
                self._listen(wait_s)

    def wake(self) -> None:
        """Cut whatever is being waited for."""
        self.runtime.modes.listening.set()
        self.make_room_known(force=True)

    def make_room_known(self, *, force: bool = False) -> None:
        """There is room again: a call that only listens is ended, so that a claim can be made."""
        with self._lock:
            # A claim is never cut while the agent goes on: its answer may be leases.
            waiting = self._waiting
            if waiting is None or not (force or self._only_listens):
                return
            if force or self.runtime.claims.want():
                waiting.cut()

    def _wait_s(self) -> float:
        # Ending just before the next heartbeat lets both share one connection.
        runtime = self.runtime
        longest = min(_POLL_S, runtime.timers.poll_ceiling_s)
        return round(max(0.2, min(longest, runtime.beat.due_in_s() - 0.3)), 2)

    def _claim(self, body: dict[str, object]) -> int:
        """Send it; how many leases came."""
        runtime = self.runtime
        interrupt = self._watched(only_listens=False)
        started = time.monotonic()
        try:
            runtime.journal.sync()
            answer = runtime.api.call(
                "POST",
                "/leases/claim",
                body=compact(body),
                kind="application/json",
                timeout_s=float(str(body["wait_s"])) + 15.0,
                interrupt=interrupt,
            ).json()
        except BaseException:
            runtime.claims.give_up()
            raise
        finally:
            self._unwatched()
        count = runtime.claims.settle(body, answer)
        runtime.attend(answer)
        if not count and body["wait_s"]:
            self._rest(float(answer.get("poll_s") or 0.0), time.monotonic() - started)
        return count

    def _rest(self, asked_s: float, waited_s: float) -> None:
        """An empty answer: wait as told, at most the user's POLL_INTERVAL."""
        pause = min(asked_s, self.runtime.settings.poll_interval_s)
        if waited_s < 0.2:
            pause = max(pause, 0.2)  # the server did not hold the call: never spin
        if pause:
            self.runtime.stop.wait(pause)

    def _room_comes(self) -> bool:
        book = self.runtime.book
        with book.ended:
            return book.ended.wait_for(
                lambda: self.runtime.stop.is_set() or self.runtime.claims.want() > 0, _FULL_FOR_S
            )

    def _listen(self, wait_s: float) -> None:
        interrupt = self._watched(only_listens=True)
        try:
            if self.runtime.claims.want():
                return
            answer = self.runtime.api.call(
                "POST",
                "/leases/claim",
                body=compact(self.runtime.claims.listening(wait_s)),
                kind="application/json",
                timeout_s=wait_s + 15.0,
                interrupt=interrupt,
            ).json()
        except Stopping:
            return
        finally:
            self._unwatched()
        self.runtime.attend(answer)
        self.runtime.stop.wait(min(float(answer.get("poll_s") or 0.0), 15.0) or 0.05)

    def _watched(self, *, only_listens: bool) -> Interrupt:
        interrupt = Interrupt()
        with self._lock:
            self._waiting, self._only_listens = interrupt, only_listens
        return interrupt

    def _unwatched(self) -> None:
        with self._lock:
            self._waiting = None
