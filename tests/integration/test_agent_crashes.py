"""The agent dies, at named points and at random: nothing is lost, nothing runs twice."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.journal import Journal
from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.waiting import wait_until

SCRIPT_POINTS = (
    "launch.before",
    "launch.journalled",
    "launch.sent",
    "report.before",
    "report.journalled",
    "report.answered",
)
CALL_POINTS = ("pool.journalled", "report.before", "report.journalled", "report.answered")


def _call(agent: AgentProcess, name: str, seconds: float = 0.0) -> dict[str, Any]:
    source = (
        "import time\n"
        "def work(name, seconds):\n"
        f"    with open({str(agent.ledger)!r}, 'a') as ledger:\n"
        "        ledger.write(name + '\\n')\n"
        "    time.sleep(seconds)\n"
        "    return name\n"
    )
    return {
        "python": {"entry": "work", "source": source, "codec": "json"},
        "arguments": {"encoding": "json", "data": {"name": name, "seconds": seconds}},
    }


@pytest.mark.parametrize("point", SCRIPT_POINTS)
def test_scripts_survive_a_crash_at(point: str, twin: AgentApi, agent: AgentProcess) -> None:
    """Killed at a named point and started again: each script runs exactly once."""
    for number in range(4):
        twin.add(agent.note(str(number), "sleep 0.3"))
    agent.start(crash=point)
    assert agent.wait() == -signal.SIGKILL

    agent.start()
    agent.done()

    assert sorted(agent.lines()) == ["0", "1", "2", "3"]
    assert all(
        task.result and task.result["outcome"] == "completed" for task in twin.tasks.values()
    )


@pytest.mark.parametrize("point", CALL_POINTS)
def test_calls_survive_a_crash_at(point: str, twin: AgentApi, agent: AgentProcess) -> None:
    """Killed at a named point and started again: each call runs exactly once."""
    for number in range(6):
        twin.add(**_call(agent, str(number), 0.05))
    agent.start(crash=point)
    assert agent.wait() == -signal.SIGKILL

    agent.start()
    agent.done()

    assert sorted(agent.lines()) == [str(number) for number in range(6)]
    assert all(
        task.result and task.result["outcome"] == "completed" for task in twin.tasks.values()
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_instants(seed: int, twin: AgentApi, agent: AgentProcess) -> None:
    """kill -9 at random moments with scripts and calls under way: every task once, none lost."""
    dice = random.Random(seed)
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[limits]\nmax_cpu = 6\n")
    for number in range(16):
        twin.add(agent.note(f"script {number}", "sleep 0.4"))
        twin.add(**_call(agent, f"call {number}", 0.2))
    never = threading.Event()

    for _ in range(3):
        agent.start()
        never.wait(dice.uniform(0.3, 2.0))  # the instant itself is what is random here
        agent.kill()
    agent.start()
    agent.done(timeout_s=90)

    counts = Counter(agent.lines())
    assert len(counts) == 32
    assert set(counts.values()) == {1}


def test_payloads_outlive_agent_and_shepherd(twin: AgentApi, agent: AgentProcess) -> None:
    """Agent and shepherd are killed; the script goes on, is adopted, and is reported once."""
    gate = agent.ledger.with_name("gate")
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo finished"
    task = twin.add(agent.note("ran", wait))
    agent.start()
    wait_until(agent.lines, message="the script's start")
    shepherd = agent.shepherd_pid()

    agent.kill()
    os.kill(shepherd, signal.SIGKILL)
    agent.start()
    wait_until(lambda: len(twin.sessions) == 2, message="the second session")
    gate.touch()
    agent.done()

    assert agent.lines() == ["ran"]
    assert "adopted 1 payloads" in agent.log.read_text()
    assert (twin.result(task) or {})["outcome"] == "completed"


def test_a_dead_shepherd_is_replaced(twin: AgentApi, agent: AgentProcess) -> None:
    """The shepherd alone is killed: running work ends well and new work starts."""
    first = twin.add(agent.note("first", "sleep 1"))
    agent.start()
    wait_until(agent.lines, message="the script's start")

    os.kill(agent.shepherd_pid(), signal.SIGKILL)
    second = twin.add(agent.note("second"))
    third = twin.add(**_call(agent, "third"))
    agent.done()

    assert sorted(agent.lines()) == ["first", "second", "third"]
    outcomes = [(twin.result(task) or {})["outcome"] for task in (first, second, third)]
    assert outcomes == ["completed"] * 3


def test_a_dead_wrapper_is_reported_as_lost(twin: AgentApi, agent: AgentProcess) -> None:
    """Without its wrapper a payload's end is unknown: leftovers are killed, the attempt is lost."""
    task = twin.add(agent.note("ran", "sleep 300"))
    agent.start()
    payload = agent.payload(task)

    os.kill(payload["wrapper"], signal.SIGKILL)
    wait_until(lambda: twin.tasks[task].reports, message="the report")

    report = twin.tasks[task].reports[0]
    assert (report["outcome"], report["failure"]["code"]) == ("lost", "wrapper_lost")
    assert not processes.is_alive(payload["pid"], payload["ticks"])


