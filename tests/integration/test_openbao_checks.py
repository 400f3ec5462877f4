"""What is wrong with OpenBao is one sentence; what is only away stops no start."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from airavata_scheduler.backends import openbao_setup
from airavata_scheduler.backends.openbao_checks import UNSEEN, Fault, look
from airavata_scheduler.backends.openbao_http import Server
from airavata_scheduler.backends.openbao_setup import policy_text
from airavata_scheduler.commands import doctor, start_checks
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import AiravataError, ConfigurationError
from tests.lossy_proxy import LossyProxy
from tests.secret_store import Store, store, store_server
from tests.servers.openbao import OpenBao
from tests.servers.programs import free_port, running
from tests.waiting import wait_until

__all__ = ["store", "store_server"]


def faults(configuration: Configuration) -> list[Fault]:
    """What is wrong; each sentence is one, and has its next step."""
    found = look(configuration).faults
    for fault in found:
        assert fault.detail.endswith(".")
        assert fault.hint
        assert "\n" not in fault.detail
    return found


def the_fault(configuration: Configuration) -> Fault:
    """The one thing that is wrong; whether it stops a start is what the start does."""
    (fault,) = faults(configuration)
    if fault.stops:
        with pytest.raises(ConfigurationError) as stopped:
            start_checks.check_secrets(configuration)
        assert (stopped.value.detail, stopped.value.hint) == (fault.detail, fault.hint)
    else:
        start_checks.check_secrets(configuration)
    return fault


@contextmanager
def policy(store: Store, text: str) -> Iterator[str]:
    """A token whose policy is `text`."""
    with store.root() as root:
        root.sys.create_or_update_policy("of-a-test", text)
    yield store.token("of-a-test", period="1h")


def test_nothing_is_wrong(store: Store) -> None:
    """By the AppRole; that audit devices cannot be seen is no fault."""
    configuration = store.configuration(**store.login())

    found = look(configuration)

    assert found.faults == []
    assert UNSEEN in found.seen
    start_checks.check_secrets(configuration)


def test_the_tokens_of_a_look_are_given_back(store: Store) -> None:
    """Each start looks; OpenBao is not filled with tokens that nobody uses."""

    def count() -> int:
        with store.root() as root:
            return len(root.list("auth/token/accessors")["data"]["keys"])

    login = store.login()
    look(store.configuration(**login))
    before = count()

    look(store.configuration(**login))

    assert count() == before


def test_an_operator_sees_the_audit_devices(store: Store) -> None:
    """Two of them, as config/openbao.hcl has it."""
    found = look(store.configuration(OPENBAO_TOKEN=store.bao.root_token))

    assert found.faults == []
    assert "2 audit devices" in found.seen


def test_no_login_is_set(store: Store) -> None:
    """The start is stopped: every secret needs it."""
    fault = the_fault(store.configuration())

    assert "Neither OPENBAO_TOKEN nor OPENBAO_ROLE_ID" in fault.detail
    assert fault.stops


@pytest.mark.parametrize("address", ["openbao:8200", "ftp://openbao", "http://"])
def test_a_malformed_address(address: str) -> None:
    """The setting itself is refused."""
    with pytest.raises(ConfigurationError, match="OPENBAO_ADDR"):
        Configuration.read({"OPENBAO_ADDR": address}, dotenv=None)


def test_unreachable(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Said, and the start goes on: agents and running tasks need no secret."""
    nowhere = f"https://localhost:{free_port()}"

    fault = the_fault(store.configuration(OPENBAO_ADDR=nowhere, OPENBAO_TOKEN="s.a"))

    assert "cannot be reached" in fault.detail
    assert not fault.stops
    assert "Warning: OpenBao" in capsys.readouterr().err


def test_a_certificate_that_cannot_be_verified(store: Store) -> None:
    """Without OPENBAO_CA_FILE a private authority is not trusted."""
    bare = {"OPENBAO_ADDR": store.bao.address, "OPENBAO_TOKEN": "s.a"}

    fault = the_fault(Configuration.read(bare, dotenv=None))

    assert "certificate cannot be verified" in fault.detail
    assert "OPENBAO_CA_FILE" in fault.hint
    assert not fault.stops


