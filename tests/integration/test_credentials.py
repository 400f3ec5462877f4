"""Credentials: kept in OpenBao, shown to nobody, shared, bound, rotated, deleted."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airavata_scheduler.backends import credential_kinds, openbao, secret_collector
from airavata_scheduler.models import credentials as rows
from airavata_scheduler.models.credentials import Written
from airavata_scheduler.models.database import execute, now_ms, transaction
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import AuditEntry, Credential, CredentialVersion
from tests.api import Api, LoggedIn, MakeApi, refill
from tests.canaries import canary
from tests.in_step import out_of_step
from tests.servers.openbao import OpenBao
from tests.work import Site

CANARY = canary("credentials")
PASSWORD = {"username": "ada", "password": CANARY}


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


def make(user: LoggedIn, name: str = "cluster", **more: Any) -> dict[str, Any]:
    """A new password of `user`."""
    body = {"name": name, "kind": "PASSWORD", "value": PASSWORD, **more}
    answer = user.post("/credentials", body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json
    return found


def reveal(user: LoggedIn, name: str = "cluster", **body: Any) -> Any:
    """The answer to asking for the value."""
    return user.post(f"/credentials/{name}/reveal", body)


def test_a_credential_is_shown_without_its_value(api: Api, ada: LoggedIn) -> None:
    """Neither creating, showing, listing nor the history tells it; the owner may reveal it."""
    made = make(ada)
    texts = [
        ada.get("/credentials").text,
        ada.get("/credentials/cluster").text,
        ada.get("/credentials/cluster/versions").text,
        str(made),
    ]

    assert made["may"] == ["read", "use", "write", "share", "reveal", "delete"]
    assert made["public"]["username"] == "ada"
    assert not any(CANARY in text for text in texts)
    assert reveal(ada).json == {"id": made["id"], "version": 1, "value": PASSWORD}
    assert AuditEntry.select().where(AuditEntry.action == "reveal").count() == 1


def test_a_key_pair_can_be_made_here(ada: LoggedIn) -> None:
    """The public part is shown; the private one lies in OpenBao."""
    answer = ada.post("/credentials", {"name": "k", "kind": "SSH_KEY", "generate": {}})

    assert answer.status_code == 201, answer.text
    assert answer.json["public"]["public_key"].startswith("ssh-ed25519 ")
    assert "PRIVATE" not in answer.text
    assert "PRIVATE" in reveal(ada, "k").text


@pytest.mark.parametrize(
    ("relation", "may"),
    [
        ("reader", ["read", "use"]),
        ("writer", ["read", "use", "write"]),
        ("revealer", ["read", "reveal"]),
    ],
)
def test_what_a_share_allows(api: Api, ada: LoggedIn, relation: str, may: list[str]) -> None:
    """Each relation allows what it says; taking it away ends it at the next request."""
    bob = api.user("bob")
    make(ada)
    before = bob.get("/credentials/cluster")
    ada.post("/credentials/cluster/shares", {"user": "bob", "relation": relation})
    during = bob.get("/credentials/cluster")
    shown = reveal(bob).status_code
    ended = ada.delete(f"/credentials/cluster/shares?user=bob&relation={relation}")
    after = bob.get("/credentials/cluster")

    assert before.status_code == after.status_code == 404
    assert during.json["may"] == may
    assert shown == (200 if relation == "revealer" else 403)
    assert ended.status_code == 204
    assert reveal(bob).status_code == 404


def test_a_share_with_a_group_reaches_those_five_groups_deep(api: Api, ada: LoggedIn) -> None:
    """And ends for them when the innermost membership ends."""
    bob = api.user("bob")
    make(ada)
    names = [f"g{number}" for number in range(5)]
    for name in names:
        assert ada.post("/groups", {"name": name}).status_code == 201
    for outer, inner in itertools.pairwise(names):
        assert ada.post(f"/groups/{outer}/members", {"group": inner}).status_code == 201
    ada.post("/groups/g4/members", {"user": "bob"})
    ada.post("/credentials/cluster/shares", {"group": "g0"})
    during = bob.get("/credentials/cluster")
    ada.delete("/groups/g4/members/bob")

    assert during.json["may"] == ["read", "use"]
    assert bob.get("/credentials/cluster").status_code == 404


def test_administrators_see_that_it_is_there_and_no_more(api: Api, ada: LoggedIn) -> None:
    """They can delete what somebody left behind."""
    admin = api.admin()
    made = make(ada)

    assert admin.get(f"/credentials/{made['id']}").json["may"] == ["read", "delete"]
    assert reveal(admin, made["id"]).status_code == 403
    assert admin.delete(f"/credentials/{made['id']}").status_code == 204


def test_replacing_ends_the_value_before_at_once(ada: LoggedIn) -> None:
    """It is destroyed in OpenBao; the history says so."""
    made = make(ada)
    second = {**PASSWORD, "password": "another-" + CANARY}

    changed = ada.put("/credentials/cluster/value", json={"value": second})

    assert changed.json["secret_version"] == 2
    assert reveal(ada).json["value"] == second
    assert reveal(ada, version=1).status_code == 410
    assert [stored.destroyed for stored in openbao.secrets().versions(made["id"])] == [True, False]
    states = [row["state"] for row in ada.get("/credentials/cluster/versions").json["items"]]
    assert states == ["current", "destroyed"]


def test_rotating_leaves_the_value_before_for_a_time(ada: LoggedIn) -> None:
    """Whoever began with it may go on; when its time is over the collector destroys it."""
    made = make(ada)
    second = {**PASSWORD, "password": "another-" + CANARY}

    ada.post("/credentials/cluster/rotate", {"value": second, "keep_previous_s": 600})
    during = reveal(ada, version=1)
    execute("UPDATE credential_versions SET ends_at = 1 WHERE state = 'previous'")
    after = reveal(ada, version=1)
    collected = secret_collector.collect()

    assert during.json["value"] == PASSWORD
    assert after.status_code == 410
    assert collected.versions == 1
    assert openbao.secrets().versions(made["id"])[0].destroyed
    assert reveal(ada).json["value"] == second


def test_two_rotations_at_once(ada: LoggedIn) -> None:
    """The second one, which saw the older record, is told so; its value never counts."""
    make(ada)
    etag = ada.get("/credentials/cluster").headers["ETag"]
    body = {"value": {**PASSWORD, "password": "another-" + CANARY}}

    first = ada.post("/credentials/cluster/rotate", body, headers={"If-Match": etag})
    second = ada.post("/credentials/cluster/rotate", body, headers={"If-Match": etag})

    assert first.status_code == 200
    assert second.status_code == 412
    assert CredentialVersion.select().count() == 2


def test_a_deleted_credential_is_gone_everywhere(api: Api, ada: LoggedIn) -> None:
    """For those it was shared with, from its resources, and from OpenBao; its name is free."""
    bob = api.user("bob")
    made = make(ada)
    ada.post("/credentials/cluster/shares", {"user": "bob"})

    deleted = ada.delete("/credentials/cluster")

    assert deleted.status_code == 204
    assert bob.get(f"/credentials/{made['id']}").status_code == 404
    assert ada.get(f"/credentials/{made['id']}").status_code == 404
    assert openbao.secrets().versions(made["id"]) == []
    assert make(ada)["id"] != made["id"]


def test_a_creation_that_fails_leaves_nothing_in_openbao(ada: LoggedIn) -> None:
    """A name that is taken, or a value that is none, costs no orphan."""
    make(ada)
    before = set(openbao.secrets().paths())

    taken = ada.post("/credentials", {"name": "cluster", "kind": "PASSWORD", "value": PASSWORD})
    wrong = ada.post("/credentials", {"name": "x", "kind": "PASSWORD", "value": {"usr": "x"}})

    assert taken.status_code == 409
    assert wrong.status_code == 422
    assert wrong.json["field"].startswith("value")
    assert set(openbao.secrets().paths()) == before


def test_the_same_request_again_makes_one(ada: LoggedIn) -> None:
    """With its Idempotency-Key; the second value is spare and goes."""
    before = set(openbao.secrets().paths())
    body = {"name": "once", "kind": "PASSWORD", "value": PASSWORD}
    headers = {"Idempotency-Key": "k1"}

    one = ada.post("/credentials", body, headers=headers)
    two = ada.post("/credentials", body, headers=headers)

    assert one.status_code == two.status_code == 201
    assert one.json["id"] == two.json["id"]
    assert set(openbao.secrets().paths()) - before == {one.json["id"]}


def test_the_same_request_again_after_the_credential_was_deleted(ada: LoggedIn) -> None:
    """It is told that what it made is gone; nothing is made, and no tombstone is shown."""
    before = set(openbao.secrets().paths())
    body = {"name": "once", "kind": "PASSWORD", "value": PASSWORD}
    headers = {"Idempotency-Key": "k1"}
    ada.post("/credentials", body, headers=headers)
    ada.delete("/credentials/once")

    again = ada.post("/credentials", body, headers=headers)

    assert (again.status_code, again.json["code"]) == (410, "credential_deleted")
    assert "it was deleted since" in again.json["detail"]
    assert ada.get("/credentials").json["items"] == []
    assert set(openbao.secrets().paths()) == before


def test_orphans_are_collected_once_they_are_old(ada: LoggedIn, monkeypatch: Any) -> None:
    """A value without a row waits for its row, and then goes; others stay."""
    made = make(ada)
    orphan = "01a21a00-0000-7000-8000-000000000001"
    openbao.secrets().write(orphan, {"a": CANARY}, write_id=orphan, expected=0)
    openbao.secrets().write(made["id"], {"a": CANARY}, write_id=orphan, expected=1)

    young = secret_collector.collect()
    kept = openbao.secrets().versions(orphan)
    monkeypatch.setattr(secret_collector, "ORPHAN_MS", -60_000)
    old = secret_collector.collect()

    assert young.versions == 0
    assert len(kept) == 1
    assert old.versions == 1
    assert openbao.secrets().versions(orphan) == []
    assert reveal(ada).json["value"] == PASSWORD


def test_the_databases_clock_makes_no_orphan(ada: LoggedIn, monkeypatch: Any) -> None:
    """It may be minutes ahead of OpenBao's: a value that was just written waits for its row."""
    made, orphan = make(ada), new_id()
    openbao.secrets().write(orphan, {"a": CANARY}, write_id=orphan, expected=0)
    openbao.secrets().write(made["id"], {"a": CANARY}, write_id=orphan, expected=1)
    monkeypatch.setattr(secret_collector, "now_ms", lambda: now_ms() + 300_000)

    collected = secret_collector.collect()

    assert collected.versions == 0
    assert len(openbao.secrets().versions(orphan)) == 1


