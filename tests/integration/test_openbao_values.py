"""Secrets in a real OpenBao: by check-and-set, of exactly one version, never of another one."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from airavata_scheduler.backends import openbao, openbao_http
from airavata_scheduler.backends.openbao import SecretStoreBehind
from airavata_scheduler.backends.openbao_http import SecretsRefused, SecretsUnavailable
from airavata_scheduler.backends.openbao_setup import SSH_ROLE, rotate_key
from airavata_scheduler.backends.openbao_transit import key_version_of
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.ids import new_id
from tests.canaries import canary
from tests.credentials import ssh_key
from tests.lossy_proxy import LossyProxy
from tests.secret_store import Kept, Store, keep, kept, store, store_server
from tests.waiting import wait_until

__all__ = ["store", "store_server"]

CANARY = canary("store")


def test_versions_are_written_told_destroyed_and_deleted(store: Store) -> None:
    """Each version is there until it is destroyed; a deleted path is as if it had never been."""
    secrets = store.secrets()
    first = keep(secrets, "one")
    second = keep(secrets, "two", path=first.path, expected=1)

    assert (first.version, second.version) == (1, 2)
    assert (kept(secrets, first), kept(secrets, second)) == ("one", "two")
    assert secrets.current_version(first.path) == 2
    assert first.path in set(secrets.paths())

    secrets.destroy(first.path, [1])

    told = secrets.versions(first.path)
    assert [(one.version, one.destroyed) for one in told] == [(1, True), (2, False)]
    assert told[0].created_ms <= told[1].created_ms
    assert not secrets.holds(first.path, version=1, write_id=first.write_id)
    with pytest.raises(SecretStoreBehind):
        kept(secrets, first)
    assert secrets.holds(first.path, version=2, write_id=second.write_id)

    secrets.delete(first.path)

    assert secrets.versions(first.path) == []
    assert secrets.current_version(first.path) == 0
    assert first.path not in set(secrets.paths())


def test_paths_are_listed_by_the_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, no answer is longer than a page; each path is told once."""
    monkeypatch.setattr(openbao, "PATHS_PER_PAGE", 2)
    secrets = store.secrets()
    mine = {keep(secrets, "one").path for _ in range(5)}
    before = _listings(store)

    told = list(secrets.paths())

    assert mine <= set(told)
    assert told == sorted(set(told))
    wait_until(lambda: _listings(store) == before + len(told) // 2 + 1)


def _listings(store: Store) -> int:
    """How many times paths were listed, by the audit."""
    entries = map(json.loads, store.bao.audit_files[0].read_text().splitlines())
    return sum(
        entry["type"] == "response" and entry["request"]["operation"] == "list" for entry in entries
    )


def test_as_many_threads_as_the_api_has_share_the_connections(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """None is thrown away for being one too many, and made anew with the next request."""
    secrets = store.secrets()
    value = keep(secrets, "one")

    with ThreadPoolExecutor(32) as pool:
        read = list(pool.map(lambda _: kept(secrets, value), range(320)))

    assert read == ["one"] * 320
    assert "pool is full" not in caplog.text


def test_a_wrapped_text_is_good_for_its_context_alone(store: Store) -> None:
    """It may lie in any row; in another row it opens nothing."""
    secrets = store.secrets()
    text = secrets.wrap(CANARY.encode(), "ada")

    assert CANARY not in text
    assert secrets.unwrap(text, "ada") == CANARY.encode()
    with pytest.raises(SecretsRefused):
        secrets.unwrap(text, "eve")
    with pytest.raises(SecretsRefused):
        secrets.unwrap("vault:v1:AAAA", "ada")


def test_rewrapping_changes_the_key_and_nothing_else(store: Store) -> None:
    """The same value under the next number; the one before is still there."""
    secrets = store.secrets()
    value, text = keep(secrets, "one"), secrets.wrap(b"two", "ada")
    with store.root() as root:
        newest = rotate_key(root, store.server)

    again = replace(value, version=secrets.rewrap(value.path, version=1, write_id=value.write_id))

    assert again.version == 2
    assert kept(secrets, value) == kept(secrets, again) == "one"
    assert secrets.key_version(again.path, version=2, write_id=again.write_id) == newest
    assert key_version_of(text) == newest - 1
    assert key_version_of(secrets.rewrap_text(text)) == newest
    assert secrets.unwrap(secrets.rewrap_text(text), "ada") == b"two"


def test_certificates_are_signed_for_one_name(store: Store) -> None:
    """By the authority whose public key hosts trust, and not for longer than the role allows."""
    secrets = store.secrets()
    key = serialization.load_ssh_private_key(ssh_key().encode(), password=None)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    signed = secrets.sign_ssh(SSH_ROLE, line, principal="ada", ttl_s=60)

    assert signed.startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert secrets.ssh_authority().startswith("ssh-ed25519 ")
    with pytest.raises(SecretsRefused):
        secrets.sign_ssh("nobody", line, principal="ada", ttl_s=60)


def test_only_one_of_two_writers_wins(store: Store) -> None:
    """Who had seen an older version is told, and nothing of theirs is kept."""
    secrets = store.secrets()
    first = keep(secrets, "one")
    second = keep(secrets, "two", path=first.path, expected=1)

    with pytest.raises(Conflict) as raced:
        keep(secrets, "three", path=first.path, expected=1)

    assert raced.value.code == "secret_raced"
    assert secrets.current_version(first.path) == 2
    assert kept(secrets, second) == "two"


@pytest.mark.parametrize("lose", ["request", "answer"])
def test_a_write_whose_answer_is_lost_is_found(
    store: Store, lose: Literal["request", "answer"]
) -> None:
    """Written once, whether it was the request that got lost or the answer."""
    with LossyProxy(
        target=store.bao.address, ca_file=str(store.bao.ca_file), path="/v1/credentials/data/"
    ).running() as proxy:
        secrets = store.secrets()
        secrets.server = replace(secrets.server, address=proxy.address)
        secrets.session.server = secrets.server

        proxy.lose = lose
        value = keep(secrets, "one")

        assert len(proxy.lost) == 1
        assert value.version == 1
        assert secrets.current_version(value.path) == 1
        assert kept(secrets, value) == "one"


def test_another_write_id_is_another_value(store: Store) -> None:
    """The number alone says nothing."""
    secrets = store.secrets()
    value = keep(secrets, "one")
    wrong = replace(value, write_id=new_id())

    assert not secrets.holds(wrong.path, version=1, write_id=wrong.write_id)
    with pytest.raises(SecretStoreBehind):
        kept(secrets, wrong)
    with pytest.raises(SecretStoreBehind):
        secrets.rewrap(wrong.path, version=1, write_id=wrong.write_id)


def test_a_value_at_another_path_is_refused(store: Store) -> None:
    """Who may write OpenBao cannot give one credential's value to another one."""
    secrets = store.secrets()
    value, other = keep(secrets, "one"), new_id()
    with store.root() as root:
        found = root.secrets.kv.v2.read_secret_version(
            value.path, mount_point="credentials", raise_on_deleted_version=True
        )
        root.secrets.kv.v2.create_or_update_secret(
            other, secret=found["data"]["data"], cas=0, mount_point="credentials"
        )

    with pytest.raises(SecretStoreBehind):
        kept(secrets, replace(value, path=other))


def test_a_text_that_is_no_value_is_refused(store: Store) -> None:
    """Nor can they put a second factor's secret there: the key opens it, and it is no value."""
    secrets = store.secrets()
    stray = Kept(path=new_id(), version=1, write_id=new_id())
    with store.root() as root:
        secret = {"wrapped": secrets.wrap(b"one", "ada"), "write_id": stray.write_id}
        root.secrets.kv.v2.create_or_update_secret(
            stray.path, secret=secret, cas=0, mount_point="credentials"
        )

    with pytest.raises(SecretStoreBehind):
        kept(secrets, stray)


def test_a_store_that_went_back_is_refused(store: Store) -> None:
    """A restored snapshot lacks the newest version, or has another one of the same number."""
    secrets = store.secrets()
    first = keep(secrets, "old")
    snapshot = store.bao.save_snapshot()
    second = keep(secrets, "new", path=first.path, expected=1)

    store.bao.restore_snapshot(snapshot)

    with pytest.raises(SecretStoreBehind) as behind:
        kept(secrets, second)
    assert "restored to an older state" in behind.value.detail
    assert "never used instead" in behind.value.detail
    assert (behind.value.code, behind.value.status) == ("secret_store_behind", 503)
    assert kept(secrets, first) == "old"

    again = keep(secrets, "other", path=first.path, expected=1)

    assert again.version == second.version
    assert kept(secrets, again) == "other"
    with pytest.raises(SecretStoreBehind):
        kept(secrets, second)


def test_sealed_is_said_and_it_comes_back(store: Store) -> None:
    """One sentence at once, with when to try again; unsealed, the same process goes on."""
    secrets = store.secrets()
    value = keep(secrets, "one")
    store.bao.seal()
    try:
        with pytest.raises(SecretsUnavailable) as sealed:
            kept(secrets, value)
        with pytest.raises(SecretsUnavailable):
            keep(secrets, "two")
    finally:
        store.bao.unseal()

    assert "is sealed" in sealed.value.detail
    assert (sealed.value.code, sealed.value.retry_after_s) == ("secrets_unavailable", 10.0)
    assert kept(secrets, value) == "one"


def test_killed_is_said_and_it_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged is there when it is back; nothing is half-made meanwhile."""
    monkeypatch.setattr(openbao_http, "TRY_FOR_S", 0.5)
    secrets = store.secrets()
    value = keep(secrets, "one")
    store.bao.kill()
    try:
        with pytest.raises(SecretsUnavailable) as away:
            kept(secrets, value)
    finally:
        store.bao.start()

    assert "cannot be reached" in away.value.detail
    assert kept(secrets, value) == "one"
    assert kept(secrets, keep(secrets, "two", path=value.path, expected=1)) == "two"


def test_a_secret_is_in_no_log_and_no_error(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Neither value, token nor secret id: OpenBao's log and audit files, ours, reprs."""
    caplog.set_level(logging.DEBUG)
    wrapping = store.wrapped_secret_id()
    login = store.login()
    file = Path(login["OPENBAO_SECRET_ID_FILE"])
    wrapped = file.read_text()
    secrets = store.secrets(**login)
    value = keep(secrets, CANARY)
    token, secret_id = secrets.session.client().token, file.read_text()
    said = [repr(secrets), str(secrets), repr(secrets.session.login), repr(store.server)]
    for deed in (
        lambda: keep(secrets, CANARY, path=value.path),
        lambda: kept(secrets, replace(value, write_id=new_id())),
        lambda: secrets.unwrap(secrets.wrap(CANARY.encode(), "a"), "b"),
        lambda: secrets.sign_ssh("nobody", CANARY, principal="a", ttl_s=1),
    ):
        with pytest.raises((Conflict, SecretStoreBehind, SecretsRefused)) as error:
            deed()
        said += [str(error.value), repr(error.value), str(error.getrepr(style="short"))]
        assert error.value.__suppress_context__ or error.value.__context__ is None
    wait_until(lambda: all(value.path in path.read_text() for path in store.bao.audit_files))

    files = [*store.bao.audit_files, store.bao.server.log]
    texts = [caplog.text, *said, *(path.read_text() for path in files)]
    for hidden in (CANARY, str(token), secret_id, wrapped, wrapping):
        assert len(hidden) > 20
        assert not any(hidden in text for text in texts), hidden
