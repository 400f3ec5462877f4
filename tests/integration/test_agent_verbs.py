"""The agent's verbs, as its owner types them."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from pathlib import Path

from airavata_scheduler.commands.agent_file import build
from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.waiting import wait_until


def test_enroll_reads_the_token_from_standard_input(twin: AgentApi, agent: AgentProcess) -> None:
    """One use of a token; the secret stays here, the server has its hash."""
    del agent.environment["AIRAVATA_ENROLMENT_TOKEN"]

    done = agent.verb("enroll", "--name", "node7", text=twin.enrolment_token + "\n")

    assert done.returncode == 0, done.stderr
    assert "enrolled as node7" in done.stdout
    identity = json.loads((agent.home / "identity.json").read_text())
    digest = hashlib.sha256(identity["secret"].encode()).hexdigest()
    assert twin.secret_hashes == [digest]
    assert twin.enrolment_token not in (agent.home / "identity.json").read_text()
    again = agent.verb("enroll", text=twin.enrolment_token + "\n")
    assert again.returncode == 2
    assert "already" in again.stderr


def test_a_wrong_token_is_refused_with_a_sentence(twin: AgentApi, agent: AgentProcess) -> None:
    """Exit code 3, nothing stored."""
    agent.environment["AIRAVATA_ENROLMENT_TOKEN"] = "ase_wrong"

    done = agent.verb("enroll")

    assert done.returncode == 3
    assert "not enrolled" in done.stderr
    assert "ase_wrong" not in done.stderr
    assert not (agent.home / "identity.json").exists()


def test_without_a_token_the_agent_waits_for_approval(twin: AgentApi, agent: AgentProcess) -> None:
    """It says the command that approves it, asks until it is approved, then works."""
    del agent.environment["AIRAVATA_ENROLMENT_TOKEN"]
    task = twin.add("true")

    agent.start()
    wait_until(lambda: twin.bodies("/token"), message="the question")
    assert "airavata agent approve worker-1 --code ABCD" in agent.log.read_text()
    twin.state = "active"
    agent.done()

    assert (twin.result(task) or {})["outcome"] == "completed"


def test_pause_and_resume(twin: AgentApi, agent: AgentProcess) -> None:
    """Paused, nothing new is taken; `status` says why; resumed, it is."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")

    assert agent.verb("pause").returncode == 0
    # The long-poll that is under way may still bring one task; the next one must wait.
    wait_until(lambda: twin.bodies("/leases/claim")[-1]["max"] == 0, message="the listening call")
    task = twin.add("true")
    status = agent.verb("status")
    assert "paused" in status.stdout
    assert twin.tasks[task].state == "queued"
    assert agent.verb("resume").returncode == 0
    agent.done()


def test_drain_stop_and_their_exit_codes(twin: AgentApi, agent: AgentProcess) -> None:
    """Both end the agent with 0; without an agent they fail with a sentence."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")

    assert agent.verb("drain").returncode == 0
    assert agent.wait() == 0
    agent.start()
    wait_until(lambda: len(twin.sessions) == 2, message="the second session")
    assert agent.verb("stop").returncode == 0
    assert agent.wait() == 0
    absent = agent.verb("stop")
    assert absent.returncode == 1
    assert "no agent runs" in absent.stderr


def test_a_second_agent_in_the_folder_is_refused(twin: AgentApi, agent: AgentProcess) -> None:
    """Exit code 6, and what to do."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")

    second = agent.verb("run")

    assert second.returncode == 6
    assert "AIRAVATA_AGENT_HOME" in second.stderr


def test_logs_shows_the_output_here(twin: AgentApi, agent: AgentProcess) -> None:
    """By the task's name or id, without the network."""
    task = twin.add("echo to be seen; sleep 300")
    agent.start()
    agent.payload(task)

    found = wait_until(lambda: agent.verb("logs", task).stdout, message="the output")

    assert found == "to be seen\n"
    assert agent.verb("logs", "nonsense").returncode == 1


