"""Logging in to a real OpenBao and staying logged in; what a login may not do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.backends import openbao_setup
from airavata_scheduler.backends.openbao import OpenBao as Secrets
from airavata_scheduler.backends.openbao_http import SecretsRefused, TokenLost, call
from airavata_scheduler.models.errors import ConfigurationError
from tests.secret_store import Store, keep, kept, store, store_server
from tests.waiting import wait_until

__all__ = ["store", "store_server"]

LOG_IN = """
import sys
from airavata_scheduler.backends import openbao
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.ids import new_id
openbao.configure(Configuration.read(dotenv=None))
print("ready", flush=True)
sys.stdin.readline()
print(openbao.secrets().write(new_id(), {"password": "a"}, write_id=new_id(), expected=0))
"""


def told_of(store: Store, secrets: Secrets) -> dict[str, Any]:
    """What OpenBao knows of the token that is in use."""
    with store.root() as root:
        found: dict[str, Any] = root.auth.token.lookup(secrets.session.client().token)["data"]
    return found


def test_a_token_is_renewed_at_half_its_life(store: Store) -> None:
    """By a thread, while nobody asks for anything."""
    role = f"/v1/auth/approle/role/{openbao_setup.ROLE}"
    with store.root() as root:
        root.adapter.post(role, json={"token_period": "4s"})
        try:
            secrets = store.secrets()
            token = secrets.session.client().token
            first = told_of(store, secrets)

            wait_until(lambda: told_of(store, secrets).get("last_renewal_time"))
        finally:
            root.adapter.post(role, json={"token_period": openbao_setup.ROLE_PERIOD})

    assert first["period"] == 4
    assert secrets.session.client().token == token
    assert told_of(store, secrets)["ttl"] >= 2


def test_a_token_that_cannot_be_renewed_is_replaced_before_its_end(store: Store) -> None:
    """Its longest life is over soon: another one is there before."""
    role = f"/v1/auth/approle/role/{openbao_setup.ROLE}"
    with store.root() as root:
        root.adapter.post(role, json={"token_period": 0, "token_max_ttl": "4s"})
        try:
            secrets = store.secrets()
            first = secrets.session.client().token

            wait_until(lambda: secrets.session.client().token != first)
        finally:
            renewed = {"token_period": openbao_setup.ROLE_PERIOD, "token_max_ttl": 0}
            root.adapter.post(role, json=renewed)


def test_a_revoked_token_costs_one_login(store: Store) -> None:
    """The call that meets it succeeds, with a new token."""
    secrets = store.secrets()
    value = keep(secrets, "one")
    lost = secrets.session.client().token
    with store.root() as root:
        root.auth.token.revoke(lost)

    assert kept(secrets, value) == "one"
    assert secrets.session.client().token != lost


def test_a_plain_token_that_is_lost_is_said(store: Store) -> None:
    """There is no other to be had: one sentence with the next step."""
    token = store.token(period="1h")
    secrets = store.secrets(OPENBAO_TOKEN=token)
    value = keep(secrets, "one")
    with store.root() as root:
        root.auth.token.revoke(token)

    with pytest.raises(SecretsRefused) as refused:
        kept(secrets, value)

    assert "has ended or was revoked" in refused.value.detail
    assert "OPENBAO_TOKEN" in str(refused.value.hint)
    assert token not in str(refused.value)


def test_what_the_policy_denies_costs_no_login(store: Store) -> None:
    """A good token is kept, and the sentence speaks of the policy."""
    secrets = store.secrets()
    token = secrets.session.client().token

    with pytest.raises(SecretsRefused) as refused:
        secrets.session.do(lambda client: client.adapter.get("/v1/sys/mounts"))

    assert "policy does not allow" in refused.value.detail
    assert secrets.session.client().token == token


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", "sys/mounts", None),
        ("post", "sys/mounts/more", {"type": "kv"}),
        ("get", "sys/policies/acl/airavata-scheduler", None),
        ("post", "sys/policies/acl/airavata-scheduler", {"policy": 'path "*" {}'}),
        ("get", "sys/audit", None),
        ("get", "sys/storage/raft/snapshot", None),
        ("get", "other/data/a", None),
        ("post", "credentials/config", {"cas_required": False}),
        ("delete", "credentials/data/a", None),
        ("post", "auth/token/create", {"policies": ["root"]}),
        ("get", "auth/approle/role/airavata-scheduler/role-id", None),
        ("post", "auth/approle/role/airavata-scheduler/secret-id", {}),
        ("get", "transit/keys/credentials", None),
        ("delete", "transit/keys/credentials", None),
        ("post", "transit/keys/credentials/config", {"deletion_allowed": True}),
        ("post", "transit/keys/credentials/rotate", {}),
        ("post", "transit/keys/more", {}),
        ("post", "transit/encrypt/more", {"plaintext": "YQ=="}),
        ("get", "transit/export/encryption-key/credentials", None),
        ("get", "transit/backup/credentials", None),
        ("post", "ssh/roles/airavata", {"key_type": "ca"}),
        ("delete", "ssh/config/ca", None),
    ],
)
def test_the_policy_denies_what_is_not_its_business(
    store: Store, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """Whoever steals the scheduler's token cannot do this with it."""
    secrets = store.secrets()

    def ask(client: Any) -> Any:
        more = {} if body is None else {"json": body}
        return getattr(client.adapter, method)(f"/v1/{path}", **more)

    with pytest.raises(SecretsRefused) as refused:
        secrets.session.do(ask)

    assert "policy does not allow" in refused.value.detail


