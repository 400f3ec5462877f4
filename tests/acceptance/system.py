"""Whole systems for the acceptance tests: real processes in folders and on ports of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import wait_until

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 90.0


def bare_environment(home: Path) -> dict[str, str]:
    """What a new user's shell has, and nothing of ours but the cache: SpiceDB is built once."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {
        "XDG_CACHE_HOME": cache,
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }


@dataclass(kw_only=True)
class LocalSystem:
    """`airavata-scheduler local` in a folder of its own, with the user's command beside it."""

    folder: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    supervisor: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command that the user types."""
        own = bare_environment(self.folder)
        return own | {"AIRAVATA_HOME": str(self.home), **self.extra}

    @property
    def home(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def start(self, *options: str) -> None:
        """Start it in the foreground of a process of its own and wait until it says ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "supervisor.out").open("ab") as output:
            self.supervisor = subprocess.Popen(
                [str(BIN / "airavata-scheduler"), "local", *(options or ("--port", "0"))],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(self._is_ready, timeout_s=READY_WITHIN_S, message="local did not become ready")

    def _is_ready(self) -> bool:
        assert self.supervisor is not None
        assert self.supervisor.poll() is None, (self.folder / "supervisor.out").read_text()
        status = self.status()
        return (
            status is not None
            and status["state"] == "running"
            and status["pid"] == self.supervisor.pid
        )

    def status(self) -> dict[str, Any] | None:
        """What `local --status --json` prints, or None before the first start."""
        done = self.scheduler("local", "--status", "--json")
        if not done.stdout.startswith("{"):
            return None
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def child(self, name: str) -> dict[str, Any]:
        """The status of one child."""
        status = self.status()
        assert status is not None
        return next(child for child in status["children"] if child["name"] == name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one child; its pid."""
        pid: int = self.child(name)["pid"]
        os.kill(pid, number)
        return pid

    def wait_for_another(self, name: str, pid: int) -> None:
        """Wait until child `name` runs again as another process than `pid`."""
        wait_until(
            lambda: (found := self.child(name))["state"] == "running" and found["pid"] != pid,
            timeout_s=60.0,
            message=f"{name} was not started again",
        )

    def stop(self) -> None:
        """Stop it as a user does, and see that it ended."""
        if self.supervisor is None:
            return
        self.scheduler("local", "--stop")
        self.supervisor.wait(60)
        self.supervisor = None

    def scheduler(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `airavata-scheduler …` to its end."""
        return self._run("airavata-scheduler", arguments)

    def airavata(
        self, *arguments: str, timeout_s: float = 240.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `airavata …` to its end."""
        return self._run("airavata", arguments, timeout_s)

    def answer(self, *arguments: str) -> Any:
        """The JSON that `airavata … --json` prints; the command must succeed."""
        done = self.airavata(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(
        self, program: str, arguments: tuple[str, ...], timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / program), *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def end_processes_in(folder: Path) -> None:
    """Kill every process that works inside `folder`, or has it on its command line."""
    for process in psutil.process_iter(["cwd", "cmdline"]):
        inside = Path(process.info["cwd"] or "/").is_relative_to(folder)
        named = any(str(folder) in word for word in process.info["cmdline"] or [])
        if process.pid != os.getpid() and (inside or named):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