def test_after_a_reboot_nothing_is_started_again(twin: AgentApi, agent: AgentProcess) -> None:
    """Entries of another boot without an exit are lost with their host; none is relaunched."""
    task = twin.add(agent.note("ran", "sleep 300"))
    agent.start()
    payload = agent.payload(task)
    wait_until(agent.lines, message="the script's start")
    agent.kill()
    os.kill(payload["wrapper"], signal.SIGKILL)
    processes.kill_marked(twin.tasks[task].lease)
    _pretend_another_boot(agent.home / "journal", twin.tasks[task].lease)
    lease = twin.tasks[task].lease
    twin.tasks[task].offer = {**twin.tasks[task].offer, "gate": "never"}

    agent.start()
    wait_until(lambda: twin.tasks[task].reports, message="the report")

    report = twin.tasks[task].reports[0]
    assert (report["lease"], report["outcome"]) == (lease, "lost")
    assert report["failure"]["code"] == "lost_host"
    assert agent.lines() == ["ran"]


def _pretend_another_boot(folder: Path, lease: str) -> None:
    journal = Journal(folder)
    entry = journal.state.entries[lease]
    assert entry.state in ("launching", "running")
    journal.commit({"t": "boot", "boot": "an-earlier-boot", "at": 0.0})
    journal.commit({"t": "launching", "leases": [lease], "w": entry.worker})
    journal.close()


def test_a_crash_loop_takes_no_work(twin: AgentApi, agent: AgentProcess) -> None:
    """Five starts in ten minutes: what runs is reported, nothing new is taken until `resume`."""
    task = twin.add(agent.note("ran"))
    for _ in range(4):
        agent.start(crash="launch.before")
        assert agent.wait() == -signal.SIGKILL

    agent.start()
    wait_until(lambda: twin.beats and twin.beats[-1]["mode"] == "safe", message="safe mode")
    assert agent.verb("status").stdout.count("safe mode") == 1
    later = twin.add(agent.note("later"))
    agent.done(task)
    assert twin.result(later) is None
    agent.verb("resume")
    agent.done()

    assert agent.lines() == ["ran", "later"]


def _sessions(twin: AgentApi, number: int) -> bool:
    return len(twin.sessions) == number


def test_orderly_ends_are_no_crash_loop(twin: AgentApi, agent: AgentProcess) -> None:
    """Whoever stops and starts an agent many times gets an agent that works."""
    for number in range(5):
        agent.start()
        wait_until(partial(_sessions, twin, number + 1), message="the session")
        assert agent.verb("stop").returncode == 0
        assert agent.wait() == 0

    twin.add(agent.note("ran"))
    agent.start()
    agent.done()

    assert agent.lines() == ["ran"]
    assert all(beat["mode"] == "normal" for beat in twin.beats)


def test_a_torn_journal_tail_is_cut_off(twin: AgentApi, agent: AgentProcess) -> None:
    """Half a record at the end of the journal does not stop the agent."""
    task = twin.add(agent.note("ran", "sleep 1"))
    agent.start()
    wait_until(agent.lines, message="the script's start")
    agent.kill()
    segment = sorted((agent.home / "journal").glob("*.log"))[-1]
    with segment.open("ab") as file:
        file.write(b"\x40\x00\x00\x00half a record")

    agent.start()
    agent.done()

    assert agent.lines() == ["ran"]
    assert (twin.result(task) or {})["outcome"] == "completed"