def test_a_row_that_comes_while_the_collector_looks_is_seen(
    ada: LoggedIn, monkeypatch: Any
) -> None:
    """It had not been there when the run began; the value is no orphan."""
    monkeypatch.setattr(secret_collector, "ORPHAN_MS", -60_000)
    credential_id, versions = new_id(), openbao.OpenBao.versions
    openbao.secrets().write(credential_id, PASSWORD, write_id=credential_id, expected=0)

    def meanwhile(self: openbao.OpenBao, path: str) -> list[openbao.Stored]:
        if path == credential_id and not Credential.select().exists():
            written = Written(number=1, write_id=credential_id, public={}, expires_at=None)
            with transaction():
                rows.insert(
                    path, written, name="late", kind="PASSWORD", description="", owner_id=ada.id
                )
        return versions(self, path)

    monkeypatch.setattr(openbao.OpenBao, "versions", meanwhile)

    secret_collector.collect()

    assert Credential.select().count() == 1
    assert not openbao.secrets().versions(credential_id)[0].destroyed


def test_a_run_reads_no_more_credentials_than_it_looks_at(ada: LoggedIn, monkeypatch: Any) -> None:
    """Of however many there are; the next run goes on behind them, and then begins anew."""
    monkeypatch.setattr(secret_collector, "CREDENTIALS_PER_RUN", 2)
    monkeypatch.setattr(secret_collector, "ORPHAN_MS", -60_000)
    ids = sorted(make(ada, name)["id"] for name in ("one", "two", "three"))
    read, versions = list[int](), openbao.OpenBao.versions
    looked = list[str]()

    def counted(sql: str, params: Any = ()) -> Any:
        found = execute(sql, params)
        if "FROM credentials " in sql:
            read.append(len(found))
        return found

    def noted(self: openbao.OpenBao, path: str) -> list[openbao.Stored]:
        looked.append(path)
        return versions(self, path)

    monkeypatch.setattr(secret_collector, "execute", counted)
    monkeypatch.setattr(openbao.OpenBao, "versions", noted)

    for _ in range(3):
        secret_collector.collect()

    assert read == [2, 1, 2]
    assert [path for path in looked if path in ids] == [*ids, *ids[:2]]