@pytest.mark.parametrize("place", ["VAULT_TOKEN", ".vault-token"])
def test_a_token_that_lies_about_is_never_sent(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    """hvac would take an operator's own one for a call that is made before the login."""
    monkeypatch.setenv("HOME", str(tmp_path))
    if place == "VAULT_TOKEN":
        monkeypatch.setenv(place, store.bao.root_token)
    else:
        (tmp_path / place).write_text(store.bao.root_token)

    client = store.server.client(None)

    with pytest.raises(TokenLost):
        call(client.sys.list_mounted_secrets_engines)


def test_the_secret_id_is_kept_in_the_place_of_what_it_was_wrapped_in(store: Store) -> None:
    """For the other processes, readable for this user alone; each has a token of its own."""
    login = store.login()
    file = Path(login["OPENBAO_SECRET_ID_FILE"])
    wrapping = file.read_text()

    one, two = store.secrets(**login), store.secrets(**login)
    value = keep(one, "one")

    assert kept(two, value) == "one"
    assert one.session.client().token != two.session.client().token
    assert file.read_text() != wrapping
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_may_hold_the_secret_id(store: Store) -> None:
    """As Kubernetes gives it: then nothing is opened, and nothing written."""
    login = store.login()
    keep(store.secrets(**login), "one")
    file = Path(login["OPENBAO_SECRET_ID_FILE"])
    file.chmod(0o400)
    before = file.stat()

    keep(store.secrets(**login), "two")

    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("again", [False, True], ids=["opened", "opened-and-wrapped-again"])
def test_a_secret_id_that_somebody_else_opened_is_found_out(store: Store, again: bool) -> None:
    """Also where they wrapped what they had read, and put that there."""
    wrapping = store.wrapped_secret_id()
    with store.bao.client(wrapping) as thief:
        stolen = thief.sys.unwrap()["data"]
    if again:
        with store.root() as root:
            made = root.adapter.post("/v1/sys/wrapping/wrap", json=stolen, wrap_ttl="1h")
        wrapping = made["wrap_info"]["token"]
    file = store.folder / f"stolen-{again}"
    file.write_text(wrapping)

    with pytest.raises(ConfigurationError) as found:
        keep(store.secrets(**store.login(file)), "one")

    assert "was opened already, or has ended" in found.value.detail
    assert "somebody else has it" in str(found.value.hint)
    assert wrapping not in f"{found.value} {found.value.hint}"


def test_a_destroyed_secret_id_is_said(store: Store) -> None:
    """The operator ended it: a login is refused with the next step."""
    login = store.login()
    keep(store.secrets(**login), "one")
    secret_id = Path(login["OPENBAO_SECRET_ID_FILE"]).read_text()
    with store.root() as root:
        path = f"/v1/auth/approle/role/{openbao_setup.ROLE}/secret-id/destroy"
        root.adapter.post(path, json={"secret_id": secret_id})

    with pytest.raises(SecretsRefused) as refused:
        keep(store.secrets(**login), "two")

    assert "refuses the scheduler's AppRole" in refused.value.detail
    assert "wrapped secret id" in str(refused.value.hint)


def test_processes_that_start_at_once_share_one_wrapped_secret_id(store: Store) -> None:
    """The first one opens it; whoever comes at the same moment waits, and gets in too."""
    where = {"OPENBAO_ADDR": store.bao.address, "OPENBAO_CA_FILE": str(store.bao.ca_file)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_IN],
            env=os.environ | where | login,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for login in [store.login()]
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    said = [process.communicate(timeout=30)[0] for process in processes]

    assert said == ["1\n"] * 3


def test_a_login_that_fails_is_not_tried_by_everybody_at_once(store: Store) -> None:
    """For a second the same answer is given at once, and OpenBao is not asked again."""
    file = store.folder / "missing"
    secrets = store.secrets(**store.login(file))
    with pytest.raises(ConfigurationError):
        keep(secrets, "one")
    file.write_text(store.wrapped_secret_id())

    with pytest.raises(ConfigurationError):
        keep(secrets, "one")

    def logged_in() -> bool:
        try:
            return keep(secrets, "one").version == 1
        except ConfigurationError:
            return False

    wait_until(logged_in)
