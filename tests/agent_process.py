"""A real agent process against the in-memory API, and what tests do to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.framing import connect_socket, frame, read_json
from tests.agent_api import AgentApi
from tests.waiting import wait_until

_COMMAND = [sys.executable, "-m", "airavata_scheduler.agent"]


class AgentProcess:
    """One state folder; the process in it may be started again and again."""

    def __init__(self, api: AgentApi, folder: Path, **environment: str) -> None:
        self.api = api
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
                [*_COMMAND, "run", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def verb(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Another verb, to its end."""
        return subprocess.run(
            [*_COMMAND, *words],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def signal(self, number: int) -> None:
        """Signal the agent's process only."""
        assert self.process is not None
        self.process.send_signal(number)

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
        task = self.api.tasks[task_id]
        work = self.home / "work"
        found = wait_until(
            lambda: read_json(work / (task.lease or "none") / "payload.json"),
            message="payload.json",
        )
        return dict(found or {})

    def end(self) -> None:
        """Take everything down: agent, payloads, workers, shepherd."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for task in self.api.tasks.values():
            for attempt in {task.lease, *(report["lease"] for report in task.reports)}:
                if attempt:
                    processes.kill_marked(attempt, rounds=3)
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