def test_rotate_makes_a_new_secret(twin: AgentApi, agent: AgentProcess) -> None:
    """The new secret becomes current with its first use; the old one is forgotten here."""
    agent.start()
    wait_until(lambda: twin.beats, message="a heartbeat")
    before = json.loads((agent.home / "identity.json").read_text())["secret"]

    done = agent.verb("rotate")

    after = json.loads((agent.home / "identity.json").read_text())
    assert done.returncode == 0, done.stderr
    assert after["secret"] != before
    assert after["next_secret"] is None
    assert twin.secret_hashes == [hashlib.sha256(after["secret"].encode()).hexdigest()]


def test_a_rotation_that_was_cut_short_is_ended(twin: AgentApi, agent: AgentProcess) -> None:
    """Killed after the server was told: the next start works and ends the rotation."""
    twin.orders = {**twin.orders, "rotate": True}
    agent.start(crash="rotate.told")
    assert agent.wait() == -signal.SIGKILL
    twin.orders = {**twin.orders, "rotate": False}
    task = twin.add("true")

    agent.start()
    agent.done()

    assert (twin.result(task) or {})["outcome"] == "completed"
    wait_until(
        lambda: json.loads((agent.home / "identity.json").read_text())["next_secret"] is None,
        message="the rotation's end",
    )


def test_unenroll_forgets_the_secret(twin: AgentApi, agent: AgentProcess) -> None:
    """The server knows, and nothing that could be stolen is left."""
    assert agent.verb("enroll").returncode == 0

    done = agent.verb("unenroll")

    assert done.returncode == 0, done.stderr
    assert twin.state == "revoked"
    assert not (agent.home / "identity.json").exists()


def test_doctor_tells_pass_warn_and_fail(twin: AgentApi, agent: AgentProcess) -> None:
    """All is well here; without an API it fails with a fix; JSON says the same."""
    assert agent.verb("enroll").returncode == 0

    well = agent.verb("doctor", "--json")
    agent.environment["API_URL"] = "http://127.0.0.1:9"
    ill = agent.verb("doctor")

    results = {line["name"]: line["result"] for line in json.loads(well.stdout)["checks"]}
    assert well.returncode == 0, well.stdout
    assert {results[name] for name in ("folder", "fsync", "lock", "api", "methods", "token")} == {
        "pass"
    }
    assert ill.returncode == 1
    assert "fail  api" in ill.stdout
    assert "fix:" in ill.stdout


def test_run_without_anything_says_what_is_missing(agent: AgentProcess) -> None:
    """No API_URL, no identity, no token: one sentence each, with the next step."""
    for name in ("API_URL", "COMPUTE_ID", "AIRAVATA_ENROLMENT_TOKEN"):
        agent.environment.pop(name, None)

    no_url = agent.verb("run")
    agent.environment["API_URL"] = "http://127.0.0.1:9"
    no_identity = agent.verb("run")

    assert (no_url.returncode, no_identity.returncode) == (2, 4)
    assert "API_URL is not set" in no_url.stderr
    assert "COMPUTE_ID" in no_identity.stderr


def test_the_single_file_works_alone(twin: AgentApi, agent: AgentProcess, tmp_path: Path) -> None:
    """The zip, isolated, without any package: scripts and functions run, also after a kill."""
    build(tmp_path / "airavata-agent.pyz")
    command = ["/usr/bin/python3", "-I", "-S", str(tmp_path / "airavata-agent.pyz"), "run"]
    first = twin.add(agent.note("script", "sleep 1"))
    source = "import json\ndef f():\n    return json.loads('[1]')\n"
    second = twin.add(python={"entry": "f", "source": source, "codec": "json"})

    for life in ("first", "second"):
        with agent.log.open("ab") as log:
            agent.process = subprocess.Popen(
                command, env=agent.environment, stdout=log, stderr=log, cwd=tmp_path
            )
        if life == "first":
            wait_until(agent.lines, message="the script's start")
            agent.kill()
    agent.done()

    assert agent.lines() == ["script"]
    assert (twin.result(first) or {})["outcome"] == "completed"
    assert (twin.result(second) or {})["result"]["data"] == [1]
