"""An OpenBao that was restored to an older state: refused by name, and mended by a new value."""

from __future__ import annotations

import pytest

from airavata_scheduler.backends import openbao, secret_collector, secret_presence
from airavata_scheduler.models.errors import ConfigurationError
from airavata_scheduler.models.tables import CredentialVersion
from tests.api import Api, LoggedIn, MakeApi
from tests.canaries import canary
from tests.conftest import empty_tables
from tests.integration.test_credentials import PASSWORD, make, reveal
from tests.secret_store import Store, store, store_server
from tests.silently import another_process, environment

__all__ = ["store", "store_server"]

OTHER = {"username": "ada", "password": canary("restored-another")}
THIRD = {"username": "ada", "password": canary("restored-third")}


@pytest.fixture
def api(make_api: MakeApi, store: Store) -> Api:
    """The application with an OpenBao of this module."""
    where = {"OPENBAO_ADDR": store.bao.address, "OPENBAO_CA_FILE": str(store.bao.ca_file)}
    return make_api(**where, **store.login())


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """Who owns credentials."""
    return api.user("ada")


@pytest.mark.parametrize("keep_s", [0, 3600])
def test_a_restored_store_is_refused_until_a_value_is_written_again(
    ada: LoggedIn, store: Store, keep_s: int
) -> None:
    """The older value is never used; the numbers that are given again are the new values' ones."""
    make(ada)
    make(ada, "untouched")
    snapshot = store.bao.save_snapshot()
    for value in (OTHER, OTHER):
        body = {"value": value, "keep_previous_s": 3600}
        assert ada.post("/credentials/cluster/rotate", body).status_code == 200
    store.bao.restore_snapshot(snapshot)

    refused = reveal(ada)
    assert (refused.status_code, refused.json["code"]) == (503, "secret_store_behind")
    assert PASSWORD["password"] not in refused.text
    assert reveal(ada, "untouched").json["value"] == PASSWORD

    for number in (2, 3, 4):
        body = {"value": THIRD, "keep_previous_s": keep_s}
        answer = ada.post("/credentials/cluster/rotate", body)
        assert answer.status_code == 200, answer.text
        assert reveal(ada).json | {"id": ""} == {"id": "", "version": number, "value": THIRD}

    rows = CredentialVersion.select().order_by(CredentialVersion.number)
    cluster = [row for row in rows if row.credential_id == refused_id(ada)]
    assert [row.state for row in cluster].count("current") == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_operator_is_told_and_a_newer_snapshot_mends_it(
    api: Api, ada: LoggedIn, store: Store
) -> None:
    """`secrets check` and `doctor` name it; with the snapshot from after the rotation all works."""
    own = environment(api.config) | store.login()
    own |= {"OPENBAO_ADDR": store.bao.address, "OPENBAO_CA_FILE": str(store.bao.ca_file)}

    def told(*words: str) -> tuple[int, str]:
        done = another_process(api.config, *words, env=own)
        return done.returncode, done.stdout + done.stderr

    make(ada)
    older = store.bao.save_snapshot()
    before = told("secrets", "check")
    body = {"value": OTHER, "keep_previous_s": 3600}
    assert ada.post("/credentials/cluster/rotate", body).status_code == 200
    newer = store.bao.save_snapshot()
    store.bao.restore_snapshot(older)
    used, checked, examined = reveal(ada), told("secrets", "check"), told("doctor")
    store.bao.restore_snapshot(newer)

    sentence = "does not hold 1 of the 1 values that were written last, of cluster."
    assert before[0] == 0, before
    assert "It holds the 1 values that were written last." in before[1]
    assert used.json["code"] == "secret_store_behind"
    assert (checked[0], examined[0]) == (1, 1)
    assert sentence in checked[1]
    assert sentence in examined[1]
    assert secret_presence.HINT in examined[1]
    assert reveal(ada).json["value"] == OTHER
    assert told("secrets", "check")[0] == 0
    assert "OpenBao holds the newest 1" in told("doctor")[1]


def test_nothing_of_another_deployment_is_collected(
    make_api: MakeApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler with an empty database destroys nothing in an OpenBao that is in use."""
    monkeypatch.setattr(secret_collector, "ORPHAN_MS", -60_000)
    where = {"OPENBAO_ADDR": store.bao.address, "OPENBAO_CA_FILE": str(store.bao.ca_file)}
    login = store.login()
    ada = make_api(**where, **login).user("ada")
    openbao.secrets().delete(secret_collector.MARK)
    made = make(ada)
    assert secret_collector.collect().paths >= 0
    empty_tables()
    make_api(**where, **login)

    with pytest.raises(ConfigurationError, match="of another deployment: nothing was collected"):
        secret_collector.collect()

    assert openbao.secrets().current_version(made["id"]) == 1


def refused_id(user: LoggedIn) -> str:
    """The id of the credential `cluster`."""
    return str(user.get("/credentials/cluster").json["id"])
