"""The watch loop: hears from the shepherd, and looks for itself once a second.

What the shepherd tells is only quick; the truth is in the folders: `started`, `payload.json`,
`exit.json`. So a shepherd that dies, or an agent that was away, changes nothing.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.lease_book import LAUNCHING, RUNNING, Held
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.payload_files import read_exit, read_payload
from airavata_scheduler.agent.payload_order import wrapper_order
from airavata_scheduler.agent.wrapper import DUPLICATE

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
_SWEEP_S = 1.0
_SILENT_S = 10.0  # a wrapper writes payload.json within milliseconds of its `started`


class WatchLoop(Loop):
    """Follows scripts from their launch to their end."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "watch")
        self._lock = threading.Lock()
        self._watched: dict[str, Held] = {}
        self._silent_since: dict[str, float] = {}
        self._nudge_r, self._nudge_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._sweep_at = 0.0

    def expect(self, scripts: list[Held]) -> None:
        """These were handed to the shepherd, or were found running."""
        with self._lock:
            idle = not self._watched
            self._watched.update((held.lease, held) for held in scripts)
        if idle:
            os.write(self._nudge_w, b".")

    def wake(self) -> None:
        """The agent stops."""
        os.write(self._nudge_w, b".")

    def turn(self) -> None:
        """Wait for news or for the next look."""
        shepherd = self.runtime.shepherd
        wait = max(0.0, self._sweep_at - time.monotonic()) if self._watched else None
        watched: list[Any] = [shepherd, self._nudge_r]
        readable, _, _ = select.select(watched, [], [], wait)
        if self.runtime.stop.is_set():
            return
        if self._nudge_r in readable:
            os.read(self._nudge_r, 512)
        if shepherd in readable:
            messages = shepherd.receive()
            if messages is None:
                self._shepherd_is_gone()
            for message in messages or ():
                self._hear(message)
        if self._watched and time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + _SWEEP_S
            self._sweep()

    def _hear(self, message: Json) -> None:
        for lease in message.get("over", ()):
            over = self._watched.get(lease)
            if over is not None:
                self.runtime.book.free_share(over)
        name = str(message.get("launched") or message.get("exit") or message.get("worker"))
        held = self._watched.get(name)
        if held is None:
            if "worker" in message or "exit" in message:
                self.runtime.pool.nudge()
            return
        if "launched" in message:
            self._runs(held, int(message["pid"]))
        elif os.WIFEXITED(message["status"]) and os.WEXITSTATUS(message["status"]) == DUPLICATE:
            # Another wrapper has the start; the sweep follows that one.
            return
        else:
            self._look(held, wrapper_is_gone=True)

    def _runs(self, held: Held, pid: int) -> None:
        self.runtime.journal.append({"t": "running", "lease": held.lease, "pid": pid})
        self.runtime.book.set_phase(held, RUNNING)
        self.runtime.beat.news()
        self.runtime.scripts_run.set()

    def _sweep(self) -> None:
        for held in list(self._watched.values()):
            self._look(held, wrapper_is_gone=False)

    def _look(self, held: Held, *, wrapper_is_gone: bool) -> None:
        folder = self.runtime.places.of(held.lease)
        ended = read_exit(folder)
        if ended is None and not self._is_lost(held, wrapper_is_gone):
            return
        # A wrapper may have written its last file between our look and its end.
        ended = ended or read_exit(folder)
        with self._lock:
            if self._watched.pop(held.lease, None) is None:
                return
            self._silent_since.pop(held.lease, None)
        if ended is None:
            processes.kill_marked(held.lease)
        self.runtime.finisher.script_ended(held, ended)

    def _is_lost(self, held: Held, wrapper_is_gone: bool) -> bool:
        if wrapper_is_gone:
            return True
        folder = self.runtime.places.of(held.lease)
        payload = read_payload(folder)
        if payload is not None:
            if payload["boot_id"] != self.runtime.boot_id:
                return True
            if held.phase == LAUNCHING:
                self._runs(held, int(payload["wrapper"]))
            return not processes.is_alive(payload["wrapper"], payload["wrapper_ticks"])
        if not (folder / "started").exists():
            return False
        since = self._silent_since.setdefault(held.lease, time.monotonic())
        return time.monotonic() - since > _SILENT_S

    def _shepherd_is_gone(self) -> None:
        runtime = self.runtime
        runtime.log.warning("the shepherd is gone; a new one is started, payloads go on")
        runtime.shepherd.reconnect()
        # Orders that the old one took and did not carry out are given again; `started` fences them.
        orders = []
        for held in list(self._watched.values()):
            folder = runtime.places.of(held.lease)
            if not (folder / "started").exists():
                orders.append(
                    wrapper_order(
                        held,
                        folder,
                        base=runtime.base_environment,
                        policy=runtime.policy,
                        boot_id=runtime.boot_id,
                    )
                )
        runtime.shepherd.send({"launch": orders})
        runtime.pool.nudge()