def test_binding_and_its_explanation(api: Api, ada: LoggedIn) -> None:
    """Bound to a resource it opens that for those who may use both; the reason is told."""
    bob = api.user("bob")
    site = Site.make()
    execute("UPDATE compute_resources SET owner_id = %s", (ada.id,))
    refill()
    made = make(ada)
    where = f"/credential-resolution?compute={site.name}"
    none = ada.get(where).json
    bound = ada.post("/credentials/cluster/bindings", {"compute": site.name})
    again = ada.post("/credentials/cluster/bindings", {"compute": site.name})

    assert none["chosen"] is None
    assert "No credential is bound" in none["detail"]
    assert bound.status_code == 201, bound.text
    assert again.json["code"] == "binding_exists"
    assert ada.get(where).json["chosen"] == made["id"]
    stranger = bob.get(where).json
    assert (stranger["chosen"], stranger["hidden"], stranger["steps"]) == (None, 1, [])
    ada.post("/credentials/cluster/shares", {"user": "bob", "relation": "revealer"})
    assert bob.get(where).json["steps"][0]["verdict"] == "not_allowed"
    ada.post("/credentials/cluster/shares", {"user": "bob", "relation": "reader"})
    assert bob.get(where).json["chosen"] == made["id"]
    items = ada.get("/credentials/cluster/bindings").json["items"]
    assert [item["name"] for item in items] == [site.name]
    assert ada.delete(f"/credentials/cluster/bindings?compute={site.name}").status_code == 204
    assert ada.get(where).json["chosen"] is None


