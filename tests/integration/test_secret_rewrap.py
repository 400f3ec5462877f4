"""The transit key is rotated, and every kept secret with it: readable at each moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from airavata_scheduler.backends import (
    openbao,
    secret_collector,
    secret_copies,
    secret_rewrap,
    secret_values,
)
from airavata_scheduler.backends.openbao import OpenBao as Secrets
from airavata_scheduler.backends.openbao_http import SecretsRefused
from airavata_scheduler.backends.openbao_setup import rotate_key
from airavata_scheduler.models.tables import Credential, CredentialVersion
from tests import silently
from tests.api import Api, LoggedIn, MakeApi
from tests.integration.test_credentials import PASSWORD, make, reveal
from tests.secret_store import Store, store, store_server

__all__ = ["store", "store_server"]

OTHER = {"username": "ada", "password": "another-Zq8vJ2-password"}


class Killed(BaseException):
    """The process dies here."""


@pytest.fixture
def settings(store: Store) -> dict[str, str]:
    """The scheduler's own login."""
    where = {"OPENBAO_ADDR": store.bao.address, "OPENBAO_CA_FILE": str(store.bao.ca_file)}
    return where | store.login()


@pytest.fixture
def api(make_api: MakeApi, settings: dict[str, str]) -> Iterator[Api]:
    """The application with an OpenBao of this module."""
    made = make_api(**settings)
    openbao.secrets().delete(secret_collector.MARK)
    yield made


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """Who owns credentials."""
    return api.user("ada")


def rotated(store: Store) -> int:
    """A new version of the transit key; its number."""
    with store.root() as root:
        return rotate_key(root, store.server)


def only_newest(store: Store, newest: int) -> None:
    """From now on nothing opens that an older version wrapped."""
    with store.root() as root:
        root.secrets.transit.update_key_configuration("credentials", min_decryption_version=newest)