def test_no_tls_to_another_machine(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Said where the token would cross a network; on this machine itself there is none."""
    token = {"OPENBAO_TOKEN": store.bao.root_token}
    with LossyProxy(target=store.bao.address, ca_file=str(store.bao.ca_file)).running() as proxy:
        here = store.configuration(OPENBAO_ADDR=proxy.address, **token)
        # Linux takes this address to this machine; it stands for another one.
        elsewhere = proxy.address.replace("127.0.0.1", "0.0.0.0")

        assert faults(here) == []
        fault = the_fault(store.configuration(OPENBAO_ADDR=elsewhere, **token))

    assert fault.detail == (
        "OPENBAO_ADDR is without TLS: the token and every secret cross the network in clear."
    )
    assert "https" in fault.hint
    assert not fault.stops
    assert "Warning: OPENBAO_ADDR" in capsys.readouterr().err


def test_an_authority_that_cannot_be_read(store: Store) -> None:
    """A setting is wrong: the start is stopped."""
    fault = the_fault(store.configuration(OPENBAO_CA_FILE="/nowhere/ca.pem", OPENBAO_TOKEN="s.a"))

    assert fault.detail == "OPENBAO_CA_FILE /nowhere/ca.pem cannot be read."
    assert fault.stops


def test_not_initialised_and_one_audit_device(tmp_path: Path) -> None:
    """A new server, of whose two audit devices one was left out."""
    bao = OpenBao(tmp_path)
    file = tmp_path / "openbao.hcl"
    file.write_text(re.sub(r'audit "file" "two" \{.*?\n\}\n', "", file.read_text(), flags=re.S))
    bao.server.start(lambda: bao.health() is not None)
    try:
        fresh = Store(bao=bao, folder=tmp_path)
        fault = the_fault(fresh.configuration(OPENBAO_TOKEN="s.a"))
        assert "not initialised" in fault.detail
        assert not fault.stops
    finally:
        bao.stop()
    with running(bao):
        fresh.set_up()
        fault = the_fault(fresh.configuration(OPENBAO_TOKEN=bao.root_token))
        assert "has 1 audit devices" in fault.detail
        assert not fault.stops


def test_sealed(store: Store) -> None:
    """Said, and the start goes on."""
    store.bao.seal()
    try:
        fault = the_fault(store.configuration(OPENBAO_TOKEN="s.a"))
    finally:
        store.bao.unseal()

    assert "is sealed" in fault.detail
    assert not fault.stops


def test_a_token_that_is_refused(store: Store) -> None:
    """It has ended, or is another server's."""
    fault = the_fault(store.configuration(OPENBAO_TOKEN="s.nonsense"))

    assert "refuses OPENBAO_TOKEN" in fault.detail
    assert fault.stops
    assert "s.nonsense" not in fault.detail + fault.hint


def test_a_token_that_ends_for_good(store: Store) -> None:
    """Said at the start, not a day later; a periodic one may be renewed for ever."""
    ending = store.token(ttl="24h")
    with store.root() as root:
        end = root.auth.token.lookup(ending)["data"]["expire_time"]

    fault = the_fault(store.configuration(OPENBAO_TOKEN=ending))

    assert fault.detail == (
        f"OPENBAO_TOKEN is not periodic: it ends at {end[:19]}Z, renewed it lives longer, but "
        "not for ever."
    )
    assert "-period=" in fault.hint
    assert not fault.stops
    assert ending not in fault.detail + fault.hint
    assert faults(store.configuration(OPENBAO_TOKEN=store.token(period="24h"))) == []


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("OPENBAO_CREDENTIALS_PATH", "credentials-x", "has no credentials-x/ (OPENBAO_CREDENTIALS"),
        ("OPENBAO_CREDENTIALS_PATH", "old-kv", "old-kv/ (OPENBAO_CREDENTIALS_PATH) is not a KV"),
        ("OPENBAO_CREDENTIALS_PATH", "transit", "is not a KV engine of version 2"),
        ("OPENBAO_TRANSIT_PATH", "transit-x", "has no transit-x/ (OPENBAO_TRANSIT_PATH)"),
        ("OPENBAO_TRANSIT_KEY", "other", "has no transit key other in transit/"),
        ("OPENBAO_SSH_PATH", "ssh-x", "has no ssh-x/ (OPENBAO_SSH_PATH)"),
    ],
)
@pytest.mark.parametrize("who", ["scheduler", "root"])
def test_what_is_missing(store: Store, who: str, setting: str, value: str, words: str) -> None:
    """An engine or the key; seen with the least policy as well, and nothing is made by looking."""
    with store.root() as root:
        if "old-kv/" not in root.sys.list_mounted_secrets_engines()["data"]:
            root.sys.enable_secrets_engine("kv", path="old-kv", options={"version": "1"})
    named = store.configuration(**{setting: value})
    with policy(store, policy_text(Server.of(named))) as token:
        used = token if who == "scheduler" else store.bao.root_token

        for _ in range(2):
            fault = the_fault(store.configuration(OPENBAO_TOKEN=used, **{setting: value}))

            assert words in fault.detail
            assert fault.stops


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('path "credentials/destroy/*"', "lacks update on credentials/destroy/*"),
        ('path "transit/decrypt/credentials"', "lacks update on transit/decrypt/credentials"),
        ('path "auth/token/renew-self"', "lacks update on auth/token/renew-self"),
    ],
)
def test_a_capability_that_the_policy_lacks(store: Store, line: str, words: str) -> None:
    """The path is named, with what is missing on it."""
    whole = policy_text(store.server)
    assert line in whole
    with policy(store, whole.replace(line, 'path "elsewhere"')) as token:
        fault = the_fault(store.configuration(OPENBAO_TOKEN=token))

    assert words in fault.detail
    assert "secrets policy" in fault.hint
    assert fault.stops


