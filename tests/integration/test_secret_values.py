"""The order of OpenBao and the database, where one of the two fails between the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airavata_scheduler.backends import openbao, secret_collector
from airavata_scheduler.models import credentials as rows
from airavata_scheduler.models.database import ConnectionLost, database, execute
from airavata_scheduler.models.ids import new_id
from tests.api import Api, LoggedIn, MakeApi
from tests.canaries import canary
from tests.integration.test_credentials import PASSWORD, make, reveal

OTHER = {"username": "ada", "password": canary("values-another")}

# SQLite is a file in this process: it has no answer to lose.
SERVERS = pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture
def api(make_api: MakeApi, secrets_settings: dict[str, str]) -> Api:
    """The application with a real OpenBao behind it, which is nobody's yet."""
    made = make_api(**secrets_settings)
    openbao.secrets().delete(secret_collector.MARK)
    return made


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """Who owns credentials."""
    return api.user("ada")


def lose_the_answer_of_the_commit(patch: pytest.MonkeyPatch, when: Callable[[], bool]) -> list[int]:
    """Of the first COMMIT after which `when` holds: it took place, and nobody hears of it."""
    commit, lost = database.obj.commit, list[int]()

    def losing() -> None:
        commit()
        if not lost and when():
            lost.append(1)
            raise ConnectionLost

    patch.setattr(database.obj, "commit", losing)
    return lost


def counted(table: str) -> int:
    """How many rows there are."""
    return int(execute(f"SELECT COUNT(*) FROM {table}")[0][0])


@SERVERS
def test_a_value_whose_commit_was_not_heard_of_is_kept(
    ada: LoggedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row may name it. The same request again finds what the first one made."""
    body = {"name": "cluster", "kind": "PASSWORD", "value": PASSWORD}
    headers = {"Idempotency-Key": "k1"}
    lost = lose_the_answer_of_the_commit(monkeypatch, lambda: counted("credentials") == 1)

    unsure = ada.post("/credentials", body, headers=headers)
    again = ada.post("/credentials", body, headers=headers)

    assert lost
    assert (unsure.status_code, unsure.json["code"]) == (503, "database_lost")
    assert again.status_code == 201
    assert reveal(ada).json["value"] == PASSWORD


@SERVERS
def test_a_rotation_whose_commit_was_not_heard_of_counts(
    ada: LoggedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new value is there, and so is the one before."""
    make(ada)
    lost = lose_the_answer_of_the_commit(monkeypatch, lambda: counted("credential_versions") == 2)

    unsure = ada.post("/credentials/cluster/rotate", {"value": OTHER, "keep_previous_s": 600})

    assert lost
    assert unsure.json["code"] == "database_lost"
    assert reveal(ada).json["value"] == OTHER
    assert reveal(ada, version=1).json["value"] == PASSWORD


def test_a_value_that_nobody_stored_takes_no_other_with_it(
    ada: LoggedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where OpenBao lost the path, so that both numbers were given again."""
    made, another = make(ada), new_id()
    openbao.secrets().delete(made["id"])

    def overtaken(*_: object, **__: Any) -> bool:
        openbao.secrets().write(made["id"], OTHER, write_id=another, expected=1)
        return False

    monkeypatch.setattr(rows, "set_value", overtaken)

    assert ada.put("/credentials/cluster/value", json={"value": PASSWORD}).status_code == 412
    assert openbao.secrets().read(made["id"], version=2, write_id=another) == OTHER
    assert openbao.secrets().versions(made["id"])[0].destroyed
