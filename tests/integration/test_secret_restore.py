"""An OpenBao that was restored to an older state: refused by name, and mended by a new value."""

from __future__ import annotations

import pytest

from airavata_scheduler.backends import openbao, secret_collector
from airavata_scheduler.models.errors import ConfigurationError
from airavata_scheduler.models.tables import CredentialVersion
from tests.api import Api, LoggedIn, MakeApi
from tests.conftest import empty_tables
from tests.integration.test_credentials import PASSWORD, make, reveal
from tests.secret_store import Store, store, store_server

__all__ = ["store", "store_server"]

OTHER = {"username": "ada", "password": "another-Zq8vJ2-password"}
THIRD = {"username": "ada", "password": "a-third-Zq8vJ2-password"}


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