def test_half_of_a_capability(store: Store) -> None:
    """What is there is not named."""
    text = policy_text(store.server).replace('["create", "read", "update"]', '["read"]')
    with policy(store, text) as token:
        fault = the_fault(store.configuration(OPENBAO_TOKEN=token))

    assert fault.detail == "OpenBao's policy lacks create, update on credentials/data/*."


def test_other_mounts_stand_in_the_policies(store: Store) -> None:
    """Each name in its place, also where it begins as the default does; set up, all is well."""
    names = {
        "OPENBAO_CREDENTIALS_PATH": "credentials-prod/kv",
        "OPENBAO_TRANSIT_PATH": "transit-prod",
        "OPENBAO_TRANSIT_KEY": "credentials-2",
        "OPENBAO_SSH_PATH": "ssh-prod",
    }
    configuration = store.configuration(OPENBAO_TOKEN=store.bao.root_token, **names)
    server = Server.of(configuration)
    with store.root() as root:
        openbao_setup.set_up(root, server)
        openbao_setup.set_up(root, server)
        try:
            assert faults(configuration) == []
            assert faults(store.configuration(**store.login(), **names)) == []
        finally:
            openbao_setup.set_up(root, store.server)

    text = policy_text(server) + policy_text(server, openbao_setup.OPERATOR_POLICY)
    assert 'path "credentials-prod/kv/metadata" {' in text
    assert 'path "transit-prod/encrypt/credentials-2" {' in text
    assert 'path "transit-prod/keys/credentials-2/rotate" {' in text
    assert 'path "ssh-prod/sign/*" {' in text
    assert not re.search(r'path "(credentials|transit|ssh)/', text)


def test_a_foreign_engine_is_left_alone(store: Store) -> None:
    """Set-up refuses a mount that is something else."""
    configuration = store.configuration(OPENBAO_CREDENTIALS_PATH="transit")
    with store.root() as root, pytest.raises(AiravataError) as refused:
        openbao_setup.set_up(root, Server.of(configuration))

    assert refused.value.detail == (
        "OpenBao has something else than a KV engine of version 2 at transit/."
    )


def test_the_doctor_says_it_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One finding for each fault; what does not stop a start is a warning."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENBAO_ADDR", store.bao.address)
    monkeypatch.setenv("OPENBAO_CA_FILE", str(store.bao.ca_file))
    monkeypatch.setenv("OPENBAO_TOKEN", store.bao.root_token)

    def finding() -> dict[str, str]:
        told = json.loads(CliRunner().invoke(doctor.command, ["--json"]).output)
        (found,) = (one for one in told if one["name"] == "secrets")
        return dict(found)

    assert finding()["verdict"] == "pass"
    monkeypatch.setenv("OPENBAO_TOKEN", "s.nonsense")
    assert finding()["verdict"] == "fail"
    store.bao.seal()
    try:
        wait_until(lambda: finding()["verdict"] == "warn")
    finally:
        store.bao.unseal()
