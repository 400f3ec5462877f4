"""One warm worker as the agent sees it: its calls, its ledger, its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.framing import FrameReader, connect_socket, frame, read_json
from airavata_scheduler.agent.lease_book import Held
from airavata_scheduler.agent.pool_worker import TIMEOUT_STATUS, read_ledger

Json = dict[str, Any]
LEDGER_BYTES = 32 << 20  # a worker whose ledger is longer is replaced


class WarmWorker:
    """Only the pool's thread touches it."""

    def __init__(self, worker_id: str, key: str, folder: Path, spec: Json) -> None:
        self.id = worker_id
        self.key = key
        self.folder = folder
        self.spec = spec
        self.calls: dict[str, Held] = {}  # sent or to be sent, not ended, in order
        self.unsent: list[Json] = []  # calls
        self._unsaid: list[Json] = []  # what it is told behind them
        self.begun: str | None = None
        self.begun_at = 0.0
        self.made_at = processes.uptime_s()
        self.idle_since = self.made_at
        self.dead_since: float | None = None
        self.told: str | None = None  # why we ended it
        self.reserved = False
        self.retiring = False
        self.asked_back = False
        self._socket: socket.socket | None = None
        self._reader = FrameReader()
        self._offset = 0

    @property
    def socket(self) -> socket.socket | None:
        """The connection, once there is one."""
        return self._socket

    def connect(self) -> bool:
        """Connect if need be; whether there is a connection."""
        if self._socket is None and self.dead_since is None:
            self._socket = connect_socket(self.folder / "sock", 2.0)
            if self._socket is not None:
                self._socket.settimeout(30.0)
        return self._socket is not None

    @property
    def may_take(self) -> bool:
        """Whether more calls may be given to it."""
        is_ending = self.dead_since is not None or self.retiring or self.told is not None
        return not (is_ending or self.is_worn() or self.asked_back)

    @property
    def is_awaited(self) -> bool:
        """Whether something is to be told to it and it cannot be reached yet."""
        return self._socket is None and bool(self.unsent or self._unsaid)

    def flush(self) -> None:
        """Send what is to be sent; a broken line is found out when it is read."""
        if not (self.unsent or self._unsaid) or not self.connect() or self._socket is None:
            return
        messages = [{"calls": self.unsent}] if self.unsent else []
        messages += self._unsaid
        self.unsent, self._unsaid = [], []
        with contextlib.suppress(OSError):
            self._socket.sendall(b"".join(map(frame, messages)))

    def say(self, message: Json) -> None:
        """Tell the worker something, behind the calls that it is to have; at the latest when it
        can be reached."""
        self._unsaid.append(message)
        self.flush()

    def hear(self) -> list[Json] | None:
        """What the worker says; None when its line is closed."""
        if self._socket is None:
            return []
        try:
            data = self._socket.recv(1 << 20)
        except OSError:
            return None
        return list(self._reader.feed(data)) if data else None

    def read_ends(self) -> list[Json]:
        """New "E" entries of the ledger; keeps `begun` up to date."""
        try:
            fd = os.open(self.folder / "ledger", os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return []
        try:
            data = os.pread(fd, os.fstat(fd).st_size - self._offset, self._offset)
        finally:
            os.close(fd)
        entries, length = read_ledger(data)
        self._offset += length
        ends = []
        for entry in entries:
            if entry["k"] == "S":
                self.begun, self.begun_at = entry["l"], entry["at"]
            else:
                self.begun = None
                ends.append(entry)
        return ends

    def is_worn(self) -> bool:
        """Whether its ledger is so long that a fresh worker should take over."""
        return self._offset > LEDGER_BYTES

    def process(self) -> tuple[int, int] | None:
        """(pid, start ticks); None before it was started."""
        about = read_json(self.folder / "worker.json")
        if about is None or about.get("ticks") is None:
            return None
        return int(about["pid"]), int(about["ticks"])

    def is_alive(self) -> bool:
        """Whether its process runs."""
        process = self.process()
        return process is not None and processes.is_alive(*process)

    def kill_if_in(self, lease: str, why: str) -> list[Json]:
        """Kill it if it is in the call `lease`; "E" entries that were read on the way.

        It is held still first: between the look and the signal it might begin another call.
        """
        process = self.process()
        if process is None or not processes.send(*process, signal.SIGSTOP):
            return self.read_ends()
        ends = self.read_ends()
        if self.begun == lease:
            self.told = why
            self.kill()
        else:
            processes.send(*process, signal.SIGCONT)
        return ends

    def kill(self) -> None:
        """Kill it with everything that it started."""
        process = self.process()
        if process is None:
            return
        family = processes.descendants(process[0])
        processes.send(*process, signal.SIGKILL)
        for pid, ticks in family.items():
            processes.send(pid, ticks, signal.SIGKILL)

    def resident_kb(self) -> int:
        """Memory of the worker and what it started."""
        process = self.process()
        if process is None:
            return 0
        return processes.rss_kb([process[0], *processes.descendants(process[0])])

    def wait_status(self) -> int | None:
        """The wait status that the shepherd wrote down; None while unknown."""
        try:
            return int((self.folder / "exit").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def why_it_ended(self) -> str | None:
        """Why the agent, or the worker itself, ended it."""
        with contextlib.suppress(OSError, ValueError):
            if int((self.folder / "reason").read_text(encoding="ascii")) == TIMEOUT_STATUS:
                return "timeout"
        return self.told

    def close(self) -> None:
        """Let go of the line."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
