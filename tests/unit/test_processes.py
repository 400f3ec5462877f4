"""Supervising children: order, readiness, restarts, the stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airavata_scheduler.commands.processes import process_start_ticks, terminate
from tests.waiting import wait_until

# The supervisor blocks signals for its whole process, so it runs in one of its own.
PROGRAM = """
import json, os, sys
from pathlib import Path
from airavata_scheduler.commands.processes import ChildFailedError, ChildProcess, Supervisor
folder = Path(sys.argv[1])
commands = json.loads(sys.argv[2])
def write(running):
    found = {e.child.name: [e.state, e.process and e.process.pid] for e in running}
    text = json.dumps(found)
    (folder / "new").write_text(text)
    (folder / "new").replace(folder / "status")
def once_ready(name):
    with (folder / "once").open("a") as file:
        file.write(name + "\\n")
    if name == os.environ.get("FAILS"):
        raise ValueError("its set-up failed")
supervisor = Supervisor(
    children=[
        ChildProcess(
            name=name,
            command=command,
            environment=dict(os.environ),
            log=folder / f"{name}.log",
            is_ready=(folder / f"{name}.ready").exists,
            ready_within_s=10.0,
            drains=name == "drains",
            after=tuple(json.loads(os.environ.get("AFTER", "{}")).get(name, ())),
            once_ready=lambda name=name: once_ready(name),
        )
        for name, command in commands.items()
    ],
    on_change=write,
)
try:
    supervisor.start()
except ChildFailedError as error:
    sys.exit(str(error))
supervisor.run()
"""


def _child(folder: Path, name: str) -> list[str]:
    ready = folder / f"{name}.ready"
    stopped = folder / "stopped"
    trap = f"trap 'echo {name} >> {stopped}; exit 0' TERM"
    return ["sh", "-c", f"{trap}; touch {ready}; while :; do sleep 0.05; done"]


def _start(
    folder: Path, commands: dict[str, list[str]], **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(commands)],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def _status(folder: Path) -> dict[str, list[object]]:
    try:
        found: dict[str, list[object]] = json.loads((folder / "status").read_text())
    except FileNotFoundError:
        return {}
    return found


def _all_running(folder: Path, count: int) -> bool:
    status = _status(folder)
    return len(status) == count and all(state == "running" for state, _ in status.values())


def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    """What was started last ends first, by TERM."""
    supervisor = _start(tmp_path, {name: _child(tmp_path, name) for name in ("one", "two")})
    wait_until(lambda: _all_running(tmp_path, 2), timeout_s=20, message="not running")

    supervisor.terminate()
    _, error = supervisor.communicate(timeout=30)

    assert supervisor.returncode == 0, error
    assert (tmp_path / "stopped").read_text().split() == ["two", "one"]


def test_children_wait_for_those_that_they_need_and_for_nobody_else(tmp_path: Path) -> None:
    """`slow` and `other` start beside each other; `last` starts once both are ready."""
    go = tmp_path / "go"
    slow = ["sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done; {_child(tmp_path, 'slow')[2]}"]
    commands = {"last": _child(tmp_path, "last"), "slow": slow, "other": _child(tmp_path, "other")}
    supervisor = _start(tmp_path, commands, AFTER=json.dumps({"last": ["slow", "other"]}))

    wait_until(lambda: _status(tmp_path).get("other", [""])[0] == "running")
    assert _status(tmp_path)["slow"][0] == "starting"
    assert _status(tmp_path)["last"][0] == "stopped"
    go.touch()

    wait_until(lambda: _all_running(tmp_path, 3))
    assert (tmp_path / "once").read_text().split() == ["other", "slow", "last"]
    supervisor.terminate()
    supervisor.communicate(timeout=30)


def test_what_follows_a_start_is_done_once(tmp_path: Path) -> None:
    """Not again after a restart."""
    supervisor = _start(tmp_path, {"one": _child(tmp_path, "one")})
    wait_until(lambda: _all_running(tmp_path, 1))
    pid = _status(tmp_path)["one"][1]
    assert isinstance(pid, int)

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: _all_running(tmp_path, 1) and _status(tmp_path)["one"][1] != pid)
    assert (tmp_path / "once").read_text().split() == ["one"]
    supervisor.terminate()
    supervisor.communicate(timeout=30)


def test_a_set_up_that_fails_stops_the_rest(tmp_path: Path) -> None:
    """Its error is the start's, and no child is left behind."""
    commands = {name: _child(tmp_path, name) for name in ("one", "two")}
    supervisor = _start(tmp_path, commands, FAILS="two", AFTER=json.dumps({"two": ["one"]}))

    _, error = supervisor.communicate(timeout=30)

    assert "its set-up failed" in error
    assert (tmp_path / "stopped").read_text().split() == ["two", "one"]


def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    """Another process takes its place; the others go on."""
    supervisor = _start(tmp_path, {name: _child(tmp_path, name) for name in ("one", "two")})
    wait_until(lambda: _all_running(tmp_path, 2), timeout_s=20, message="not running")
    before = _status(tmp_path)
    pid = before["one"][1]
    assert isinstance(pid, int)

    os.kill(pid, signal.SIGKILL)

    wait_until(
        lambda: _all_running(tmp_path, 2) and _status(tmp_path)["one"][1] != pid,
        timeout_s=20,
        message="not started again",
    )
    assert _status(tmp_path)["two"] == before["two"]
    supervisor.terminate()
    supervisor.communicate(timeout=30)


def test_a_draining_child_is_told_twice(tmp_path: Path) -> None:
    """An agent leaves its payloads to the next start instead of holding the stop up."""
    ready = tmp_path / "drains.ready"
    trap = "trap 'n=$((n+1)); [ $n -lt 2 ] || exit 0' TERM"
    script = f"{trap}; touch {ready}; while :; do sleep 0.05; done"
    supervisor = _start(tmp_path, {"drains": ["sh", "-c", script]})
    wait_until(lambda: _all_running(tmp_path, 1), timeout_s=20, message="not running")

    supervisor.terminate()
    # One TERM alone would be followed by a KILL only after twenty seconds.
    _, error = supervisor.communicate(timeout=15)

    assert supervisor.returncode == 0, error


def test_a_child_that_ends_while_starting_stops_the_rest(tmp_path: Path) -> None:
    """A start is whole or not at all, and the failing child is named."""
    supervisor = _start(tmp_path, {"one": _child(tmp_path, "one"), "two": ["sh", "-c", "exit 7"]})

    _, error = supervisor.communicate(timeout=30)

    assert supervisor.returncode == 1
    assert error.strip() == "two ended with exit code 7 while starting"
    assert (tmp_path / "stopped").read_text().split() == ["one"]


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing program is a sentence."""
    supervisor = _start(tmp_path, {"one": ["/no/such/program"]})

    _, error = supervisor.communicate(timeout=30)

    assert "one cannot be started: No such file" in error


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_foreign_process_is_ended_by_its_identity(trap: str) -> None:
    """TERM, then KILL; a pid that was used again by another process is let be."""
    process = subprocess.Popen(
        ["sh", "-c", f"{trap}echo up; while :; do sleep 0.05; done"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    ticks = process_start_ticks(process.pid)
    assert ticks is not None

    terminate(process.pid, ticks + 1, grace_s=0.5)
    assert process.poll() is None
    terminate(process.pid, ticks, grace_s=0.5)

    assert process.wait(10) in {-signal.SIGTERM, -signal.SIGKILL}
    process.stdout.close()
