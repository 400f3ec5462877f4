"""Copied, restored and torn state folders: what may have been started is never started again.

Each payload writes its lease to the ledger, so that a second start is seen without asking anybody.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.api import Api
from tests.hosts.machine import Machine, machine
from tests.live_api import LiveApi, live
from tests.waiting import wait_until

NEWER_SESSION_ELSEWHERE = 7


@pytest.fixture
def site(api: Api) -> Iterator[LiveApi]:
    """The real application, over HTTP."""
    with live(api) as served:
        yield served


@pytest.fixture
def worker(site: LiveApi, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent of this machine that is not started yet, with room for four payloads."""
    made = AgentProcess(site, tmp_path / "original", COMPUTE_ID="cluster")
    made.home.mkdir(mode=0o700, parents=True)
    (made.home / "policy.ini").write_text("[limits]\nmax_cpu = 4\n")
    yield made
    made.end()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Machine]:
    """Another machine."""
    with machine(tmp_path / "node") as made:
        yield made


def waits(worker: AgentProcess, gate: Path) -> str:
    """A script that writes its lease to the ledger, then waits for a file."""
    deed = f'echo "$AIRAVATA_LEASE" >> {worker.ledger}'
    return f"#!/bin/sh\n{deed}\nuntil [ -e {gate} ]; do sleep 0.05; done\n"


def copy_to(home: Path, copy: Path) -> None:
    """With everything, also with what the files were changed at."""
    subprocess.run(["cp", "-a", home, copy], check=True)


def copied_on_the_way(worker: AgentProcess, site: LiveApi, gate: Path, copy: Path) -> list[str]:
    """Two tasks that run; when the copy was made one of them was only about to be launched."""
    worker.start()
    wait_until(site.sessions, message="the session")
    (running,) = site.script(waits(worker, gate))
    wait_until(worker.lines, message="the first start")
    worker.kill()
    worker.start(crash="launch.journalled")
    # A claim of the one that was killed may still be answered, until there is another session.
    wait_until(lambda: len(site.sessions()) == 2, message="the second session")
    (about,) = site.script(waits(worker, gate))
    assert worker.wait() == -signal.SIGKILL
    copy_to(worker.home, copy)
    worker.start()
    wait_until(lambda: len(worker.lines()) == 2, message="the second start")
    wait_until(lambda: len(site.sessions()) == 3, message="its session")
    return [running, about]


def beside(worker: AgentProcess, site: LiveApi, home: Path, on: Machine | None) -> AgentProcess:
    """The agent of a copied folder; its ledger is that of the original."""
    made = AgentProcess(site, home.parent, on, COMPUTE_ID="cluster", AIRAVATA_AGENT_HOME=str(home))
    made.home, made.ledger = home, worker.ledger
    return made


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "where", ["this host", pytest.param("another host", marks=pytest.mark.campaign)]
)
def test_a_copy_starts_nothing_again(
    where: str, site: LiveApi, worker: AgentProcess, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Copied while work runs, and both go on: the copy has the session, the original ends.

    What ran or was started in the original is given out under new leases; one result counts.
    """
    node = request.getfixturevalue("node") if where == "another host" else None
    gate = tmp_path / "gate"
    copy = beside(worker, site, tmp_path / "copied" / "home", node)
    copy.home.parent.mkdir()
    tasks = copied_on_the_way(worker, site, gate, copy.home)
    first = worker.lines()

    try:
        copy.start(*(["--take-over"] if node else []))
        assert worker.wait() == NEWER_SESSION_ELSEWHERE
        site.hurry()
        wait_until(lambda: len(worker.lines()) == 4, message="the starts in the copy")
        gate.touch()
        copy.done(*tasks)
    finally:
        copy.end()

    assert set(Counter(worker.lines()).values()) == {1}
    assert {site.lease(task) for task in tasks} == set(worker.lines()) - set(first)
    for task in tasks:
        completed = [number for number, end, _ in site.attempts(task) if end == "COMPLETED"]
        assert len(completed) == 1


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_copy_goes_on_with_what_runs_in_the_same_place(
    site: LiveApi, worker: AgentProcess, tmp_path: Path
) -> None:
    """Only the state folder is copied: what runs in the tasks' folder is there for the copy, too.

    Also what the copy's journal says was not even launched.
    """
    gate = tmp_path / "gate"
    worker.environment["OUTPUT_DIR"] = str(tmp_path / "work")
    copy = beside(worker, site, tmp_path / "copied" / "home", None)
    copy.environment["OUTPUT_DIR"] = worker.environment["OUTPUT_DIR"]
    copy.home.parent.mkdir()
    tasks = copied_on_the_way(worker, site, gate, copy.home)

    try:
        copy.start()
        assert worker.wait() == NEWER_SESSION_ELSEWHERE
        gate.touch()
        copy.done(*tasks)
    finally:
        copy.end()

    assert len(worker.lines()) == 2
    assert [site.attempts(task) for task in tasks] == [[(1, "COMPLETED", None)]] * 2


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_an_old_copy_in_place_of_what_is_gone(
    site: LiveApi, worker: AgentProcess, tmp_path: Path
) -> None:
    """The folder is lost with all that ran, and brought back as it was before the starts."""
    gate, backup = tmp_path / "gate", tmp_path / "backup"
    tasks = copied_on_the_way(worker, site, gate, backup)
    worker.end()
    shutil.rmtree(worker.home)
    copy_to(backup, worker.home)

    worker.start()
    wait_until(lambda: len(site.sessions()) == 4, message="the restored agent's session")
    site.hurry()
    gate.touch()
    worker.done(*tasks)

    assert set(Counter(worker.lines()).values()) == {1}
    assert len(worker.lines()) == 4
    assert all(site.attempts(task)[-1][1] == "COMPLETED" for task in tasks)


def test_a_call_of_a_copy_is_not_waited_for(
    twin: AgentApi, agent: AgentProcess, tmp_path: Path
) -> None:
    """The worker that runs it writes to the original's folder: the copy gives the call back."""
    gate, ledger = tmp_path / "gate", agent.ledger
    source = (
        "import os, time\n"
        "def wait():\n"
        f"    with open({str(ledger)!r}, 'a') as ledger:\n"
        "        ledger.write(os.environ['AIRAVATA_LEASE'] + '\\n')\n"
        f"    while not os.path.exists({str(gate)!r}):\n"
        "        time.sleep(0.02)\n"
    )
    python: dict[str, Any] = {"entry": "wait", "source": source, "codec": "json"}
    task = twin.add(python=python, arguments={"encoding": "json", "data": {}})
    agent.start()
    wait_until(agent.lines, message="the call's begin")
    copy = AgentProcess(twin, tmp_path, AIRAVATA_AGENT_HOME=str(tmp_path / "copy"))
    copy.home = tmp_path / "copy"
    copy_to(agent.home, copy.home)

    try:
        copy.start()
        wait_until(lambda: len(agent.lines()) == 2, message="the second attempt")
        gate.touch()
        copy.done()
    finally:
        copy.end()

    assert agent.wait() == NEWER_SESSION_ELSEWHERE
    assert set(Counter(agent.lines()).values()) == {1}
    assert twin.tasks[task].attempt == 2