def states(credential: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Number, reason and state of each version in the history."""
    rows = CredentialVersion.select().where(CredentialVersion.credential_id == credential["id"])
    return [(row.number, row.reason, row.state) for row in rows.order_by(CredentialVersion.number)]


def gone(credential: dict[str, Any]) -> list[int]:
    """The numbers that OpenBao has destroyed."""
    return [one.version for one in openbao.secrets().versions(credential["id"]) if one.destroyed]


def test_every_value_that_may_be_used_is_wrapped_anew(ada: LoggedIn, store: Store) -> None:
    """The present one and the one before it; older keys may go then. A second run does nothing."""
    made = make(ada)
    body = {"value": OTHER, "keep_previous_s": 3600}
    assert ada.post("/credentials/cluster/rotate", body).status_code == 200
    before = ada.get("/credentials/cluster")
    newest = rotated(store)

    done = secret_rewrap.rewrap_all(newest)
    only_newest(store, newest)

    assert (done.values, done.behind) == (2, 0)
    assert reveal(ada).json["value"] == OTHER
    assert reveal(ada, version=3).json["value"] == PASSWORD
    assert states(made) == [
        (1, "create", "destroyed"),
        (2, "rotate", "destroyed"),
        (3, "rewrap", "previous"),
        (4, "rewrap", "current"),
    ]
    assert gone(made) == [1, 2]
    assert ada.get("/credentials/cluster").headers["ETag"] == before.headers["ETag"]
    assert secret_rewrap.rewrap_all(newest).values == 0
    assert ada.get("/credentials/cluster/versions").json["items"][0]["created_by"] is None


def test_what_has_ended_is_left_to_the_collector(ada: LoggedIn, store: Store) -> None:
    """A value that nobody may use, and a credential that was deleted."""
    make(ada)
    ada.put("/credentials/cluster/value", json={"value": OTHER})
    make(ada, "deleted")
    assert ada.delete("/credentials/deleted").status_code == 204

    assert secret_rewrap.rewrap_all(rotated(store)).values == 1


def test_an_older_key_opens_nothing_that_was_not_wrapped_anew(ada: LoggedIn, store: Store) -> None:
    """Without the run the value could not be read: that is what it is for."""
    make(ada)
    newest = rotated(store)
    only_newest(store, newest)
    try:
        with pytest.raises(SecretsRefused):
            secret_values.read(Credential.get())
    finally:
        only_newest(store, 1)


@pytest.mark.parametrize(
    ("place", "step"),
    [(secret_rewrap, "_take_over"), (Secrets, "destroy"), (secret_copies, "note_destroyed")],
    ids=["written", "committed", "destroyed"],
)
def test_a_crash_leaves_everything_readable(
    ada: LoggedIn, store: Store, monkeypatch: pytest.MonkeyPatch, place: Any, step: str
) -> None:
    """Whatever was done last, both values can be read; the next run and the collector end it."""
    monkeypatch.setattr(secret_collector, "ORPHAN_MS", -60_000)
    made = make(ada)
    ada.post("/credentials/cluster/rotate", {"value": OTHER, "keep_previous_s": 3600})
    newest = rotated(store)

    def dies(*_: object) -> None:
        raise Killed

    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(place, step, dies)
            secret_rewrap.rewrap_all(newest)
        assert readable(ada, made) == [PASSWORD, OTHER]
    secret_rewrap.rewrap_all(newest)
    secret_collector.collect()

    assert readable(ada, made) == [PASSWORD, OTHER]
    living = {one.version for one in openbao.secrets().versions(made["id"]) if not one.destroyed}
    assert living == {number for number, _, state in states(made) if state != "destroyed"}
    assert len(living) == 2
    assert secret_rewrap.rewrap_all(newest).values == 0


def readable(user: LoggedIn, credential: dict[str, Any]) -> list[dict[str, str]]:
    """Every value of `cluster` that may still be used, the present one last."""
    answers = [
        reveal(user, version=number)
        for number, _, state in sorted(states(credential), key=lambda told: told[2] == "current")
        if state != "destroyed"
    ]
    assert reveal(user).json == answers[-1].json
    return [answer.json["value"] for answer in answers if answer.status_code == 200]


def test_a_value_that_is_replaced_meanwhile_wins(
    ada: LoggedIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run takes back what it wrapped, and looks again."""
    made = make(ada)
    newest, rewrap = rotated(store), Secrets.rewrap

    def slowly(self: Secrets, path: str, *, version: int, write_id: str) -> int:
        number = rewrap(self, path, version=version, write_id=write_id)
        monkeypatch.setattr(Secrets, "rewrap", rewrap)
        assert ada.put("/credentials/cluster/value", json={"value": OTHER}).status_code == 200
        return number

    monkeypatch.setattr(Secrets, "rewrap", slowly)

    assert secret_rewrap.rewrap_all(newest).values == 1

    assert reveal(ada).json["value"] == OTHER
    assert [state for _, _, state in states(made)] == ["destroyed", "current"]
    assert secret_rewrap.rewrap_all(newest).values == 0


@pytest.mark.parametrize("dies", [False, True], ids=["goes on", "dies"])
def test_a_run_that_sleeps_between_its_steps_loses_nothing(
    ada: LoggedIn, store: Store, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """The collector took the new number for nobody's: the old one is the last copy, and stays."""
    made = make(ada)
    ada.post("/credentials/cluster/rotate", {"value": OTHER, "keep_previous_s": 3600})
    newest, take_over = rotated(store), secret_rewrap._take_over

    def slept(version: CredentialVersion, number: int) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(secret_collector, "ORPHAN_MS", -60_000)
            assert secret_collector.collect().versions == 1
        take_over(version, number)
        if dies:
            raise Killed
        monkeypatch.setattr(secret_rewrap, "_take_over", take_over)

    monkeypatch.setattr(secret_rewrap, "_take_over", slept)
    if dies:
        for _ in range(2):
            with pytest.raises(Killed):
                secret_rewrap.rewrap_all(newest)
        secret_collector.collect()
        monkeypatch.setattr(secret_rewrap, "_take_over", take_over)

    assert secret_rewrap.rewrap_all(newest).values == 2
    assert readable(ada, made) == [PASSWORD, OTHER]
    assert secret_rewrap.rewrap_all(newest) == secret_rewrap.Rewrapped()


def test_a_reader_that_was_overtaken_reads_the_same_value(ada: LoggedIn, store: Store) -> None:
    """It had seen the row before the run, and comes to OpenBao after it."""
    make(ada)
    row, version = Credential.get(), CredentialVersion.get()

    assert secret_rewrap.rewrap_all(rotated(store)).values == 1

    assert secret_values.read(row) == PASSWORD
    assert secret_values.read_version(version) == PASSWORD
    assert secret_values.is_there(row)


def test_who_reveals_it_meanwhile_sees_it(
    ada: LoggedIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever number it has by then: the value that counts has not ended."""
    make(ada)
    newest, find = rotated(store), CredentialVersion.get_or_none

    def overtaken(*query: Any) -> Any:
        monkeypatch.setattr(CredentialVersion, "get_or_none", find)
        assert secret_rewrap.rewrap_all(newest).values == 1
        return find(*query)

    monkeypatch.setattr(CredentialVersion, "get_or_none", overtaken)

    shown = reveal(ada)

    assert shown.status_code == 200, shown.text
    assert (shown.json["version"], shown.json["value"]) == (2, PASSWORD)


def test_a_value_that_openbao_lost_is_counted(ada: LoggedIn, store: Store) -> None:
    """The run goes on with the others, and says how many there are."""
    lost = make(ada, "lost")
    make(ada, "there")
    openbao.secrets().delete(lost["id"])

    done = secret_rewrap.rewrap_all(rotated(store))

    assert (done.values, done.behind) == (1, 1)


def test_numbers_that_a_restored_openbao_gives_again_are_left_out(
    ada: LoggedIn, store: Store
) -> None:
    """The value before is wrapped anew; that which counts is lost, and none stands in for it."""
    made = make(ada)
    snapshot = store.bao.save_snapshot()
    body = {"value": OTHER, "keep_previous_s": 3600}
    assert ada.post("/credentials/cluster/rotate", body).status_code == 200
    store.bao.restore_snapshot(snapshot)

    done = secret_rewrap.rewrap_all(rotated(store))

    assert (done.values, done.behind) == (1, 1)
    assert states(made) == [
        (1, "create", "destroyed"),
        (2, "rotate", "current"),
        (3, "rewrap", "previous"),
    ]
    assert reveal(ada, version=3).json["value"] == PASSWORD
    assert reveal(ada).json["code"] == "secret_store_behind"


def test_the_command_rotates_and_rewraps(
    api: Api, ada: LoggedIn, store: Store, settings: dict[str, str]
) -> None:
    """With an operator's token beside the scheduler's own login; no secret is on the screen."""
    make(ada)
    operator = store.token("airavata-operator")
    env = silently.environment(api.config) | settings | {"OPENBAO_TOKEN": operator}

    done = silently.another_process(api.config, "secrets", "rotate-key", env=env)

    assert done.returncode == 0, done.stderr
    assert "1 values, 0 second factors." in done.stdout
    assert "1 values" in done.stderr
    assert operator not in done.stdout + done.stderr
    assert reveal(ada).json["value"] == PASSWORD
    again = silently.another_process(api.config, "secrets", "rotate-key", "--only-rewrap", env=env)
    assert "0 values" in again.stdout
    collected = silently.another_process(api.config, "secrets", "collect", env=env)
    assert "Deleted: " in collected.stdout, collected.stderr


def test_the_command_takes_an_operators_token(
    api: Api, store: Store, settings: dict[str, str]
) -> None:
    """Without one, and with one that may not: a sentence."""
    env = {**os.environ, **silently.environment(api.config), **settings}
    none = silently.another_process(api.config, "secrets", "rotate-key", env=env)
    lacking = env | {"OPENBAO_TOKEN": store.token()}
    denied = silently.another_process(api.config, "secrets", "rotate-key", env=lacking)

    assert (none.returncode, denied.returncode) == (2, 2)
    assert "OPENBAO_TOKEN is not set" in none.stderr
    assert "its policy does not allow this" in denied.stderr
