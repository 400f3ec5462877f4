"""What leaves an entry in the audit, and when: with the deed, never without it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from airavata_scheduler.backends import openbao, secret_collector
from airavata_scheduler.functions import audit, passwords, second_factor
from airavata_scheduler.models.database import transaction
from airavata_scheduler.models.ids import secret_digest
from airavata_scheduler.models.tables import AuditEntry, Experiment, RecoveryCode, User
from tests.api import Api, LoggedIn, MakeApi
from tests.canaries import canary
from tests.work import Site, sweep

ELSEWHERE = "192.0.2.7"


def entries(action: str) -> list[AuditEntry]:
    """The entries with this action, oldest first."""
    return list(AuditEntry.select().where(AuditEntry.action == action).order_by(AuditEntry.id))


def log_in(api: Api, name: str, password: str, address: str = ELSEWHERE) -> int:
    """The status of a login with a password."""
    answer = api.nobody.post(
        "/auth/login",
        {"username": name, "password": password},
        environ_base={"REMOTE_ADDR": address},
    )
    return answer.status_code


def submitted(ada: LoggedIn) -> str:
    """The path of an experiment that runs."""
    site = Site.make()
    made = ada.post("/experiments", {"project": "spine", "document": sweep(), "submit": True}).json
    site.settle()
    return f"/experiments/{made['id']}"


def test_an_entry_outside_a_transaction_is_refused(fresh_database: str) -> None:
    """Deed and entry are stored together, or neither."""
    with pytest.raises(RuntimeError, match="belongs into the transaction"):
        audit.append("create", "project", "spine")
    assert AuditEntry.select().count() == 0
    with transaction():
        audit.append("create", "project", "spine")
    (entry,) = entries("create")
    assert (entry.actor_kind, entry.actor_id, entry.address) == ("operator", "operator", "")


@pytest.mark.parametrize(
    ("action", "after"),
    [("pause", "PAUSED"), ("cancel", "CANCELLED"), ("resume", "RUNNING"), ("retry", "RUNNING")],
)
def test_a_deed_whose_entry_cannot_be_written_is_not_done(
    api: Api, monkeypatch: pytest.MonkeyPatch, action: str, after: str
) -> None:
    """The experiment stays as it was; a moment later the same request does both."""
    ada = api.user("ada")
    api.project(ada)
    path = submitted(ada)
    before = {"resume": ["pause"], "retry": ["cancel"]}.get(action, [])
    for deed in before:
        assert ada.post(f"{path}/{deed}").status_code == 200
    body = {"failed_only": False} if action == "retry" else {}
    state = ada.get(path).json["state"]

    def fail(*given: Any, **detail: Any) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "append", fail)
        assert ada.post(f"{path}/{action}", body).status_code == 500
    assert ada.get(path).json["state"] == state
    assert Experiment.get().cancel_requested_at is None or before == ["cancel"]

    assert ada.post(f"{path}/{action}", body).json["state"] == after
    assert len(entries(f"experiment.{action}")) == 1


def test_what_changes_nothing_leaves_nothing(api: Api) -> None:
    """Twice is once, in the audit too."""
    ada = api.user("ada")
    api.project(ada)
    path = submitted(ada)
    (task,) = ada.get(f"{path}/tasks?limit=1").json["items"]

    for deed in ("submit", "pause", "pause", "resume", "resume"):
        assert ada.post(f"{path}/{deed}").status_code == 200
    for _ in range(2):
        assert ada.post(f"/tasks/{task['id']}/cancel").status_code == 200
    for _ in range(2):
        assert ada.post(f"{path}/cancel").status_code == 200

    found = [
        row.action
        for row in AuditEntry.select().order_by(AuditEntry.id)
        if row.action.startswith(("experiment.", "task."))
    ]
    assert found == [
        *("experiment.create", "experiment.pause", "experiment.resume"),
        *("task.cancel", "experiment.cancel"),
    ]


def test_a_failed_login_leaves_an_entry(api: Api) -> None:
    """Of whose account, when, from where, in which request; never what was typed."""
    ada, admin = api.user("ada"), api.admin()
    password = canary("mistyped")
    User.update(password_hash=passwords.hashed("the right one is this")).where(
        User.id == ada.id
    ).execute()

    assert log_in(api, "ada", password) == 401
    assert log_in(api, password, "typed into the wrong field") == 401

    known, unknown = entries("login_failed")
    assert (known.object_kind, known.object_id, unknown.object_id) == ("user", ada.id, "")
    assert {(row.actor_kind, row.actor_id) for row in (known, unknown)} == {("nobody", "nobody")}
    assert {row.address for row in (known, unknown)} == {ELSEWHERE}
    assert known.request_id != unknown.request_id
    assert known.detail == unknown.detail == {"proof": "password"}
    assert password not in json.dumps(list(AuditEntry.select().dicts()))
    shown = admin.get("/audit?actor=nobody").json["items"]
    assert [item["action"] for item in shown] == ["login_failed"] * 2
    assert ada.get("/audit?action=login_failed").json["items"] == []


def test_guessing_fills_no_disk(api: Api) -> None:
    """What the back-off refuses leaves no entry, however often it is tried."""
    api.user("ada")

    statuses = [log_in(api, "ada", "not this one") for _ in range(30)]

    assert statuses.count(429) >= 24
    assert len(entries("login_failed")) == statuses.count(401) <= 6


def test_a_wrong_password_of_somebody_logged_in_leaves_an_entry(api: Api) -> None:
    """Theirs: a stolen login that tries the password is seen by its owner."""
    ada = api.user("ada")
    User.update(password_hash=passwords.hashed("the right one is this")).where(
        User.id == ada.id
    ).execute()

    answer = ada.post("/users/me/password", {"current": "not this one", "new": "x" * 20})

    assert answer.json["code"] == "wrong_password"
    (item,) = ada.get("/audit?action=proof_failed").json["items"]
    assert (item["actor"], item["object_id"]) == ("ada", ada.id)
    assert item["detail"] == {"proof": "password"}


def test_a_change_of_power_says_which(api: Api) -> None:
    """Who was made an administrator, or disabled, can be read years later."""
    ada, admin = api.user("ada"), api.admin()

    admin.patch(f"/users/{ada.name}", {"is_admin": True})
    admin.patch(f"/users/{ada.name}", {"state": "disabled", "full_name": "Ada"})

    assert [row.detail for row in entries("update")] == [
        {"changes": ["is_admin"], "is_admin": True},
        {"changes": ["full_name", "state"], "state": "disabled"},
    ]


def test_a_recovery_code_is_used_up_with_its_entry(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the entry cannot be written the code is still there."""
    ada = api.user("ada")
    RecoveryCode.insert(user_id=ada.id, code_hash=secret_digest("abcdabcd"), created_at=1).execute()
    user = User.get_by_id(ada.id)

    def fail(*given: Any, **detail: Any) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "append", fail)
        with pytest.raises(RuntimeError):
            second_factor.use(user, "abcd-abcd")
    assert second_factor.use(user, "abcd-abcd")
    assert not second_factor.use(user, "abcd-abcd")
    assert len(entries("recovery_code_used")) == 1


