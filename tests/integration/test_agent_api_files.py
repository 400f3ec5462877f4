"""The agent's file and install.sh: served, checked, and run for real by `sh` as a user would."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from werkzeug.serving import make_server

from airavata_scheduler.commands.agent_file import build
from airavata_scheduler.functions.agent_files import rendered
from airavata_scheduler.models.tables import Agent, AgentSession
from tests.api import Api, MakeApi, configuration
from tests.servers.programs import free_port
from tests.waiting import wait_until
from tests.wire_agent import Wire


@pytest.fixture
def database_kind() -> str:
    """Nothing here depends on the database."""
    return "sqlite"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The agent's file, built from the sources."""
    target = tmp_path / "served" / "airavata-agent.pyz"
    build(target)
    return target


@pytest.fixture
def served(make_api: MakeApi, program: Path) -> Iterator[Api]:
    """The application at a real port, which is also its AGENT_URL."""
    port = free_port()
    api = make_api(AGENT_FILE=str(program), AGENT_URL=f"http://127.0.0.1:{port}")
    server = make_server("127.0.0.1", port, api.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield api
    server.shutdown()
    thread.join()
    server.server_close()


def install(
    api: Api, home: Path, *arguments: str, shell: str = "sh", token: str = "", script: str = ""
) -> subprocess.CompletedProcess[str]:
    """`curl …/install.sh | sh -s -- ARGUMENTS` without terminal or systemd."""
    if not script:
        url = f"{api.config.agent_url}/install.sh"
        script = subprocess.run(
            ["curl", "-fsSL", url], check=True, capture_output=True, text=True
        ).stdout
    tools = home / "tools"
    if not tools.exists():
        tools.mkdir(parents=True)
        for name in ("sh", "mkdir", "chmod", "cat", "mv", "rm", "id", "nohup", "setsid", "python3"):
            found = shutil.which(name)
            assert found, name
            (tools / name).symlink_to(os.path.realpath(found))
    environment = {"HOME": str(home), "PATH": str(tools), "LANG": "C.UTF-8"}
    if token:
        environment["AIRAVATA_ENROLMENT_TOKEN"] = token
    return subprocess.run(
        [str(shutil.which(shell)), "-s", "--", *arguments],
        input=script,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,  # no terminal to ask on
    )


def test_the_file_comes_with_its_hash(served: Api, program: Path) -> None:
    """Download, header, checksum file and the script name one and the same SHA-256."""
    client = served.app.test_client()
    answer = client.get("/agent/v1/download")
    sha256 = hashlib.sha256(program.read_bytes()).hexdigest()

    assert hashlib.sha256(answer.data).hexdigest() == sha256
    assert answer.headers["X-Checksum-Sha256"] == sha256
    assert client.get("/agent/v1/download.sha256").text == f"{sha256}  airavata-agent.pyz\n"
    assert sha256 in client.get("/install.sh").text
    assert client.get("/install.sh").data == client.get("/agent/v1/install.sh").data
    assert client.get("/install.sh").mimetype == "text/x-shellscript"


def test_a_server_without_the_file_says_so(make_api: MakeApi) -> None:
    """Without AGENT_FILE the download is a 503 that names the setting."""
    answer = make_api().nobody.get("//install.sh")

    assert (answer.status_code, answer.json["code"]) == (503, "agent_file_missing")


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_one_line_enrols(served: Api, tmp_path: Path, shell: str) -> None:
    """One file in the user's home, checked and enrolled; the hash is printed, the token is not."""
    wire = Wire.site(served)
    token = wire.new_token()
    home = tmp_path / "home dir"
    done = install(served, home, "--resource", "cluster", "--no-start", shell=shell, token=token)
    folder = home / ".airavata-agent"
    installed = folder / "bin" / "airavata-agent"

    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(installed.read_bytes()).hexdigest() in done.stdout
    assert token not in done.stdout + done.stderr
    assert (folder.stat().st_mode & 0o777, installed.stat().st_mode & 0o777) == (0o700, 0o700)
    assert [path.name for path in (folder / "bin").iterdir()] == ["airavata-agent"]
    assert Agent.get().state == "active"


def test_the_one_line_starts_it(served: Api, tmp_path: Path) -> None:
    """Without systemd it runs detached, takes up a session, and a line for cron is printed."""
    wire = Wire.site(served)
    home = tmp_path / "home"
    done = install(served, home, "--resource=cluster", "--name", "node1", token=wire.new_token())
    try:
        assert done.returncode == 0, done.stderr
        assert "@reboot " in done.stdout
        wait_until(
            lambda: AgentSession.select().count() == 1,
            timeout_s=30,
            message="the agent's session",
        )
        assert Agent.get().name == "node1"
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if str(home) in " ".join(process.info["cmdline"] or ()):
                process.kill()


def test_a_second_run_keeps_the_agent(served: Api, tmp_path: Path) -> None:
    """Run again, it brings the newest file and leaves the identity alone: no token is needed."""
    wire = Wire.site(served)
    home = tmp_path / "home"
    first = ("--resource", "cluster", "--no-start")
    install(served, home, *first, token=wire.new_token())
    again = install(served, home, *first)

    assert again.returncode == 0, again.stderr
    assert "already" in again.stdout
    assert Agent.select().count() == 1


def test_a_file_that_is_not_the_announced_one(served: Api, program: Path, tmp_path: Path) -> None:
    """Another file than the script announces is not installed, and both hashes are told."""
    wire = Wire.site(served)
    script = served.app.test_client().get("/install.sh").text
    program.write_bytes(b"#!/usr/bin/env python3\nprint('evil')\n")
    home = tmp_path / "home"
    done = install(served, home, "--resource", "cluster", token=wire.new_token(), script=script)

    assert done.returncode == 1
    assert "nothing was installed" in done.stderr
    assert list((home / ".airavata-agent" / "bin").iterdir()) == []
    assert Agent.select().count() == 0


def test_half_a_download_does_nothing(served: Api, tmp_path: Path) -> None:
    """A script that breaks off in the middle runs nothing of it."""
    script = served.app.test_client().get("/install.sh").text
    home = tmp_path / "home"
    for share in (0.3, 0.6, 0.99):
        install(served, home, "--resource", "x", script=script[: int(len(script) * share)])

    assert not (home / ".airavata-agent").exists()


def test_mistakes_are_sentences(served: Api, tmp_path: Path) -> None:
    """No resource, an unknown option, a used token: an exit status and the next step."""
    wire = Wire.site(served)
    home = tmp_path / "home"
    token = wire.new_token()
    assert wire.enroll(token).status_code == 201
    bare = install(served, home)
    odd = install(served, home, "--resource", "cluster", "--frobnicate")
    used = install(served, home, "--resource", "cluster", token=token)

    assert (bare.returncode, odd.returncode, used.returncode) == (1, 1, 1)
    assert "--resource NAME is missing" in bare.stderr
    assert "--frobnicate is not an option" in odd.stderr
    assert "fresh token" in used.stderr


def test_without_a_token_it_asks_for_approval(served: Api, tmp_path: Path) -> None:
    """Where nobody can be asked for a token, the agent is installed and says what comes next."""
    Wire.site(served)
    done = install(served, tmp_path / "home", "--resource", "cluster", "--no-start")

    assert done.returncode == 0, done.stderr
    assert "asks for approval" in done.stdout


def test_a_private_authority_comes_along(tmp_path: Path) -> None:
    """With AGENT_CA_FILE the script writes the certificates and uses them; quotes stay quotes."""
    authority = tmp_path / "ca.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    config = configuration(
        "sqlite:///x.db",
        tmp_path,
        AGENT_CA_FILE=str(authority),
        AGENT_CERT_FILE=str(authority),
        AGENT_URL="https://h.example:8",
    )
    text = rendered(config, "0" * 64)

    assert "-----BEGIN CERTIFICATE-----\nAAAA\n" in text
    assert "url=https://h.example:8\n" in text
    assert "@" not in text.replace("@reboot", "").replace('"$@"', "")
    assert subprocess.run(["dash", "-n"], input=text, text=True, check=False).returncode == 0
