"""Scripts on a real agent: what they see, how they end, what is brought back."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from airavata_scheduler.agent import processes
from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.waiting import wait_until


def _log(result: dict[str, Any] | None, stream: str = "stdout") -> str:
    assert result is not None
    return base64.b64decode(result["logs"][stream]["data"]).decode()


def test_a_script_sees_its_parameters_and_a_clean_environment(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """Parameters are variables, byte for byte; the agent's own variables do not leak."""
    nasty = "a'b\"c; rm -rf / $(id) `id`\nsecond"
    task = twin.add('#!/bin/sh\nprintf "%s|" "$NASTY"; env', environment={"NASTY": nasty})
    agent.environment["SECRET_OF_THE_SITE"] = "hunter2"

    agent.start()
    agent.done()

    text = _log(twin.result(task))
    assert text.startswith(nasty + "|")
    assert f"AIRAVATA_TASK={task}" in text
    assert "AIRAVATA_ATTEMPT=1" in text
    assert "hunter2" not in text
    assert "AIRAVATA_ENROLMENT_TOKEN" not in text


def test_ends_are_reported_as_they_were(twin: AgentApi, agent: AgentProcess) -> None:
    """Exit codes, signals and scripts that cannot be started each say what happened."""
    three = twin.add("echo oh no >&2; exit 3")
    signalled = twin.add("kill -SEGV $$")
    absent = twin.add("#!/no/such/interpreter\n")

    agent.start()
    agent.done()

    results = [twin.result(task) or {} for task in (three, signalled, absent)]
    assert [r["outcome"] for r in results] == ["failed"] * 3
    assert [r["failure"]["code"] for r in results] == ["exit_nonzero", "signal", "exit_nonzero"]
    assert [(r["exit_code"], r["signal"]) for r in results] == [(3, None), (None, 11), (127, None)]
    assert "oh no" in results[0]["failure"]["message"]
    assert "/no/such/interpreter" in _log(results[2], "stderr")


def test_outputs_arrive_with_size_and_hash(twin: AgentApi, agent: AgentProcess) -> None:
    """Declared files and globs are uploaded; their hashes are in the report."""
    script = "mkdir -p d/e; printf one > a.txt; printf two > d/e/b.csv; printf 3 > d/c.csv"
    task = twin.add(script, outputs={"A": "a.txt", "ALL": "d/**/*.csv"})

    agent.start()
    agent.done()

    result = twin.result(task) or {}
    found = {(a["output"], a["path"]): a for a in result["artifacts"]}
    assert set(found) == {("A", "a.txt"), ("ALL", "d/e/b.csv"), ("ALL", "d/c.csv")}
    assert found["A", "a.txt"]["sha256"] == hashlib.sha256(b"one").hexdigest()
    assert twin.files[result["lease"], "ALL", "d/e/b.csv"] == b"two"


def test_a_missing_output_names_what_is_there(twin: AgentApi, agent: AgentProcess) -> None:
    """The failure names the pattern and the files that do exist."""
    task = twin.add("touch resutl.csv", outputs={"R": "result.csv"})

    agent.start()
    agent.done()

    failure = (twin.result(task) or {})["failure"]
    assert failure["code"] == "output_missing"
    assert "result.csv" in failure["message"]
    assert "resutl.csv" in failure["message"]


def test_outputs_do_not_leave_the_work_directory(
    twin: AgentApi, agent: AgentProcess, tmp_path: Path
) -> None:
    """Links, FIFOs and paths with .. are refused; nothing outside is read."""
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    tasks = [
        twin.add(f"ln -s {secret} out", outputs={"R": "out"}),
        twin.add(f"ln -s {tmp_path} d", outputs={"R": "d/secret"}),
        twin.add(f"ln -s {secret} out", outputs={"R": "o*"}),
        twin.add("mkfifo out", outputs={"R": "out"}),
        twin.add("true", outputs={"R": "../../../secret"}),
        twin.add("true", outputs={"R": str(secret)}),
    ]

    agent.start()
    agent.done()

    codes = [((twin.result(task) or {})["failure"] or {}).get("code") for task in tasks]
    assert codes == ["output_missing"] * 6
    assert twin.files == {}


