"""A whole system that handles secrets, and nowhere one of them afterwards."""

from __future__ import annotations

import copy
import json
import zlib
from typing import Any

import httpx
import psutil
import pyotp
import redis

from tests.acceptance.system import LocalSystem
from tests.canaries import PLANTED, WORD, canary, in_bytes, in_processes, leaks, redis_contents
from tests.credentials import kubeconfig
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
        self.answers: list[tuple[str, bytes]] = []

    def also(self, token: str) -> Person:
        """Somebody else, whose answers are kept with these."""
        other = copy.copy(self)
        other.client = httpx.Client(
            base_url=self.client.base_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        return other

    def send(self, method: str, path: str, body: Any = None, *, shows: bool = False) -> Any:
        """One request; with `shows` its answer is meant to show a secret."""
        answer = self.client.request(method, path, json=body)
        if not shows:
            self.answers.append((f"{method} {path}", answer.content))
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
    """Everything in the system's Redis: each key with its value."""
    socket = system.home / "run" / "redis.sock"
    with redis.Redis(unix_socket_path=str(socket)) as client:
        return redis_contents(client)


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
    config = kubeconfig(user={"token": canary("kube")})
    kube = {"name": "k", "kind": "KUBECONFIG", "value": {"kubeconfig": config}}
    assert person.send("POST", "/credentials", kube).status_code == 201
    for kind, value in (
        ("SSH_KEY", {"private_key": WRONG_KEY}),
        ("PASSWORD", {"pasword": canary("misspelt")}),
        ("PASSWORD", {canary("field"): "ada"}),
        ("KUBECONFIG", {"kubeconfig": f"a: {canary('kube')}"}),
        (canary("kind"), {"a": "b"}),
    ):
        wrong = person.send("POST", "/credentials", {"name": "w", "kind": kind, "value": value})
        assert wrong.status_code == 422, wrong.text
    person.send("DELETE", "/credentials/t")


def use_an_account(person: Person) -> list[str]:
    """A colleague with a password, a second factor and a token; the secrets that we gave out."""
    made = person.send("POST", "/users", {"name": "bob"})
    assert made.status_code == 201, made.text
    shared = person.send("POST", "/credentials/c/shares", {"user": "bob", "relation": "reader"})
    assert shared.status_code == 201, shared.text
    link = person.send("POST", "/users/bob/password-link", {}, shows=True).json()["link"]
    word = link.rpartition("=")[2].rpartition("#")[2].rpartition("/")[2]
    for login in (
        {"username": "bob", "password": canary("login")},
        {"username": canary("user"), "password": canary("login")},
    ):
        assert person.send("POST", "/auth/login", login).status_code == 401
    chosen = {"token": word, "password": canary("account")}
    logged_in = person.send("POST", "/auth/password-link", chosen, shows=True)
    assert logged_in.status_code == 200, logged_in.text
    own = person.also(logged_in.json()["access_token"])
    with own.client:
        factor = own.send(
            "POST", "/users/me/totp", {"password": canary("account")}, shows=True
        ).json()
        code = pyotp.TOTP(factor["secret"]).now()
        on = own.send("POST", "/users/me/totp/confirm", {"code": code}, shows=True)
        assert on.status_code == 201, on.text
        wrong = {"password": canary("wrong"), "code": canary("code")}
        assert own.send("DELETE", "/users/me/totp", wrong).status_code in (401, 403, 422)
    token = {"name": "t", "scopes": ["read"]}
    token_made = person.send("POST", "/users/me/tokens", token, shows=True).json()["token"]
    used = person.also(token_made)
    with used.client:
        assert used.send("GET", "/credentials").status_code == 200
        assert used.send("POST", f"/credentials/{token_made}/reveal", {}).status_code in (403, 404)
    return [
        word,
        factor["secret"],
        token_made,
        logged_in.json()["access_token"],
        logged_in.json()["refresh_token"],
        *on.json()["recovery_codes"],
    ]


def use_a_key(person: Person) -> str:
    """A key that we generate; a line of its private half."""
    body = {"name": "key", "kind": "SSH_KEY", "generate": {"username": "ada"}}
    assert person.send("POST", "/credentials", body).status_code == 201
    shown = person.send("POST", "/credentials/key/reveal", {}, shows=True).json()["value"]
    return str(shown["private_key"].splitlines()[-3])


def run_one(local: LocalSystem) -> None:
    """An experiment, whose folders and journal are searched as well."""
    file = local.folder / "one.yml"
    file.write_text("name: one\nscripts: {A: 'env; echo done'}\ntasks: {a: {script: A}}\n")
    done = local.airavata("experiment", "run", str(file), "--watch")
    assert done.returncode == 0, done.stderr


def answers(person: Person) -> bool:
    """Whether the API answers; a connection to the killed one is reset."""
    try:
        return bool(person.send("GET", "/credentials").status_code == 200)
    except httpx.TransportError:
        return False


def found_in(local: LocalSystem, person: Person, word: str = WORD) -> list[str]:
    """Where `word` stands: files, Redis, answers that may not show it, processes."""
    return [
        *leaks([local.folder], word),
        *(f"Redis: {how}" for how in in_bytes(redis_dump(local), word)),
        *(
            f"the answer of {asked}: {how}"
            for asked, answer in person.answers
            for how in in_bytes(answer, word)
        ),
        *in_processes(processes(local), word),
    ]


def test_no_secret_is_found_anywhere(local: LocalSystem) -> None:
    """Not in a file, in Redis, in an answer, on a command line or in an environment.

    Neither what a user gave us nor what we gave out. No file is excepted: the `secrets` folder of
    `local` holds the operator's keys, never a user's.
    """
    person = Person(local)
    with person.client:
        use_secrets(person)
        pid = local.kill("api")
        local.wait_for_another("api", pid)
        wait_until(
            lambda: answers(person),
            timeout_s=60,
            message="the API to answer again",
        )
        given_out = [*use_an_account(person), use_a_key(person)]
        run_one(local)
        revealed = person.send("POST", "/credentials/c/reveal", {}, shows=True)
    assert canary("another") in revealed.text

    assert found_in(local, person) == []
    for number, word in enumerate(given_out):
        assert len(word) > 8
        assert found_in(local, person, word) == [], f"secret {number} of those that we gave out"


def test_a_planted_one_would_be_found(local: LocalSystem) -> None:
    """The search looks where it should: the same places, with a canary put there."""
    word, key, person = canary("planted"), f"canaries:{PLANTED}", Person(local)
    person.answers.append(("nothing", f"so {word}".encode()))
    log = local.home / "logs" / "planted.log"
    log.write_text(f"oops {word}", encoding="utf-8")
    socket = f"unix://{local.home / 'run' / 'redis.sock'}"
    try:
        with redis.Redis.from_url(socket) as client:
            client.hset(key, "a", zlib.compress(word.encode()))
            found = found_in(local, person)
            client.delete(key)
    finally:
        log.unlink()
        person.client.close()
    assert found == [f"{log}: in clear", "Redis: in clear", "the answer of nothing: in clear"]
