"""Clocks and hosts: wrong clocks, frozen and rebooted machines, copied and full state folders.

Real agents on pretend machines, the real application on PostgreSQL.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.agent import processes
from airavata_scheduler.models.database import execute, now_ms
from tests.agent_process import AgentProcess
from tests.api import Api
from tests.hosts.machine import Machine, machine
from tests.live_api import LiveApi, live
from tests.waiting import wait_until
from tests.wire_agent import artifact_item, completed

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True),
]
DAY_S = 86_400


@pytest.fixture
def site(api: Api) -> Iterator[LiveApi]:
    """The real application, over HTTP."""
    with live(api) as served:
        yield served


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Machine]:
    """A machine that is switched on."""
    with machine(tmp_path / "node") as made:
        yield made


@pytest.fixture
def worker(site: LiveApi, node: Machine, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent of that machine that is not started yet."""
    made = AgentProcess(site, tmp_path, node, COMPUTE_ID="cluster")
    yield made
    made.end()


def ledger(worker: AgentProcess, then: str = "") -> str:
    """A script that writes its lease to the ledger, then does something."""
    return f'#!/bin/sh\necho "$AIRAVATA_LEASE" >> {worker.ledger}\n{then}\n'


def begin(worker: AgentProcess, site: LiveApi, *options: str) -> None:
    """Start the agent, and see that it has a session of its own."""
    before = len(site.sessions())
    worker.start(*options)
    wait_until(lambda: len(site.sessions()) > before, message="the agent's session")


def until(gate: Path) -> str:
    """Shell that waits for a file."""
    return f"until [ -e {gate} ]; do sleep 0.05; done"


@pytest.mark.parametrize("days", [1, pytest.param(-1, marks=pytest.mark.nightly)])
def test_a_wall_clock_that_is_a_day_wrong_changes_nothing(
    days: int, site: LiveApi, node: Machine, worker: AgentProcess, tmp_path: Path
) -> None:
    """It jumps while tasks run: they go on, one session, no retries; times are the database's."""
    gate, clocks = tmp_path / "gate", tmp_path / "clocks"
    begin(worker, site)
    began = now_ms()
    running = site.script(ledger(worker, until(gate)), 2)
    wait_until(lambda: len(worker.lines()) == 2, message="the starts")

    node.set_clock(days * DAY_S)
    gate.touch()
    worker.done(*running)
    later = site.script(ledger(worker, f"date +%s >> {clocks}"), 4)
    worker.done(*later)

    assert sorted(worker.lines()) == sorted(site.lease(task) for task in (*running, *later))
    assert len(site.sessions()) == 1
    for seconds in clocks.read_text().split():
        assert abs(int(seconds) - days * DAY_S - time.time()) < 60
    check_times(6, since=began)


def check_times(count: int, *, since: int) -> None:
    """So many attempts ended, each in its order, and since then."""
    times = execute("SELECT leased_at, started_at, finished_at FROM attempts")
    assert len(times) == count
    for leased_at, started_at, finished_at in times:
        assert since <= leased_at <= (started_at or leased_at) <= finished_at <= now_ms()


@pytest.mark.parametrize("days", [pytest.param(0, marks=pytest.mark.nightly), 1, -1])
def test_a_rebooted_machine_reports_what_it_lost_at_once(
    days: int, site: LiveApi, node: Machine, worker: AgentProcess, tmp_path: Path
) -> None:
    """What had ended is reported with its result, what ran is lost; no lease is started twice.

    The clock may be wrong after the power came back: an age is never longer than its lease.
    """
    gate, ended = tmp_path / "gate", tmp_path / "ended"
    begin(worker, site)
    began = now_ms()
    (finished,) = site.script(ledger(worker, f"{until(ended)}; echo x > out"), **output())
    (lost,) = site.script(ledger(worker, until(gate)))
    wait_until(lambda: len(worker.lines()) == 2, message="the starts")
    worker.signal(signal.SIGSTOP)
    ended.touch()
    wait_until((worker.place(finished) / "exit.json").exists, message="the first one's end")
    first = [site.lease(task) for task in (finished, lost)]

    node.power_off()
    worker.wait()
    gate.touch()
    node.set_clock(days * DAY_S)
    node.boot()
    begin(worker, site)
    wait_until(lambda: site.attempts(lost) and site.attempts(finished), message="two reports")
    site.hurry()
    worker.done()

    assert site.attempts(finished) == [(1, "COMPLETED", None)]
    assert site.attempts(lost) == [(1, "LOST", "lost_host"), (2, "COMPLETED", None)]
    assert Counter(worker.lines()) == Counter([*first, site.lease(lost)])
    check_times(3, since=began)


def output() -> dict[str, Any]:
    """What a task says that makes a file called out."""
    return {"task_outputs": {"OUT": "out"}}


@pytest.mark.parametrize("claimed", [True, False])
def test_a_machine_that_stood_still_for_20_minutes(
    claimed: bool, site: LiveApi, node: Machine, worker: AgentProcess, tmp_path: Path
) -> None:
    """Agent, wrapper and payload are frozen, and the lease expires.

    Did another agent take the task, then the payload is stopped and its result counts no more;
    else it goes on where it was, and the one attempt is accepted.
    """
    gate = tmp_path / "gate"
    begin(worker, site)
    (task,) = site.script(ledger(worker, f"{until(gate)}; echo x > out"), **output())
    wait_until(worker.lines, message="the start")
    lease = site.lease(task)
    node.freeze()
    site.let_pass(20 * 60)
    assert site.attempts(task) == [(1, "EXPIRED", "agent_expired")]

    if claimed:
        other = site.site.beside()
        taken = other.claim(1)["leases"][0]["lease"]
        other.put_artifact(taken, "OUT", "out", b"other")
        assert other.report(completed(taken, artifacts=[artifact_item("OUT", "out", b"other")]))
        node.thaw()
        wait_until(lambda: not processes.marked(lease), message="the payload to be stopped")
        gate.touch()
    else:
        node.thaw()
        wait_until(lambda: len(site.sessions()) == 2, message="the second session")
        gate.touch()
    worker.done()
    wait_until(lambda: not held(worker), message="the agent to hold nothing")

    assert worker.lines() == [lease]
    ends = [(1, "EXPIRED", "agent_expired"), (2, "COMPLETED", None)]
    assert site.attempts(task) == (ends if claimed else [(1, "COMPLETED", None)])
    published = execute("SELECT COUNT(*) FROM artifacts WHERE published_at IS NOT NULL")
    assert published == [(1,)]


def held(worker: AgentProcess) -> list[Any]:
    """The leases that the agent says it holds."""
    found: list[Any] = json.loads(worker.verb("status", "--json").stdout)["leases"]
    return found
