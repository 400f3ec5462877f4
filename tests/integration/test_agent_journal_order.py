"""The journal comes first: before the API is told, and before a payload starts.

Looked at from the other end: at the moment at which a call arrives, or a payload runs, what is in
the agent's files says what a `kill -9` would leave.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.agent.framing import records
from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.waiting import wait_until

Json = dict[str, Any]


class Arrivals:
    """For each claim and result that arrives at the API, whether the journal had it by then."""

    def __init__(self, agent: AgentProcess) -> None:
        self._journal = agent.home / "journal"
        self.listens = False
        self.claims: list[bool] = []
        self.riding: list[bool] = []
        self.results: list[bool] = []

    def arrives(self, path: str, body: Json) -> None:
        """One call, before its deed is done."""
        if path == "/leases/claim" and not body["max"]:
            self.listens = True
        elif path == "/leases/claim":
            self.claims.append(body["claim_id"] in self._intents())
        if path == "/reports":
            told = {item["lease"] for item in body["items"]}
            self.results.append(told <= self._results())
            if body["claim"] is not None:
                self.riding.append(body["claim"]["claim_id"] in self._intents())

    def _intents(self) -> set[str]:
        return {r["claim"] for r in on_disk(self._journal) if r["t"] == "intent"}

    def _results(self) -> set[str]:
        reports = [r for r in on_disk(self._journal) if r["t"] == "report"]
        return {item["lease"] for report in reports for item in report["items"]}


def on_disk(journal: Path) -> list[Json]:
    """The records in the journal's files."""
    data = [path.read_bytes() for path in sorted(journal.glob("*.log"))]
    return [json.loads(body) for part in data for _, body in records(part)]


@pytest.fixture
def arrivals(twin: AgentApi, agent: AgentProcess) -> Arrivals:
    found = Arrivals(agent)
    twin.before_call = found.arrives
    return found


def test_what_the_api_is_told_is_in_the_journal_first(
    twin: AgentApi, agent: AgentProcess, arrivals: Arrivals
) -> None:
    """The id of each claim, and each result, when it is sent."""
    # Two cores and one task: the other core waits for work, so no claim rides along.
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[limits]\nmax_cpu = 2\n")
    twin.add(agent.note("ran", "sleep 0.2"))

    agent.start()
    agent.done()

    assert arrivals.claims
    assert all(arrivals.claims)
    assert arrivals.results == [True]
    assert arrivals.riding == []


def test_a_claim_that_rides_along_is_in_the_journal_first(
    twin: AgentApi, agent: AgentProcess, arrivals: Arrivals, tmp_path: Path
) -> None:
    """A result makes room on a busy agent, and the same call asks for work."""
    twin.heartbeat_s = 60.0  # which would end the call that only listens
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[limits]\nmax_cpu = 1\n")
    gate = tmp_path / "gate"
    twin.add(agent.note("ran", f"until [ -e {gate} ]; do sleep 0.02; done"))
    agent.start()
    wait_until(lambda: arrivals.listens, message="an agent that is full and listens")

    gate.touch()
    agent.done()

    assert arrivals.results == [True]
    assert arrivals.riding == [True]


@pytest.mark.parametrize("kind", ["script", "call"])
def test_a_payload_starts_after_its_record(
    kind: str, twin: AgentApi, agent: AgentProcess, tmp_path: Path
) -> None:
    """The payload itself looks: `launching` is in the files before its first line runs."""
    copy = tmp_path / "copy"
    journal = agent.home / "journal"
    # Behind a gate, so that the lease has been in the journal for a while.
    if kind == "script":
        task = twin.add(f"cat {journal}/*.log > {copy}", gate="closed")
    else:
        source = (
            "import pathlib\n"
            "def look():\n"
            f"    files = sorted(pathlib.Path({str(journal)!r}).glob('*.log'))\n"
            "    data = b''.join(file.read_bytes() for file in files)\n"
            f"    pathlib.Path({str(copy)!r}).write_bytes(data)\n"
        )
        python = {"entry": "look", "source": source, "codec": "json"}
        task = twin.add(gate="closed", python=python, arguments={"encoding": "json", "data": {}})
    gate = twin.fault("/leases/start", "hold")
    agent.start()
    wait_until(lambda: "granted" in {record["t"] for record in on_disk(journal)})
    gate.gate.set()
    agent.done()

    seen = [json.loads(body) for _, body in records(copy.read_bytes())]
    launched = [lease for r in seen if r["t"] == "launching" for lease in r["leases"]]
    assert launched == [twin.tasks[task].lease]
