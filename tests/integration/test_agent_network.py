"""The network and the API fail: lost answers, 503, resets, ended sessions, revocation, epochs."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest

from airavata_scheduler.agent.transport import Transport
from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.waiting import wait_until


def test_lost_answers_cost_nothing(twin: AgentApi, agent: AgentProcess) -> None:
    """The deed was done and its answer lost: the same key again, nothing twice."""
    for path in ("/enroll", "/token", "/session", "/leases/claim", "/leases/start", "/reports"):
        twin.fault(path, "lose")
    open_task = twin.add(agent.note("open"))
    closed = twin.add(agent.note("closed"), gate="closed")

    agent.start()
    agent.done()

    assert sorted(agent.lines()) == ["closed", "open"]
    assert {twin.tasks[t].attempt for t in (open_task, closed)} == {1}
    claims = [body["claim_id"] for body in twin.bodies("/leases/claim") if body["max"]]
    assert len(claims) > len(set(claims))


def test_refusals_that_pass_are_tried_again(twin: AgentApi, agent: AgentProcess) -> None:
    """503 with Retry-After, 429 and broken lines delay work, they do not fail it."""
    twin.fault("/leases/claim", "status", status=503, retry_after="0")
    twin.fault("/reports", "status", status=429, code="rate_limited", retry_after="0")
    twin.fault("/reports", "reset")
    twin.fault("/leases/", "reset")
    task = twin.add(agent.note("ran", "echo x > out"), outputs={"O": "out"})

    agent.start()
    agent.done()

    assert (twin.result(task) or {})["outcome"] == "completed"
    assert agent.lines() == ["ran"]


def test_one_bad_item_does_not_block_the_others(twin: AgentApi, agent: AgentProcess) -> None:
    """A whole report that is refused is cut in halves until only the bad item is left."""
    tasks = [twin.add(agent.note(str(n))) for n in range(3)]
    twin.fault("/reports", "status", status=422, code="malformed")

    agent.start()
    agent.done()

    outcomes = sorted((twin.result(task) or {})["outcome"] for task in tasks)
    assert outcomes in (["completed"] * 3, ["completed", "completed", "failed"])


def test_an_ended_session_is_opened_again(twin: AgentApi, agent: AgentProcess) -> None:
    """The server forgot the session: a new one with the full list, the payload goes on."""
    task = twin.add(agent.note("ran", "sleep 2"))
    agent.start()
    wait_until(agent.lines, message="the script's start")

    with twin.lock:
        twin.ended_sessions.add(twin.session_id)
    agent.done()

    assert len(twin.sessions) == 2
    assert [line["lease"] for line in twin.sessions[1]["leases"]] == [twin.tasks[task].lease]
    assert agent.lines() == ["ran"]


def test_a_refusal_that_crosses_the_new_session_opens_no_third(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """A call of the session that ended is refused after another loop has opened a new one."""
    crossing = twin.fault("/leases/claim", "hold")
    agent.start()
    wait_until(lambda: twin.beats and not crossing.times, message="a heartbeat, a claim under way")
    with twin.lock:
        twin.ended_sessions.add(twin.session_id)
    wait_until(lambda: len(twin.sessions) == 2, message="the second session")

    crossing.gate.set()
    task = twin.add(agent.note("ran"))
    agent.done(task)
    beats = len(twin.beats)
    wait_until(lambda: len(twin.beats) > beats + 1, message="heartbeats")

    assert len(twin.sessions) == 2


def test_the_loser_of_a_cloned_folder_ends(twin: AgentApi, agent: AgentProcess) -> None:
    """A newer session elsewhere: this agent ends with its own exit code."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")

    with twin.lock:
        twin.session_id = "another"

    assert agent.wait() == 7


def test_a_revoked_agent_stops_and_forgets(twin: AgentApi, agent: AgentProcess) -> None:
    """Revoked: payloads end, the secret is wiped, the exit code says so."""
    twin.add(agent.note("ran", "sleep 300"))
    agent.start()
    wait_until(agent.lines, message="the script's start")

    twin.state = "revoked"

    assert agent.wait() == 3
    assert not (agent.home / "identity.json").exists()


