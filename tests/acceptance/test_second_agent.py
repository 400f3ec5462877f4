"""A second agent on the same machine, as another user: one line, over HTTPS, no package."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.system import LocalSystem
from tests.servers.programs import missing
from tests.waiting import wait_until

USER = "airavata-second"
AGENT = "second"
SOON_S = 30.0
# More tasks of one core than the machine's own agent can run at once: both agents must help. Each
# waits for a file that everybody can see, so that none ends before the other agent came.
EXPERIMENT = """
name: {name}
parameters:
  NUMBER: {{type: int}}
  GO: {{type: string, default: "{go}"}}
scripts:
  WHO: |
    #!/bin/sh
    id -un | tee user.txt
    until [ -e "$GO" ]; do sleep 0.2; done
tasks:
  who:
    script: WHO
    task_inputs: {{NUMBER: 1..{tasks}}}
    task_outputs: {{USER_NAME: user.txt}}
"""


def processes_of_user(uid: int) -> list[str]:
    """The user's processes that have not ended, as command lines with their ids."""
    return [
        f"{process.pid} {' '.join(process.info['cmdline'] or [])}"
        for process in psutil.process_iter(["uids", "status", "cmdline"])
        if process.info["uids"]
        and process.info["uids"].real == uid
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def end_processes_of(uid: int) -> None:
    """Kill what the user still runs, and see that it ended."""
    for line in processes_of_user(uid):
        try:
            psutil.Process(int(line.split()[0])).kill()
        except psutil.NoSuchProcess:
            continue
    wait_until(lambda: not processes_of_user(uid), message="the user's processes to end")


@pytest.fixture(scope="module")
def second_user() -> Iterator[pwd.struct_passwd]:
    """Another Unix user of this machine with an empty home; gone afterwards."""
    if os.getuid() != 0 or shutil.which("useradd") is None or shutil.which("runuser") is None:
        missing("root with useradd and runuser, which make another user")
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
    account = pwd.getpwnam(USER)
    try:
        yield account
    finally:
        end_processes_of(account.pw_uid)
        subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)


@pytest.fixture(scope="module")
def joined(local: LocalSystem, second_user: pwd.struct_passwd) -> pwd.struct_passwd:
    """The user, after the line of `agent install-line` was typed in a bare shell of theirs."""
    made = local.airavata("agent", "install-line", "local", "--name", AGENT)
    assert made.returncode == 0, made.stderr
    assert "https://" in made.stdout
    done = subprocess.run(
        ["runuser", "-u", USER, "--", "env", "-i", *bare(second_user), "sh", "-c", made.stdout],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SHA-256" in done.stdout
    return second_user


def bare(account: pwd.struct_passwd) -> list[str]:
    """The whole environment of the new user: a home and a path."""
    return [f"HOME={account.pw_dir}", "PATH=/usr/bin:/bin"]


def agent(local: LocalSystem) -> dict[str, Any]:
    """The second agent, as `airavata agent list` shows it."""
    found = [item for item in local.answer("agent", "list")["items"] if item["name"] == AGENT]
    assert len(found) == 1, found
    shown: dict[str, Any] = found[0]
    return shown


def wait_for(local: LocalSystem, presence: str) -> None:
    """Wait until the agent is shown so."""
    wait_until(
        lambda: agent(local)["presence"] == presence,
        timeout_s=SOON_S,
        message=f"the agent to be {presence}",
    )


def test_one_line_brings_an_agent_online(local: LocalSystem, joined: pwd.struct_passwd) -> None:
    """It is online, runs as that user by the system's own Python, and from one file."""
    wait_for(local, "online")

    running = processes_of_user(joined.pw_uid)

    assert agent(local)["host"]["user"] == USER
    assert any("/usr/bin/python3" in line and "airavata-agent" in line for line in running), running
    files = {path.name for path in (Path(joined.pw_dir) / ".airavata-agent" / "bin").iterdir()}
    assert files == {"airavata-agent"}


def test_both_agents_take_work(local: LocalSystem, joined: pwd.struct_passwd, folder: Path) -> None:
    """More tasks than one agent has cores run under both users' names."""
    wait_for(local, "online")
    go = Path(joined.pw_dir).parent / f"{USER}.go"  # the test's own folders are root's alone
    tasks = 2 * (os.cpu_count() or 1)
    text = EXPERIMENT.format(name="who", go=go, tasks=tasks)
    (folder / "who.yml").write_text(text)

    try:
        assert local.airavata("experiment", "run", str(folder / "who.yml")).returncode == 0
        wait_until(
            lambda: local.answer("experiment", "status", "who")["counts"]["running"] == tasks,
            timeout_s=SOON_S,
            message="both agents to be busy",
        )
        go.touch()
        done = local.airavata("experiment", "watch", "who")
    finally:
        go.touch()
        go.unlink()

    assert done.returncode == 0, done.stdout + done.stderr
    got = local.airavata(
        "experiment", "download", "who", "--output", str(folder / "out"), "--extract"
    )
    assert got.returncode == 0, got.stderr
    users = {path.read_text().strip() for path in (folder / "out").glob("who/*/user.txt")}
    assert users == {USER, pwd.getpwuid(os.getuid()).pw_name}


def test_it_is_drained_and_shut_out(local: LocalSystem, joined: pwd.struct_passwd) -> None:
    """Drained it takes nothing more; revoked it ends, with everything that it started."""
    wait_for(local, "online")

    drained = local.airavata("agent", "drain", AGENT)
    wait_until(
        lambda: agent(local)["presence"] in {"draining", "offline"},
        timeout_s=SOON_S,
        message="the agent to be drained",
    )
    revoked = local.airavata("agent", "revoke", AGENT)

    assert drained.returncode == 0, drained.stderr
    assert revoked.returncode == 0, revoked.stderr
    assert agent(local)["presence"] == "revoked"
    wait_until(
        lambda: not [line for line in processes_of_user(joined.pw_uid) if "_shepherd" not in line],
        timeout_s=SOON_S,
        message="the agent to end",
    )
