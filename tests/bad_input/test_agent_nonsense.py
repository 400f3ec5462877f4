"""A server, or a proxy before it, that answers nonsense neither stops an agent nor fools it."""

from __future__ import annotations

import pytest

from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess

pytestmark = pytest.mark.campaign  # some seconds each; tests/unit/test_agent_answers.py is quick

NONSENSE = {
    "nothing": b"",
    "a page": b"<html>Please log in</html>",
    "no JSON": b"{",
    "no object": b'["lease"]',
    "an empty object": b"{}",
    "no UTF-8": b'{"a": "\xff"}',
    "depth": b'{"a":' + b"[" * 100_000,
    "wrong types": b'{"leases": 7, "items": "x", "epoch": [], "specs": 1, "timers": 0}',
    "wrong members": b'{"leases": [1, {}], "items": [2, {}], "specs": {"x": 1}, "epoch": "e1"}',
}
# In the order in which an agent that has a task first meets them.
PATHS = ("/session", "/leases/claim", "/heartbeat", "/leases/start", "/leases/", "/reports")


@pytest.mark.parametrize("name", sorted(NONSENSE))
def test_nonsense_costs_no_task(name: str, twin: AgentApi, agent: AgentProcess) -> None:
    """Each call is answered with it once: the task runs once, and its result arrives once."""
    for path in PATHS:
        twin.fault(path, "say", body=NONSENSE[name])
    task = twin.add(agent.note("ran", "echo x > out"), outputs={"O": "out"}, gate="closed")

    agent.start()
    agent.done(timeout_s=60.0)

    assert (twin.result(task) or {})["outcome"] == "completed"
    assert agent.lines() == ["ran"]
    assert [report["outcome"] for report in twin.tasks[task].reports] == ["completed"]
    assert twin.files[(twin.result(task) or {})["lease"], "O", "out"] == b"x\n"
    assert agent.process is not None
    assert agent.process.poll() is None
    assert "Traceback" not in agent.log.read_text()
