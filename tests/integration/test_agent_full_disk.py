"""A full disk: nothing new is taken, the middle of logs goes, results never; then it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.small_disk import SmallDisk, small_disk
from tests.waiting import wait_until

pytestmark = pytest.mark.campaign
_FULL = "the disk is nearly full"


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """A disk of so many MB."""
    with small_disk(tmp_path / "disk", request.param) as made:
        yield made


@pytest.fixture
def worker(twin: AgentApi, tmp_path: Path, disk: SmallDisk) -> Iterator[AgentProcess]:
    """An agent whose state folder is on that disk, with logs of at most 1 MB."""
    home = disk.path / "home"
    made = AgentProcess(twin, tmp_path, AIRAVATA_AGENT_HOME=str(home))
    made.home = home
    home.mkdir(mode=0o700)
    (home / "policy.ini").write_text("[limits]\nmax_log_mb = 1\nmax_cpu = 4\n")
    yield made
    made.end()


def why_not(worker: AgentProcess) -> str | None:
    """Why the agent takes no work, in its own words."""
    found: str | None = json.loads(worker.verb("status", "--json").stdout)["why_not"]
    return found


def see_that_nothing_is_taken(twin: AgentApi, worker: AgentProcess) -> str:
    """A task that comes now stays where it is; its id."""
    wait_until(lambda: why_not(worker) == _FULL, message="the agent to see the full disk")
    # A claim that was under way may still bring work; the next call only listens.
    wait_until(lambda: twin.bodies("/leases/claim")[-1]["max"] == 0, message="the last claim's end")
    task = twin.add(worker.note("later"))
    beats = len(twin.beats)
    wait_until(lambda: len(twin.beats) > beats + 2, message="heartbeats")
    assert twin.tasks[task].state == "queued"
    return task


@pytest.mark.parametrize("disk", [96], indirect=True)
def test_results_wait_for_room_in_the_state_folder(
    twin: AgentApi, worker: AgentProcess, disk: SmallDisk, tmp_path: Path
) -> None:
    """Not one byte can be journalled while tasks end: they are reported once there is room."""
    gate = tmp_path / "gate"
    worker.environment["OUTPUT_DIR"] = str(tmp_path / "work")
    tasks = [
        twin.add(worker.note(name, f"until [ -e {gate} ]; do sleep 0.05; done")) for name in "abc"
    ]
    worker.start()
    wait_until(lambda: len(worker.lines()) == 3, message="the starts")
    (worker.home / "journal" / "ballast").unlink()
    disk.fill()
    later = see_that_nothing_is_taken(twin, worker)

    gate.touch()
    wait_until(lambda: "is full" in worker.log.read_text(), message="the agent to say it")
    assert not any(twin.tasks[task].reports for task in tasks)
    disk.empty()
    worker.done(*tasks, later)

    assert sorted(worker.lines()) == ["a", "b", "c", "later"]
    assert [len(task.reports) for task in twin.tasks.values()] == [1] * 4
    assert len(twin.sessions) == 1
    wait_until((worker.home / "journal" / "ballast").exists, message="room to be held back again")


@pytest.mark.parametrize("disk", [700], indirect=True)
def test_logs_lose_their_middle_and_results_nothing(
    twin: AgentApi, worker: AgentProcess, disk: SmallDisk, tmp_path: Path
) -> None:
    """A payload that goes on writing on a full disk completes, and is reported while it is full."""
    gate = tmp_path / "gate"
    talks = (
        "echo first; "
        f"until [ -e {gate} ]; do head -c 1000000 /dev/zero | tr '\\0' x; sleep 0.1; done; "
        "exit 0"
    )
    task = twin.add(worker.note("ran", talks))
    worker.start()
    wait_until(worker.lines, message="the start")
    disk.fill()
    later = see_that_nothing_is_taken(twin, worker)

    gate.touch()
    worker.done(task)
    assert (twin.result(task) or {})["outcome"] == "completed"
    log = twin.logs[twin.tasks[task].lease, "stdout"]
    assert log.startswith(b"first\nxxx")
    assert b"bytes left out by the agent" in log
    assert len(log) < (1 << 20) + 100
    disk.empty()
    worker.done(later)

    assert worker.lines() == ["ran", "later"]
