"""A scheduler as the deployment guide starts it: four words, and the guide's variables."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.acceptance.system import BIN, bare_environment
from tests.servers.programs import as_user, free_port
from tests.waiting import wait_until

ANSWERS_WITHIN_S = 60.0
ENDS_WITHIN_S = 40.0
PASSWORD = "correct-horse-battery"  # the administrator's, in these tests only
_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)


@dataclass(kw_only=True)
class Deployment:
    """Processes of one scheduler and the commands of its administrator.

    `settings` are the variables of server and daemon; nothing else is in their environment but what
    a new user's shell has.
    """

    folder: Path
    settings: Mapping[str, str]
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of server, daemon and admin."""
        own = bare_environment(self.folder)
        return own | {"SERVER_PORT": str(self.port), **self.settings}

    def start(
        self, word: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `airavata-scheduler WORD`; its output goes to WORD.out in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.output(word).open("ab") as output:
            process = subprocess.Popen(
                # A run of pytest that is killed leaves nothing behind.
                [*as_user(), str(BIN / "airavata-scheduler"), word],
                env=self.environment if environment is None else dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def output(self, word: str) -> Path:
        """What the processes of this word wrote."""
        return self.folder / f"{word}.out"

    def wait_until_it_answers(self) -> None:
        """Wait for `/api/v1/health`; fails at once when a process ended."""
        wait_until(self._answers, timeout_s=ANSWERS_WITHIN_S, message=f"{self.url} to answer")

    def _answers(self) -> bool:
        for process in self.processes:
            said = [path.read_text() for path in self.folder.glob("*.out")]
            assert process.poll() is None, "\n".join(said)
        try:
            return self.get("/api/v1/health")[0] == HTTPStatus.OK
        except OSError:
            return False

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Stop one process as systemd does; its exit code."""
        process.terminate()
        code = process.wait(ENDS_WITHIN_S)
        self.processes.remove(process)
        return code

    def end_all(self) -> None:
        """Stop what runs, the newest first; kill what does not listen."""
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `airavata-scheduler …` to its end, with other settings where they are given."""
        return self._run("airavata-scheduler", arguments, self.environment | settings)

    def airavata(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the user's command to its end; its profile is in the folder."""
        environment = bare_environment(self.folder) | {"AIRAVATA_PASSWORD": PASSWORD}
        return self._run("airavata", arguments, environment)

    def answer(self, *arguments: str) -> Any:
        """The JSON that `airavata … --json` prints; the command must succeed."""
        done = self.airavata(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(
        self, program: str, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            [str(BIN / program), *arguments],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET without any login."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return answer.status, answer.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        found = _SAMPLE.finditer(self.get("/metrics")[1])
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        return sum(
            float(sample["value"])
            for sample in found
            if sample["name"] == name and wanted <= set((sample["labels"] or "").split(","))
        )

    def worker_environment(self, name: str, compute: str) -> dict[str, str]:
        """The guide's variables of a worker, and nothing else of ours."""
        return bare_environment(self.folder) | {
            "WORKER_ID": name,
            "COMPUTE_ID": compute,
            "API_URL": self.url,
            "OUTPUT_DIR": str(self.folder / "output"),
            "POLL_INTERVAL": "30s",
        }

    def approve(self, name: str) -> None:
        """Type what the waiting worker asks for."""
        asked = re.compile(rf"airavata (agent approve {re.escape(name)} --code \S+)")
        found = wait_until(
            lambda: asked.search(self.output("worker").read_text()),
            timeout_s=30.0,
            message="the worker did not ask to be approved",
        )
        assert found is not None
        done = self.airavata(*found[1].rstrip('",.').split())
        assert done.returncode == 0, done.stderr

    def wait_for_worker(self, name: str, presence: str = "online") -> None:
        """Wait until `airavata agent list` shows the agent so."""
        wait_until(
            lambda: (
                presence
                in [
                    agent["presence"]
                    for agent in self.answer("agent", "list")["items"]
                    if agent["name"] == name
                ]
            ),
            timeout_s=30.0,
            message=f"{name} to be {presence}",
        )