def test_an_expired_token_is_renewed(twin: AgentApi, agent: AgentProcess) -> None:
    """401 token_expired: a new token, the same call again."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")

    with twin.lock:
        twin.tokens.clear()
    task = twin.add("true")
    agent.done()

    assert (twin.result(task) or {})["outcome"] == "completed"


def test_a_new_epoch_brings_acknowledged_results_again(twin: AgentApi, agent: AgentProcess) -> None:
    """The server lost its last commits: what it had acknowledged is reported once more."""
    task = twin.add(agent.note("ran"))
    agent.start()
    agent.done()
    wait_until(lambda: not _leases(agent), message="the acknowledgement")

    with twin.lock:
        twin.epoch = "e2"
        twin.tasks[task].result = None
        twin.tasks[task].state = "leased"
    agent.done()

    assert agent.lines() == ["ran"]
    assert len(twin.tasks[task].reports) == 2


def test_a_restart_meets_a_new_epoch(twin: AgentApi, agent: AgentProcess) -> None:
    """The agent was away while the server lost its last commits: its session tells it so."""
    task = twin.add(agent.note("ran"))
    agent.start()
    agent.done()
    wait_until(lambda: not _leases(agent), message="the acknowledgement")
    agent.kill()

    with twin.lock:
        twin.epoch = "e2"
        twin.tasks[task].result = None
        twin.tasks[task].state = "leased"
        twin.tasks[task].offer = {**twin.tasks[task].offer, "gate": "never"}
    agent.start()
    agent.done()

    assert agent.lines() == ["ran"]
    assert (twin.result(task) or {})["outcome"] == "completed"


def _leases(agent: AgentProcess) -> list[object]:
    found: list[object] = json.loads(agent.verb("status", "--json").stdout)["leases"]
    return found


def test_results_wait_for_an_api_that_is_away(twin: AgentApi, agent: AgentProcess) -> None:
    """The API refuses reports for a while: results are in the journal, also after a restart."""
    fault = twin.fault("/reports", "status", times=10_000, retry_after="0")
    task = twin.add(agent.note("ran"))
    agent.start()
    wait_until(lambda: twin.bodies("/reports"), message="a refused report")
    agent.kill()
    status = agent.verb("status")
    assert "1 results wait" in status.stdout

    fault.times = 0
    agent.start()
    agent.done()

    assert agent.lines() == ["ran"]
    assert (twin.result(task) or {})["outcome"] == "completed"


def test_term_drains_and_gives_back_what_has_not_started(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """TERM: running scripts finish and are reported, a lease at its gate goes back, exit 0."""
    twin.fault("/leases/start", "status", times=10_000, retry_after="0")
    running = twin.add(agent.note("ran", "sleep 1.5"))
    waiting = twin.add(agent.note("never"), gate="closed")
    agent.start()
    wait_until(agent.lines, message="the script's start")
    wait_until(lambda: twin.bodies("/leases/start"), message="the closed gate")
    lease = twin.tasks[waiting].lease

    agent.signal(signal.SIGTERM)

    assert agent.wait() == 0
    assert (twin.result(running) or {})["outcome"] == "completed"
    assert twin.released == [lease]
    assert agent.lines() == ["ran"]
    assert twin.bodies("/session/end") == [{"reason": "drained"}]


def test_the_servers_drain_ends_with_its_resume(twin: AgentApi, agent: AgentProcess) -> None:
    """A drained agent stays connected and takes nothing; resumed, it takes work again."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")
    twin.orders["drain"] = True
    twin.attention = True
    wait_until(lambda: twin.beats[-1]["mode"] == "draining", message="the agent to be drained")
    wait_until(lambda: twin.bodies("/leases/claim")[-1]["max"] == 0, message="the listening call")
    task = twin.add(agent.note("ran"))
    assert "drained by the server" in agent.verb("status").stdout
    assert twin.tasks[task].state == "queued"

    twin.orders["drain"] = False
    twin.attention = True
    agent.done()

    assert agent.lines() == ["ran"]
    assert len(twin.sessions) == 1