def test_an_openbao_that_is_away_is_asked_once(
    ada: LoggedIn, openbao_server: OpenBao, monkeypatch: Any
) -> None:
    """However many credentials are bound. What speaks against one without it is told anyway."""
    site, asked, holds = Site.make(), list[str](), openbao.OpenBao.holds
    execute("UPDATE compute_resources SET owner_id = %s", (ada.id,))
    refill()
    for name in ("one", "two", "three", "ended"):
        make(ada, name)
        assert ada.post(f"/credentials/{name}/bindings", {"compute": site.name}).status_code == 201
    execute("UPDATE credentials SET expires_at = 1 WHERE name = 'ended'")

    def counted(self: openbao.OpenBao, path: str, **which: Any) -> bool:
        asked.append(path)
        return holds(self, path, **which)

    monkeypatch.setattr(openbao.OpenBao, "holds", counted)
    openbao_server.seal()
    try:
        explained = ada.get(f"/credential-resolution?compute={site.name}").json
    finally:
        openbao_server.unseal()

    verdicts = {step["name"]: step["verdict"] for step in explained["steps"]}
    assert verdicts == {"one": "unknown", "two": "unknown", "three": "unknown", "ended": "expired"}
    assert explained["chosen"] is None
    assert len(asked) == 1


# SQLite has one writer: there nothing comes between the steps of a transaction.
SERVERS = pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"], indirect=True)


