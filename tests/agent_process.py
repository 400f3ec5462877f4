"""A real agent process against the in-memory API, and what tests do to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import psutil

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.framing import connect_socket, frame, read_json
from tests.hosts.machine import Machine
from tests.waiting import wait_until

_COMMAND = [sys.executable, "-m", "airavata_scheduler.agent"]


class Server(Protocol):
    """What an agent needs of a server, and what tests ask of it."""

    enrolment_token: str

    @property
    def url(self) -> str:
        """Its address."""

    def done(self, *task_ids: str) -> bool:
        """Whether all of these tasks (default: every task) have ended."""


class AgentProcess:
    """One state folder; the process in it may be started again and again.

    `machine` is the pretend machine on which it runs; without one it is this machine.
    """

    def __init__(
        self, api: Server, folder: Path, machine: Machine | None = None, **environment: str
    ) -> None:
        self.api = api
        self.machine = machine
        self.home = folder / "home"
        self.log = folder / "agent.log"
        self.ledger = folder / "ledger"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "API_URL": api.url,
            "AIRAVATA_AGENT_HOME": str(self.home),
            "WORKER_ID": "worker-1",
            "COMPUTE_ID": "laptop",
            "AIRAVATA_ENROLMENT_TOKEN": api.enrolment_token,
            "LOG_LEVEL": "debug",
            **environment,
        }

    def start(self, *options: str, crash: str = "") -> None:
        """Run it; `crash` names the point at which it kills itself."""
        environment = {**self.environment, "AIRAVATA_AGENT_CRASH": crash}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._where(), *_COMMAND, "run", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def verb(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Another verb, to its end."""
        return subprocess.run(
            [*self._where(), *_COMMAND, *words],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _where(self) -> list[str]:
        return [] if self.machine is None else self.machine.command()

    def signal(self, number: int) -> None:
        """Signal the agent's process only."""
        assert self.process is not None
        if self.machine is None:
            self.process.send_signal(number)
        else:
            # What we started stands outside of the machine, and waits for the agent in it.
            os.kill(psutil.Process(self.process.pid).children()[0].pid, number)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def lines(self) -> list[str]:
        """What payloads wrote to the ledger."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def note(self, name: str, then: str = "") -> str:
        """A script that writes `name` to the ledger, then does something."""
        return f"#!/bin/sh\necho {name} >> {self.ledger}\n{then}\n"

    def done(self, *task_ids: str, timeout_s: float = 40.0) -> None:
        """Wait until the tasks (default: all) have their results."""

        def finished() -> bool:
            return self.api.done(*task_ids)

        try:
            wait_until(finished, timeout_s=timeout_s, message="results")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-4000:]}") from None

    def shepherd_pid(self) -> int:
        """The shepherd that serves this folder."""
        for pid in processes.all_pids():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"_shepherd" in words and str(self.home).encode() in words:
                parent = _parent(pid)
                if parent is not None and b"_shepherd" not in _command(parent):
                    return pid
        raise AssertionError("no shepherd runs")

    def payload(self, task_id: str) -> dict[str, Any]:
        """payload.json of a task's newest lease, once it is there."""
        found = wait_until(
            lambda: read_json(self.place(task_id) / "payload.json"), message="payload.json"
        )
        return dict(found or {})

    def place(self, task_id: str) -> Path:
        """The folder of a task's newest lease here, made or not."""
        places = (self.home / "work").glob(f"{task_id}.*")
        newest = max(places, key=lambda place: int(place.name.split(".")[1]), default=None)
        return newest or self.home / "work" / "none"

    def end(self) -> None:
        """Take everything down: agent, payloads, workers, shepherd."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for place in (self.home / "work").glob("*.*.*"):
            processes.kill_marked(place.name, rounds=3)
        for about in self.home.glob("pool/*/worker.json"):
            worker = read_json(about)
            if worker is not None and worker.get("ticks") is not None:
                processes.send(worker["pid"], worker["ticks"], signal.SIGKILL)
        shepherd = connect_socket(self.home / "shepherd.sock", 1.0)
        if shepherd is not None:
            shepherd.sendall(frame({"retire": True}))
            shepherd.close()


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