def test_the_life_of_a_credential_and_a_group(
    make_api: MakeApi, secrets_settings: dict[str, str]
) -> None:
    """Each deed one entry: who, what, when, from where, in which request; its owner sees it."""
    api = make_api(**secrets_settings)
    openbao.secrets().delete(secret_collector.MARK)
    ada, bob, eve, admin = api.user("ada"), api.user("bob"), api.user("eve"), api.admin()
    secret, number = canary("audited"), itertools.count(1)

    def deed(method: str, path: str, json: Any = None) -> None:
        answer = ada.request(
            method,
            path,
            json,
            headers={"X-Request-Id": f"request-{next(number):04}"},
            environ_base={"REMOTE_ADDR": ELSEWHERE},
        )
        assert answer.status_code < 300, answer.text

    deed("POST", "/compute-resources", {"name": "box", "kind": "BARE_METAL", "project": spine(ada)})
    key = {"name": "key", "kind": "PASSWORD", "value": {"username": "ada", "password": secret}}
    deed("POST", "/credentials", key)
    deed("POST", "/groups", {"name": "lab"})
    deed("POST", "/groups/lab/members", {"user": "bob"})
    deed("PATCH", "/groups/lab/members/bob", {"role": "manager"})
    deed("POST", "/credentials/key/shares", {"group": "lab"})
    deed("POST", "/credentials/key/bindings", {"compute": "box"})
    deed("POST", "/credentials/key/rotate", {"value": key["value"]})
    deed("POST", "/credentials/key/reveal", {})
    deed("DELETE", "/credentials/key/bindings?compute=box")
    deed("DELETE", "/groups/lab/members/bob")
    deed("POST", "/credentials/key/shares", {"user": "bob"})
    seen = ada.get("/audit?object=credential:key").json["items"]
    refused = bob.get("/audit?object=credential:key"), eve.get("/audit?object=credential:key")
    deed("DELETE", "/credentials/key")

    found = list(AuditEntry.select().where(AuditEntry.address == ELSEWHERE).order_by(AuditEntry.id))
    assert [(row.action, row.object_kind) for row in found] == [
        ("create", "compute_resource"),
        ("create", "credential"),
        ("create", "group"),
        ("add_member", "group"),
        ("change_member", "group"),
        ("share", "credential"),
        ("bind", "credential"),
        ("rotate", "credential"),
        ("reveal", "credential"),
        ("unbind", "credential"),
        ("remove_member", "group"),
        ("share", "credential"),
        ("delete", "credential"),
    ]
    assert {row.actor_id for row in found} == {ada.id}
    assert [row.request_id for row in found] == [f"request-{n:04}" for n in range(1, 14)]
    assert [item["action"] for item in reversed(seen)] == [
        *("create", "share", "bind", "rotate", "reveal", "unbind", "share"),
    ]
    assert [answer.status_code for answer in refused] == [403, 404]
    credential = found[1].object_id
    gone = admin.get(f"/audit?object=credential:{credential}").json["items"]
    assert [item["action"] for item in gone[:2]] == ["delete", "share"]
    assert secret not in json.dumps(list(AuditEntry.select().dicts()))


def spine(user: LoggedIn) -> str:
    """The name of a new project of the user."""
    made = user.post("/projects", {"name": "spine"})
    assert made.status_code == 201
    return "spine"