def test_a_timeout_ends_the_whole_group_and_those_who_left_it(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """Children in the background, in new sessions, and deaf to TERM are gone with the payload."""
    script = (
        "#!/bin/bash\n"
        "setsid sleep 300 &\n"
        "(setsid bash -c 'trap \"\" TERM; while :; do sleep 300; done' &)\n"
        "nohup sleep 300 >/dev/null 2>&1 &\n"
        "sleep 300"
    )
    task = twin.add(script, timeout_s=1.0)

    agent.start()
    agent.done()

    result = twin.result(task) or {}
    assert (result["failure"]["kind"], result["failure"]["code"]) == ("limit", "timeout")
    assert processes.marked(result["lease"]) == {}


def test_what_a_script_leaves_behind_ends_with_it(twin: AgentApi, agent: AgentProcess) -> None:
    """A process that outlives its script does not outlive the task."""
    task = twin.add("#!/bin/sh\n(setsid sleep 300 >/dev/null 2>&1 &)\nexit 0")

    agent.start()
    agent.done()

    result = twin.result(task) or {}
    assert result["outcome"] == "completed"
    assert processes.marked(result["lease"]) == {}


def test_memory_has_a_limit(twin: AgentApi, agent: AgentProcess) -> None:
    """A payload that takes more memory than it asked for is stopped, with its own code."""
    script = "#!/usr/bin/env python3\nimport time\nx = bytearray(400 << 20)\ntime.sleep(60)"
    task = twin.add(script, ram_mb=64)

    agent.start()
    agent.done()

    assert (twin.result(task) or {})["failure"]["code"] == "out_of_memory"


def test_long_logs_are_shipped_and_short_ones_travel_along(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """Above 8 KiB a stream is uploaded; below it is in the report."""
    long = twin.add("seq 1 20000")
    short = twin.add("echo hello")

    agent.start()
    agent.done()

    result = twin.result(long) or {}
    expected = "".join(f"{n}\n" for n in range(1, 20001)).encode()
    assert result["logs"]["stdout"] == {"size": len(expected)}
    assert twin.logs[result["lease"], "stdout"] == expected
    assert _log(twin.result(short)) == "hello\n"


def test_logs_are_seen_while_the_script_runs(twin: AgentApi, agent: AgentProcess) -> None:
    """The first lines arrive before the end, and the whole is the same bytes."""
    gate = agent.ledger.with_name("gate")
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    task = twin.add(f"#!/bin/sh\necho first\n{wait}\necho last")
    agent.start()

    wait_until(
        lambda: twin.logs.get((twin.tasks[task].lease, "stdout")) == b"first\n",
        message="a live log",
    )
    gate.touch()
    agent.done()

    result = twin.result(task) or {}
    assert result["logs"]["stdout"] == {"size": 11}
    assert twin.logs[result["lease"], "stdout"] == b"first\nlast\n"


def test_the_middle_of_a_huge_log_is_left_out(twin: AgentApi, agent: AgentProcess) -> None:
    """Head and tail stay, a line says how much is missing, the result is not touched."""
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[limits]\nmax_log_mb = 1\n")
    task = twin.add("echo begin; head -c 8000000 /dev/zero | tr '\\0' x; echo; echo end")

    agent.start()
    agent.done()

    result = twin.result(task) or {}
    log = twin.logs[result["lease"], "stdout"]
    assert result["outcome"] == "completed"
    assert log.startswith(b"begin\nxxx")
    assert log.endswith(b"xxx\nend\n")
    assert b"bytes left out" in log
    assert len(log) < 1_100_000


def test_cancel_stops_what_runs(twin: AgentApi, agent: AgentProcess) -> None:
    """A cancelled script ends within its grace and is reported as cancelled."""
    task = twin.add(agent.note("ran", "sleep 300"))
    agent.start()
    wait_until(agent.lines, message="the script's start")

    twin.cancel(task)
    agent.done()

    result = twin.result(task) or {}
    assert result["outcome"] == "cancelled"
    assert processes.marked(result["lease"]) == {}


def test_a_lease_that_was_taken_away_is_stopped_and_not_reported(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """Superseded: the payload ends, its folder stays for a while, no report is sent."""
    task = twin.add(agent.note("ran", "sleep 300"))
    agent.start()
    wait_until(agent.lines, message="the script's start")
    lease = twin.tasks[task].lease

    twin.requeue(task)

    wait_until(lambda: not processes.marked(lease), message="the payload's end")
    wait_until(lambda: "keep-until" in _names(agent.home / "work" / lease), message="the mark")
    assert twin.tasks[task].reports == []


def test_the_gate_opens_after_the_start_call_and_brings_inputs(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """A closed gate: start is called first, inputs lie at their paths, parameters name them."""
    twin.input_data["0"] = b"1,2,3\n"
    wanted = {
        "path": "in/data.csv",
        "url": "/agent/v1/leases/x.1.0/inputs/0",
        "size": 6,
        "version": "v1",
        "parameter": "DATA",
    }
    tasks = [twin.add('cat "$DATA"', gate="closed", inputs=[wanted]) for _ in range(2)]

    agent.start()
    agent.done()

    assert [_log(twin.result(task)) for task in tasks] == ["1,2,3\n"] * 2
    assert len([1 for method, path, _ in twin.calls if "/inputs/0" in path]) == 1


def test_an_input_path_cannot_leave_the_work_directory(
    twin: AgentApi, agent: AgentProcess, tmp_path: Path
) -> None:
    """A hostile start answer writes nothing outside; the lease is reported as lost."""
    twin.input_data["0"] = b"x"
    url = "/agent/v1/leases/x.1.0/inputs/0"
    wanted = {"path": "../../../../evil", "url": url, "size": 1, "version": "v"}
    task = twin.add("true", gate="closed", inputs=[wanted])

    agent.start()
    wait_until(lambda: twin.tasks[task].reports, message="the report")

    assert twin.tasks[task].reports[0]["failure"]["code"] == "input_missing"
    assert not (tmp_path / "evil").exists()


def test_a_task_beyond_the_machine_is_refused(twin: AgentApi, agent: AgentProcess) -> None:
    """What can never fit is refused with a sentence instead of waiting for ever."""
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[limits]\nmax_cpu = 2\nmax_time = 1h\n")
    memory = twin.add("true", ram_mb=10_000_000)
    long = twin.add("true", timeout_s=7200.0)

    agent.start()
    agent.done()

    for task, word in ((memory, "MB of memory"), (long, "3600 s")):
        result = twin.result(task) or {}
        assert result["outcome"] == "refused"
        assert result["failure"]["code"] == "policy_refused"
        assert word in result["failure"]["message"]


def test_a_stop_leaves_what_runs_with_its_shepherd(
    twin: AgentApi, agent: AgentProcess, tmp_path: Path
) -> None:
    """The next agent finds the same shepherd and the payload that went on."""
    gate = tmp_path / "gate"
    task = twin.add(agent.note("began", f"while [ ! -e {gate} ]; do sleep 0.05; done"))
    agent.start()
    wait_until(agent.lines, message="the payload's start")
    agent.payload(task)
    shepherd = agent.shepherd_pid()

    agent.verb("stop")
    agent.wait()
    agent.start()
    gate.touch()
    agent.done()

    assert agent.shepherd_pid() == shepherd
    assert agent.lines() == ["began"]


def test_tasks_without_a_core_run_beside_each_other(twin: AgentApi, agent: AgentProcess) -> None:
    """cpu 0: many waiting payloads run at once on a machine with few cores."""
    gate = agent.ledger.with_name("gate")
    wait = f"while [ ! -e {gate} ]; do sleep 0.2; done"
    for number in range(12):
        twin.add(agent.note(str(number), wait), cpu=0)
    agent.start()

    wait_until(lambda: len(agent.lines()) == 12, message="twelve at once", timeout_s=40)
    gate.touch()
    agent.done()

    assert sorted(agent.lines(), key=int) == [str(number) for number in range(12)]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