@SERVERS
def test_a_share_that_comes_while_a_credential_is_deleted_ends_with_it(
    api: Api, ada: LoggedIn, monkeypatch: Any
) -> None:
    """It was stored a moment before the row was locked: nothing of it stays behind."""
    api.user("bob")
    make(ada)
    bury = rows.bury

    def meanwhile(row: Credential) -> bool:
        with ThreadPoolExecutor(1) as another:
            body = {"user": "bob", "relation": "reader"}
            shared = another.submit(ada.post, "/credentials/cluster/shares", body).result()
        assert shared.status_code == 201, shared.text
        return bury(row)

    monkeypatch.setattr(rows, "bury", meanwhile)

    assert ada.delete("/credentials/cluster").status_code == 204
    assert execute("SELECT * FROM shares") == []
    assert out_of_step() == set()


@SERVERS
@pytest.mark.parametrize("deleted", ["credential", "resource"])
def test_what_is_deleted_meanwhile_is_bound_to_nothing(
    api: Api, ada: LoggedIn, monkeypatch: Any, deleted: str
) -> None:
    """The request had found both a moment before; it is told that one is gone."""
    site = Site.make(agent=False)
    execute("UPDATE compute_resources SET owner_id = %s", (ada.id,))
    refill()
    make(ada)
    path = {"credential": "/credentials/cluster", "resource": f"/compute-resources/{site.name}"}
    fits = credential_kinds.fits

    def meanwhile(kind: str, resource_kind: str) -> bool:
        with ThreadPoolExecutor(1) as another:
            assert another.submit(ada.delete, path[deleted]).result().status_code == 204
        return fits(kind, resource_kind)

    monkeypatch.setattr(credential_kinds, "fits", meanwhile)

    bound = ada.post("/credentials/cluster/bindings", {"compute": site.name})

    assert bound.status_code == 404, bound.text
    assert execute("SELECT * FROM credential_bindings") == []
    assert out_of_step() == set()


def test_binding_takes_the_resource_too(api: Api, ada: LoggedIn) -> None:
    """Who may only use a resource cannot say what opens it."""
    bob = api.user("bob")
    site = Site.make()
    make(bob, "bobs")
    execute("UPDATE compute_resources SET owner_id = %s", (ada.id,))
    refill()

    assert bob.post("/credentials/bobs/bindings", {"compute": site.name}).status_code == 403


def test_sealed_openbao_is_a_clear_503(ada: LoggedIn, openbao_server: OpenBao) -> None:
    """What needs a value says so; records can be read, and nothing is half made."""
    made = make(ada)
    openbao_server.seal()
    try:
        created = ada.post("/credentials", {"name": "n", "kind": "PASSWORD", "value": PASSWORD})
        revealed = reveal(ada)
        listed = ada.get("/credentials")
        explained = Credential.select().count()
    finally:
        openbao_server.unseal()

    for answer in (created, revealed):
        assert answer.status_code == 503
        assert answer.json["code"] == "secrets_unavailable"
        assert "sealed" in answer.json["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
    assert [item["id"] for item in listed.json["items"]] == [made["id"]]
    assert explained == 1
    assert reveal(ada).json["value"] == PASSWORD


def test_openbao_of_an_older_state_is_refused(ada: LoggedIn, openbao_server: OpenBao) -> None:
    """After its snapshot was restored a newer value is missing, and the older one is not used."""
    make(ada)
    snapshot = openbao_server.save_snapshot()
    second = {**PASSWORD, "password": "another-" + CANARY}
    ada.post("/credentials/cluster/rotate", {"value": second})
    openbao_server.restore_snapshot(snapshot)

    refused = reveal(ada)

    assert refused.status_code == 503
    assert refused.json["code"] == "secret_store_behind"
    assert "restored to an older state" in refused.json["detail"]
    assert CANARY not in refused.text
