"""The private SpiceDB and OpenBao of the single-machine system."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.acceptance.system import LocalSystem, end_processes_in
from tests.servers.programs import listens
from tests.waiting import wait_until

PRIVATE = ("secrets", "openbao")
SECRET = {"data": {"a": "b"}, "options": {"cas": 0}}


def openbao(system: LocalSystem, path: str, body: Any = None, token: str = "") -> httpx.Response:
    """One request to the system's OpenBao, with its authority."""
    trust = ssl.create_default_context(cafile=str(system.home / "tls" / "ca.pem"))
    return httpx.request(
        "GET" if body is None else "POST",
        f"https://127.0.0.1:{system.child('openbao')['port']}/v1/{path}",
        json=body,
        headers={"X-Vault-Token": token},
        verify=trust,
        timeout=10,
    )


def logged_in(system: LocalSystem) -> str:
    """The token of a login as the scheduler logs in."""
    secret_id = (system.home / "secrets" / "openbao-secret-id").read_text()
    answer = openbao(
        system, "auth/approle/login", {"role_id": "airavata-scheduler", "secret_id": secret_id}
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["auth"]["client_token"])


def secrets_of(system: LocalSystem) -> list[str]:
    """Every key in the state folder, as text."""
    folder = system.home / "secrets"
    words = [file.read_bytes() for file in folder.iterdir() if file.name != "enrolment-token"]
    return [word.decode() if word.isascii() else word.hex() for word in words]


@pytest.mark.parametrize("name", ["spicedb", "openbao"])
def test_a_killed_server_comes_back_on_its_port(local: LocalSystem, name: str) -> None:
    """SpiceDB is filled again, OpenBao unseals itself; users see no more than a moment of it."""
    before = local.child(name)
    local.answer("project", "create", f"before-{name}")

    pid = local.kill(name)
    local.wait_for_another(name, pid)

    assert local.child(name)["port"] == before["port"]
    wait_until(lambda: listens(before["port"]))
    wait_until(
        lambda: local.airavata("project", "get", f"before-{name}").returncode == 0,
        timeout_s=30.0,
        message="the project could not be read again",
    )
    wait_until(lambda: openbao(local, "sys/health").status_code == 200)


def test_the_scheduler_logs_in_and_no_root_token_is_left(local: LocalSystem) -> None:
    """Its role may wrap by the transit key and use the secrets' mount; it is not root."""
    token = logged_in(local)

    wrapped = openbao(local, "transit/encrypt/credentials", {"plaintext": "YQ=="}, token)
    assert wrapped.json()["data"]["ciphertext"].startswith("vault:v1:")
    written = openbao(local, "credentials/data/x", SECRET, token)
    assert written.status_code == 200, written.text
    assert openbao(local, "sys/mounts", token=token).status_code == 403
    audited = [json.loads(line) for line in audit_lines(local)]
    by_root = [entry for entry in audited if entry.get("auth", {}).get("policies") == ["root"]]
    assert by_root[-1]["request"]["path"] == ROOT_REVOKED


ROOT_REVOKED = "auth/token/revoke-self"


def audit_lines(system: LocalSystem) -> list[str]:
    """What OpenBao's first audit device wrote; the second has the same."""
    one, two = (system.home / "openbao" / f"audit-{number}.log" for number in (1, 2))
    assert len(one.read_text().splitlines()) == len(two.read_text().splitlines())
    return one.read_text().splitlines()


def test_no_key_is_in_a_log_or_an_argument_or_a_foreign_process(local: LocalSystem) -> None:
    """Keys are in 0600 files, and in the environment of the process alone that they are for."""
    logged_in(local)
    keys = secrets_of(local)
    assert len(keys) >= 5
    texts = {str(log): log.read_text() for log in (local.home / "logs").iterdir()}
    texts |= {str(log): log.read_text() for log in (local.home / "openbao").glob("*.log")}
    status = local.status()
    assert status is not None
    for child in status["children"]:
        texts[child["name"]] = " ".join(psutil.Process(child["pid"]).cmdline())

    assert {(where, key) for key in keys for where, text in texts.items() if key in text} == set()

    signing_key = (local.home / "secrets" / "jwt").read_text()
    for name in ("redis", "spicedb", "openbao", "agent"):
        values = psutil.Process(local.child(name)["pid"]).environ().values()
        assert signing_key not in values, name


def test_nobody_else_can_read_the_state(local: LocalSystem) -> None:
    """The folder is closed; what holds keys and secrets is closed itself."""
    assert local.home.stat().st_mode & 0o077 == 0
    private = [path for name in PRIVATE for path in (local.home / name).rglob("*")]
    assert len(private) > 10
    assert [path for path in private if path.stat().st_mode & 0o077] == []


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalSystem]:
    """A system of this test, started detached and stopped again."""
    system = LocalSystem(folder=tmp_path)
    try:
        yield system
    finally:
        system.scheduler("local", "--stop")
        end_processes_in(tmp_path)


def start(system: LocalSystem) -> None:
    """Start it and return once it is ready."""
    done = system.scheduler("local", "--detach", "--port", "0")
    assert done.returncode == 0, done.stderr


def test_a_second_start_initialises_nothing_again(own: LocalSystem) -> None:
    """Keys, store and role are those of the first; secrets are still there."""
    start(own)
    token = logged_in(own)
    assert openbao(own, "credentials/data/x", SECRET, token).status_code == 200
    own.scheduler("local", "--stop")
    keys = sorted(secrets_of(own))

    start(own)

    assert sorted(secrets_of(own)) == keys
    found = openbao(own, "credentials/data/x", token=logged_in(own))
    assert found.json()["data"]["data"] == {"a": "b"}
    by_root = [line for line in audit_lines(own) if '"policies":["root"]' in line]
    revocations = [line for line in by_root if f'"path":"{ROOT_REVOKED}"' in line]
    assert len(revocations) == 2  # one request and its answer


@pytest.mark.campaign
def test_a_set_up_that_was_cut_short_is_finished(own: LocalSystem) -> None:
    """Initialised and killed before the role was there: the recovery key makes a root token."""
    start(own)
    own.scheduler("local", "--stop")
    (own.home / "openbao" / "set-up").unlink()
    (own.home / "secrets" / "openbao-secret-id").unlink()

    start(own)

    assert logged_in(own)


@pytest.mark.campaign
def test_a_first_start_that_was_cut_short_begins_anew(own: LocalSystem) -> None:
    """Killed before the recovery key was kept: nothing can be in the store."""
    start(own)
    own.scheduler("local", "--stop")
    (own.home / "openbao" / "set-up").unlink()
    for name in ("openbao-secret-id", "openbao-recovery-key"):
        (own.home / "secrets" / name).unlink()

    start(own)

    assert logged_in(own)


def test_a_lost_seal_key_is_said_and_not_replaced(own: LocalSystem) -> None:
    """Another key would make the secrets unreadable for good."""
    start(own)
    own.scheduler("local", "--stop")
    key = own.home / "secrets" / "openbao-seal-key"
    kept = key.read_bytes()
    key.unlink()

    refused = own.scheduler("local", "--detach", "--port", "0")

    assert refused.returncode != 0
    assert "openbao-seal-key is missing" in refused.stderr
    key.write_bytes(kept)
    start(own)


def test_without_spicedb_the_way_to_it_is_said(own: LocalSystem) -> None:
    """It was never built, and none is on the PATH."""
    own.extra = {"XDG_CACHE_HOME": str(own.folder / "empty")}

    refused = own.scheduler("local", "--detach", "--port", "0")

    assert refused.returncode != 0
    assert "deploy/spicedb.sh" in refused.stderr
