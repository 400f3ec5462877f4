"""Parts of a whole system are killed while tasks run: all finish, and none runs twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.acceptance.system import LocalSystem
from tests.waiting import wait_until

pytestmark = pytest.mark.campaign

TASKS = 100
# Each payload appends one line to a ledger outside our stores when it starts, and one when it ends.
# O_APPEND makes the lines whole.
EXPERIMENT = """
name: {name}
parameters:
  NUMBER: {{type: int}}
  LEDGER: {{type: string, default: "{ledger}"}}
  GO: {{type: string, default: "{go}"}}
scripts:
  WAIT: |
    #!/bin/bash
    echo "start $NUMBER" >> "$LEDGER"
    until [ -e "$GO" ]; do sleep 0.2; done
    echo "end $NUMBER" >> "$LEDGER"
    echo "$NUMBER" > number.txt
tasks:
  wait:
    script: WAIT
    task_inputs: {{NUMBER: 1..{tasks}}}
    task_outputs: {{FOUND: number.txt}}
    resources: {{compute: {{cpu: 0}}}}
"""


class Campaign:
    """One experiment whose payloads wait for a file, and the ledger that they write."""

    def __init__(self, local: LocalSystem, folder: Path, tasks: int) -> None:
        self.local = local
        self.tasks = tasks
        self.ledger = folder / "ledger"
        self.go = folder / "go"
        self.name = folder.name.replace("_", "-")
        self.ledger.touch()
        text = EXPERIMENT.format(name=self.name, ledger=self.ledger, go=self.go, tasks=tasks)
        (folder / "wait.yml").write_text(text)
        done = local.airavata("experiment", "run", str(folder / "wait.yml"))
        assert done.returncode == 0, done.stderr

    def counts(self) -> Counter[str]:
        """How often each line stands in the ledger."""
        return Counter(self.ledger.read_text().splitlines())

    def wait_for_starts(self, number: int) -> None:
        """Wait until `number` payloads have started."""
        wait_until(
            lambda: sum(line.startswith("start") for line in self.counts()) >= number,
            timeout_s=60.0,
            message=f"fewer than {number} payloads started",
        )

    def finish(self) -> None:
        """Let the payloads end; every task completes and each payload ran exactly once."""
        self.go.touch()
        done = self.local.airavata("experiment", "watch", self.name, timeout_s=180)
        assert done.returncode == 0, done.stdout + done.stderr
        expected = Counter(
            f"{event} {number}" for event in ("start", "end") for number in range(1, self.tasks + 1)
        )
        assert self.counts() == expected


@pytest.fixture(autouse=True)
def release(folder: Path) -> Iterator[None]:
    """Payloads outlive everything by design: let them end even where the test failed."""
    yield
    (folder / "go").touch()


def test_a_killed_agent_takes_its_running_tasks_up_again(local: LocalSystem, folder: Path) -> None:
    """`kill -9` of the agent during 100 running tasks: all 100 finish, none is run twice."""
    campaign = Campaign(local, folder, TASKS)
    campaign.wait_for_starts(TASKS)

    pid = local.kill("agent")

    local.wait_for_another("agent", pid)
    campaign.finish()


@pytest.mark.parametrize("name", ["redis", "api", "agents-api", "daemon"])
def test_any_child_may_be_killed(local: LocalSystem, folder: Path, name: str) -> None:
    """`kill -9` of any other process while tasks run and wait: the same."""
    campaign = Campaign(local, folder, 20)
    campaign.wait_for_starts(10)

    pid = local.kill(name)

    local.wait_for_another(name, pid)
    campaign.finish()


def test_redis_may_be_emptied(local: LocalSystem, folder: Path) -> None:
    """`FLUSHALL` at any moment loses nothing."""
    campaign = Campaign(local, folder, 20)
    campaign.wait_for_starts(10)

    with redis.Redis(unix_socket_path=str(local.home / "run" / "redis.sock")) as connection:
        connection.flushall()

    campaign.finish()


def test_the_supervisor_may_be_killed(local: LocalSystem, folder: Path) -> None:
    """`kill -9` of `local` itself: the next start ends what was left and goes on."""
    campaign = Campaign(local, folder, 20)
    campaign.wait_for_starts(10)
    assert local.supervisor is not None
    os.kill(local.supervisor.pid, signal.SIGKILL)
    local.supervisor.wait()

    local.start()

    campaign.finish()
