"""Families 1, 8 and 14: outputs that the server refuses, or that change while they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.api import MakeApi
from tests.live_api import LiveApi, live
from tests.waiting import wait_until

MOST_BYTES = 65_536  # the least that the setting takes


@pytest.fixture
def database_kind() -> str:
    """What an agent does with a refusal does not depend on the database."""
    return "sqlite"


@pytest.fixture
def server(make_api: MakeApi) -> Iterator[LiveApi]:
    """The real API, which takes files of 64 KiB."""
    with live(make_api(MAX_UPLOAD_BYTES=str(MOST_BYTES))) as made:
        yield made


@pytest.fixture
def real_agent(server: LiveApi, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent of the real API."""
    process = AgentProcess(server, tmp_path, COMPUTE_ID=server.site.compute)
    process.start()
    wait_until(server.sessions, message="the agent's session")
    yield process
    process.end()


@pytest.mark.parametrize(
    ("script", "outputs", "cause"),
    [
        (f"head -c {MOST_BYTES + 1} /dev/zero > big", {"R": "big"}, "MAX_UPLOAD_BYTES"),
        ("echo x > 'a\uff0fb'", {"R": "a*"}, "path"),
        ("echo x > \"$(printf 'a\\nb')\"", {"R": "a*"}, "path"),
    ],
)
def test_an_output_that_the_server_refuses_is_the_tasks_failure(
    script: str, outputs: dict[str, str], cause: str, server: LiveApi, real_agent: AgentProcess
) -> None:
    """It is not tried again at our cost, and the user reads which output and why."""
    (task,) = server.script(f"#!/bin/sh\n{script}\n", task_outputs=outputs)

    real_agent.done(task)

    assert server.attempts(task) == [(1, "FAILED", "output_refused")]
    failure = _failure(server, task)
    assert failure["kind"] == "user"
    assert "R (" in failure["message"]
    assert cause in failure["message"]


def _failure(server: LiveApi, task: str) -> dict[str, Any]:
    shown = server.site.owner.get(f"/tasks/{task}/attempts").json["items"][-1]
    found: dict[str, Any] = shown["failure"]
    return found


@pytest.mark.parametrize("status", [413, 422])
def test_a_refusal_of_a_proxy_is_told_too(status: int, twin: AgentApi, agent: AgentProcess) -> None:
    """Whoever refuses it: the failure has the status' code, and the output's name."""
    task = twin.add("echo x > out", outputs={"R": "out"}, gate="closed")
    twin.fault(f"/leases/{task}", "status", times=99, status=status, code="refused_by_proxy")

    agent.start()
    agent.done()

    failure = (twin.result(task) or {})["failure"]
    assert (failure["kind"], failure["code"]) == ("user", "output_refused")
    assert "R (out, 2 bytes)" in failure["message"]
