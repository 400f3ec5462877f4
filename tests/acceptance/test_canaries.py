"""A whole system that handles secrets, and nowhere one of them afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from tests.acceptance.system import LocalSystem
from tests.canaries import PLANTED, canary, in_bytes, in_processes, leaks
from tests.waiting import wait_until

KEY = canary("key")
WRONG_KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY}\n-----END OPENSSH PRIVATE KEY-----\n"


class Person:
    """Somebody who sends requests and keeps every answer that may not hold a secret."""

    def __init__(self, system: LocalSystem) -> None:
        status = system.status()
        assert status is not None
        profile = json.loads(
            next((system.folder / ".config" / "airavata").glob("*.json")).read_text()
        )
        self.client = httpx.Client(
            base_url=f"{status['url']}/api/v1",
            headers={"Authorization": f"Bearer {_access_token(profile)}"},
            timeout=30,
        )
        self.answers: list[bytes] = []

    def send(self, method: str, path: str, body: Any = None, *, shows: bool = False) -> Any:
        """One request; with `shows` its answer is meant to show a secret."""
        answer = self.client.request(method, path, json=body)
        if not shows:
            self.answers.append(answer.content)
        return answer


def _access_token(document: Any) -> str:
    """The access token, wherever the profile keeps it."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "access_token":
                return str(value)
            found = _access_token(value) if isinstance(value, dict | list) else ""
            if found:
                return found
    return ""


def redis_dump(system: LocalSystem) -> bytes:
    """Everything in the system's Redis: each key with its value as Redis dumps it."""
    socket = system.home / "run" / "redis.sock"
    with redis.Redis(unix_socket_path=str(socket)) as client:
        return b"\n".join(key + b"=" + (client.dump(key) or b"") for key in client.keys("*"))


def processes(system: LocalSystem) -> list[int]:
    """The supervisor and everything below it."""
    assert system.supervisor is not None
    top = psutil.Process(system.supervisor.pid)
    return [top.pid, *(child.pid for child in top.children(recursive=True))]


def use_secrets(person: Person) -> None:
    """Everything that one does with secrets, right and wrong."""
    password = {"username": "ada", "password": canary("password")}
    made = person.send("POST", "/credentials", {"name": "c", "kind": "PASSWORD", "value": password})
    assert made.status_code == 201, made.text
    revealed = person.send("POST", "/credentials/c/reveal", {}, shows=True)
    assert revealed.json()["value"] == password
    another = {"value": {**password, "password": canary("another")}}
    assert person.send("POST", "/credentials/c/rotate", another).status_code == 200
    assert person.send("PUT", "/credentials/c/value", another).status_code == 200
    assert person.send("POST", "/credentials/c/bindings", {"compute": "local"}).status_code == 201
    person.send("GET", "/credential-resolution?compute=local")
    person.send("POST", "/credentials/c/test", {"target": "ssh://ada@127.0.0.1:1"})
    token = {"name": "t", "kind": "TOKEN", "value": {"token": canary("token")}}
    assert person.send("POST", "/credentials", token).status_code == 201
    for kind, value in (
        ("SSH_KEY", {"private_key": WRONG_KEY}),
        ("PASSWORD", {"pasword": canary("misspelt")}),
        ("KUBECONFIG", {"kubeconfig": f"a: {canary('kube')}"}),
        (canary("kind"), {"a": "b"}),
    ):
        wrong = person.send("POST", "/credentials", {"name": "w", "kind": kind, "value": value})
        assert wrong.status_code == 422, wrong.text
    login = {"username": "nobody", "password": canary("login")}
    assert person.send("POST", "/auth/login", login).status_code == 401
    person.send("DELETE", "/credentials/t")


def test_no_secret_is_found_anywhere(local: LocalSystem) -> None:
    """Not in a file, in Redis, in an answer, on a command line or in an environment."""
    person = Person(local)
    with person.client:
        use_secrets(person)
        pid = local.kill("api")
        local.wait_for_another("api", pid)
        wait_until(
            lambda: person.send("GET", "/credentials").status_code == 200,
            timeout_s=60,
            message="the API to answer again",
        )
        revealed = person.send("POST", "/credentials/c/reveal", {}, shows=True)
    assert canary("another") in revealed.text

    assert in_bytes(b"".join(person.answers)) == set()
    assert leaks([local.folder]) == []
    assert in_bytes(redis_dump(local)) == set()
    assert in_processes(processes(local)) == []


def test_a_planted_one_would_be_found(local: LocalSystem) -> None:
    """The search looks where it should: the same places, with a canary put there."""
    log = local.home / "logs" / "planted.log"
    log.write_text(f"oops {canary('planted')}", encoding="utf-8")
    try:
        assert leaks([local.folder]) == [f"{log}: in clear"]
    finally:
        log.unlink()
    assert Path(f"{PLANTED}x").name.startswith(PLANTED)
