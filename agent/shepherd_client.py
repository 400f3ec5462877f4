"""The agent's line to the shepherd: finds it, or starts it, and reads what it tells."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import zipimport
from pathlib import Path
from typing import Any

from airavata_scheduler.agent.faults import AgentFault
from airavata_scheduler.agent.framing import FrameReader, connect_socket, frame
from airavata_scheduler.agent.shepherd import SOCKET, SPEAKS

Json = dict[str, Any]
_START_S = 20.0


class ShepherdMissing(AgentFault):
    """The shepherd process cannot be started; see shepherd.log in the state folder."""

    code = "shepherd_missing"


def own_command() -> list[str]:
    """How to start this program again, isolated from the user's Python settings."""
    loader = globals().get("__loader__")
    if isinstance(loader, zipimport.zipimporter):
        return [sys.executable, "-I", "-S", str(Path(loader.archive).absolute())]
    return [sys.executable, "-I", "-m", "airavata_scheduler.agent"]


class ShepherdClient:
    """One connection. `send` from any thread; `receive` from the watch loop only."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._reader = FrameReader()
        self._socket = self._connect()
        self.pid = 0

    def fileno(self) -> int:
        """For select."""
        number: int = self._socket.fileno()
        return number

    def send(self, message: Json) -> bool:
        """Give an order; False when the shepherd is gone (the watch loop finds out)."""
        try:
            with self._lock:
                self._socket.sendall(frame(message))
        except OSError:
            return False
        return True

    def receive(self) -> list[Json] | None:
        """What the shepherd told; None when it is gone."""
        try:
            data = self._socket.recv(1 << 20)
            return list(self._reader.feed(data)) if data else None
        except (OSError, ValueError):
            return None

    def reconnect(self) -> None:
        """Find or start a shepherd again."""
        fresh = self._connect()
        with self._lock:
            self._socket.close()
            self._socket, self._reader = fresh, FrameReader()

    def close(self, *, retire: bool = False) -> None:
        """Let go; the shepherd stays for as long as it has children, and two minutes more.

        `retire`: nothing runs and nobody is coming, so it ends with its last child at once.
        """
        if retire:
            self.send({"retire": True})
        self._socket.close()

    def _connect(self) -> Any:
        deadline = time.monotonic() + _START_S
        started_at = 0.0
        while time.monotonic() < deadline:
            sock = connect_socket(self._home / SOCKET)
            if sock is not None:
                version = _greet(sock)
                if version == SPEAKS:
                    sock.settimeout(None)
                    return sock
                if version is not None:
                    sock.sendall(frame({"retire": True}))
                sock.close()
            # While an old shepherd holds the lock, a second one ends at once: try again.
            if time.monotonic() - started_at > 1.0:
                started_at = time.monotonic()
                self._start()
            time.sleep(0.02)
        raise ShepherdMissing(
            f"The shepherd process did not start; see {self._home / 'shepherd.log'}."
        )

    def _start(self) -> None:
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        subprocess.run(
            [*own_command(), "_shepherd", str(self._home)],
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=_START_S,
            check=False,
        )


def _greet(sock: Any) -> int | None:
    reader = FrameReader()
    try:
        sock.sendall(frame({"hello": SPEAKS}))
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            data = sock.recv(65536)
            if not data:
                return None
            for message in reader.feed(data):
                if "hello" in message:
                    return int(message["hello"])
    except (OSError, ValueError):
        return None
    return None
