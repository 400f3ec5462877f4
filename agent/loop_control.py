"""The control loop: `status`, `drain`, `pause`, `resume`, `stop`, `logs`, `rotate` on this machine.

No network is needed: the person on this machine always gets an answer. The unix socket lies in the
state folder, which only its owner can enter.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.faults import AgentFault
from airavata_scheduler.agent.framing import FrameReader, bind_socket, frame
from airavata_scheduler.agent.log_shipping import STREAMS
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.places import is_lease_name
from airavata_scheduler.agent.version import VERSION

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
SOCKET = "control.sock"


class ControlLoop(Loop):
    """One question, one answer, one connection."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "control")
        self._server = bind_socket(runtime.folder.path / SOCKET)
        self._quit_r, self._quit_w = socket.socketpair()
        self._verbs = {
            "status": self._status,
            "drain": self._drain,
            "pause": self._pause,
            "resume": self._resume,
            "stop": self._stop,
            "logs": self._logs,
            "rotate": self._rotate,
        }

    def wake(self) -> None:
        """The agent stops."""
        self._quit_w.send(b".")

    def turn(self) -> None:
        """One question."""
        readable, _, _ = select.select([self._server, self._quit_r], [], [])
        if self.runtime.stop.is_set() or self._server not in readable:
            return
        client, _ = self._server.accept()
        with client:
            client.settimeout(5.0)
            question = _one_message(client)
            verb = self._verbs.get(str(question.get("verb")))
            answer = {"error": "unknown verb"} if verb is None else verb(question)
            client.sendall(frame(answer))

    def _status(self, _question: Json) -> Json:
        return status_document(self.runtime)

    def _drain(self, _question: Json) -> Json:
        self.runtime.drain()
        return {"ok": "draining: running tasks are finished, then the agent ends"}

    def _pause(self, _question: Json) -> Json:
        self.runtime.modes.paused_here = True
        self.runtime.beat.soon()
        return {"ok": "paused: nothing new is taken; `resume` ends it"}

    def _resume(self, _question: Json) -> Json:
        modes = self.runtime.modes
        if modes.draining:
            return {"error": "the agent drains and ends; start it again instead"}
        modes.paused_here = False
        modes.leave_safe_mode()
        self.runtime.claim_loop.make_room_known()
        self.runtime.book.nudge()
        self.runtime.beat.soon()
        return {"ok": "work is taken again"}

    def _stop(self, _question: Json) -> Json:
        self.runtime.end(None)
        return {"ok": "stopping; running payloads go on and are adopted at the next start"}

    def _rotate(self, _question: Json) -> Json:
        try:
            self.runtime.rotation.rotate()
        except AgentFault as problem:
            return {"error": str(problem)}
        return {"ok": "the agent has a new secret"}

    def _logs(self, question: Json) -> Json:
        lease = self._find(str(question.get("lease", "")))
        stream = question.get("stream")
        if lease is None or stream not in STREAMS:
            return {"error": "no such lease here; `status` lists them"}
        return {"path": str(self.runtime.places.of(lease) / str(stream))}

    def _find(self, text: str) -> str | None:
        """The lease that a name, a task id or a task's name names."""
        if is_lease_name(text) and self.runtime.places.of(text).is_dir():
            return text
        for held in self.runtime.book.all():
            if text in (held.offer.get("task_id"), held.offer.get("name")):
                return held.lease
        return None


def status_document(runtime: Runtime) -> Json:
    """What `status --json` prints."""
    book = runtime.book
    now = time.monotonic()
    reached = runtime.api.reached_at
    return {
        "running": True,
        "agent": runtime.identity.agent_id,
        "name": runtime.identity.name,
        "compute": runtime.identity.compute,
        "api": runtime.settings.api_url,
        "version": VERSION,
        "since": round(runtime.started_at),
        "mode": runtime.modes.word(),
        "takes_work": runtime.modes.takes_work(),
        "why_not": runtime.modes.why_not(),
        "api_answered_s_ago": None if reached is None else round(now - reached, 1),
        "api_trouble": runtime.api.trouble or None,
        "connected": runtime.modes.listening.is_set(),
        "phases": dict(Counter(held.phase for held in book.all())),
        "free": book.free(),
        "disk_free_mb": runtime.modes.free_disk_mb,
        "spool": {"results": len(runtime.reports)},
        "workers": len(runtime.pool.workers),
        "leases": [
            {"lease": held.lease, "name": held.offer.get("name"), "phase": held.phase}
            for held in book.all()[:100]
        ],
    }


def _one_message(client: socket.socket) -> Json:
    reader = FrameReader()
    while True:
        data = client.recv(65536)
        if not data:
            return {}
        for message in reader.feed(data):
            return message