def test_hang_up_reads_the_policy_again(twin: AgentApi, agent: AgentProcess) -> None:
    """HUP: the owner's new limit holds for the next task; a malformed file changes nothing."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")
    policy = agent.home / "policy.ini"

    policy.write_text("[allow]\nscripts = no\n")
    agent.signal(signal.SIGHUP)
    wait_until(lambda: "policy read again" in agent.log.read_text(), message="the new policy")
    policy.write_text("[allow]\nscript = yes\n")
    agent.signal(signal.SIGHUP)
    wait_until(lambda: "the old policy stays" in agent.log.read_text(), message="its refusal")
    task = twin.add(agent.note("ran"))
    agent.done()

    assert (twin.result(task) or {})["outcome"] == "refused"
    assert agent.lines() == []


def test_a_second_term_leaves_payloads_to_be_adopted(twin: AgentApi, agent: AgentProcess) -> None:
    """TERM twice: the agent ends at once, the payload goes on and is adopted."""
    gate = agent.ledger.with_name("gate")
    task = twin.add(agent.note("ran", f"while [ ! -e {gate} ]; do sleep 0.05; done"))
    agent.start()
    wait_until(agent.lines, message="the script's start")

    agent.signal(signal.SIGTERM)
    wait_until(lambda: "draining" in agent.log.read_text(), message="the first TERM")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    gate.touch()
    agent.start()
    agent.done()

    assert agent.lines() == ["ran"]
    assert (twin.result(task) or {})["outcome"] == "completed"


def test_an_idle_agent_holds_one_connection(twin: AgentApi, agent: AgentProcess) -> None:
    """Polls and heartbeats take turns on one line; one that a busy start opened is given up."""
    twin.heartbeat_s = 2.0
    agent.start()
    wait_until(lambda: len(twin.beats) >= 3, message="heartbeats")
    assert agent.process is not None
    pid = agent.process.pid

    wait_until(lambda: len(_connections(pid)) == 1, message="a single connection")


def test_connections_beyond_the_first_end_without_traffic(
    twin: AgentApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests at once open two connections; when it is quiet again, one of them goes."""
    transport = Transport(twin.url, ca_bundle=None, version="test")
    first, second = (transport._take(5.0)[0] for _ in range(2))
    for connection in (first, second):
        connection.connect()
        transport._give_back(connection, keep=True)
    monkeypatch.setattr("airavata_scheduler.agent.transport._SURPLUS_S", 0.0)

    taken, was_open = transport._take(5.0)
    transport._give_back(taken, keep=True)

    assert (taken, was_open) == (second, True)
    assert first.sock is None
    transport.close()


def _connections(pid: int) -> list[str]:
    """The remote ends of a process's established connections."""
    sockets = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(fd.readlink()))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [row[2] for row in rows if row[3] == "01" and f"socket:[{row[9]}]" in sockets]


def test_a_token_that_is_not_valid_any_more_is_renewed(twin: AgentApi, agent: AgentProcess) -> None:
    """401 token_invalid, from a server with another clock: a new token, the same call again."""
    for path in ("/reports", "/heartbeat", "/leases/"):
        twin.fault(path, "status", status=401, code="token_invalid")
    task = twin.add(agent.note("ran", "echo x > out"), outputs={"O": "out"})

    agent.start()
    agent.done()

    assert (twin.result(task) or {})["outcome"] == "completed"
    assert agent.lines() == ["ran"]


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_a_refused_call_costs_no_result(status: int, twin: AgentApi, agent: AgentProcess) -> None:
    """A refusal that is not about the results (a proxy's, a wrong token) leaves them alone."""
    fault = twin.fault("/reports", "status", times=10_000, status=status, code="refused")
    task = twin.add(agent.note("ran"))
    agent.start()
    wait_until(lambda: len(twin.bodies("/reports")) > 1, message="a second try")

    fault.times = 0
    agent.done()

    assert (twin.result(task) or {})["outcome"] == "completed"
    assert [report["outcome"] for report in twin.tasks[task].reports] == ["completed"]
