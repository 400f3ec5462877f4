"""The audit: written with the deed, chained, read by permission, exported and verified."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airavata_scheduler.client.api_audit import verify_export
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.models import audit_chain, deployment
from airavata_scheduler.models.audit_chain import COLUMNS
from airavata_scheduler.models.database import connected, execute, now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import AuditEntry
from tests.api import Api

SEALER = """
import sys
from airavata_scheduler.models import audit_chain, database
database.connect(sys.argv[1])
with database.connected():
    while audit_chain.head().seq < int(sys.argv[2]):
        audit_chain.seal(limit=int(sys.argv[3]))
"""

# The first `name` is read by people, the last one by json.loads.
TWICE = """REPLACE(detail, '{"name"', '{"name":"eve","name"')"""
NESTED = '{"a":' * 100_000


def write(count: int) -> list[str]:
    """Entries that are not sealed yet; their ids."""
    ids = [new_id() for _ in range(count)]
    for number, entry_id in enumerate(ids):
        AuditEntry.insert(
            id=entry_id,
            at=now_ms(),
            actor_kind="user",
            actor_id="somebody",
            action="create",
            object_kind="project",
            object_id=f"object-{number}",
            detail={"name": f"ü{number}", "nested": {"b": 1, "a": [True, None]}},
        ).execute()
    return ids


def seal_all() -> None:
    """Seal until nothing is left."""
    while audit_chain.seal():
        pass


def sealed(limit: int) -> int:
    """How many one call of `seal` took, on a connection of its own."""
    with connected():
        return audit_chain.seal(limit)


def exported() -> list[str]:
    """The lines of an export, as the route makes them."""
    head = audit_chain.head()
    lines = [json.dumps(entry, sort_keys=True) for entry in audit_chain.entries()]
    return [*lines, json.dumps({"head": {"seq": head.seq, "hash": head.hash}})]


def test_a_chain_that_nobody_touched_is_good(fresh_database: str) -> None:
    """Numbers without a gap; server and client judge alike."""
    write(12)
    seal_all()
    write(3)
    seal_all()

    verdict = audit_chain.verify()
    assert verdict.fault is None
    assert verdict.entries == 15
    assert [entry["seq"] for entry in audit_chain.entries()] == list(range(1, 16))
    offline = verify_export(exported())
    assert (offline.fault, offline.entries) == (None, 15)
    assert offline.head == str(audit_chain.head())


def test_many_sealers_at_once_make_one_chain(fresh_database: str) -> None:
    """None forks it or leaves a gap, while others write."""
    limits = ("1", "7", "20")
    command = [sys.executable, "-c", SEALER, fresh_database, "200"]
    sealers = [subprocess.Popen([*command, limit]) for limit in limits]
    for _ in range(200):
        write(1)

    assert [sealer.wait(60) for sealer in sealers] == [0, 0, 0]

    verdict = audit_chain.verify()
    assert (verdict.fault, verdict.entries) == (None, 200)


def test_a_sealer_that_has_read_the_head_is_alone(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one waits until the first has moved it: no number is given twice."""
    write(20)
    read, second_is_done = threading.Event(), threading.Event()
    locked_head = audit_chain._locked_head

    def first_waits() -> audit_chain.Head:
        found = locked_head()
        if not read.is_set():
            read.set()
            second_is_done.wait(0.5)  # in vain: the second cannot get so far
        return found

    monkeypatch.setattr(audit_chain, "_locked_head", first_waits)
    with ThreadPoolExecutor(max_workers=2) as threads:
        first = threads.submit(sealed, 5)
        assert read.wait(10)
        second = threads.submit(sealed, 3)
        second.add_done_callback(lambda _: second_is_done.set())
        assert (first.result(30), second.result(30)) == (5, 3)

    verdict = audit_chain.verify()
    assert (verdict.fault, verdict.entries) == (None, 8)


@pytest.mark.parametrize(
    ("tampering", "said"),
    [
        ("UPDATE audit SET actor_id = 'eve' WHERE seq = 3", "Entry 3 "),
        ("UPDATE audit SET detail = '{}' WHERE seq = 1", "Entry 1 "),
        ("DELETE FROM audit WHERE seq = 4", "Entry 4 is missing"),
        ("DELETE FROM audit WHERE seq >= 5", "from 5 to 6 are missing at the end"),
        ("UPDATE audit SET seq = 60 WHERE seq = 6", "Entry 6 is missing"),
        ("UPDATE audit SET hash = 'f' WHERE seq = 6", "Entry 6 "),
        ("UPDATE audit SET hash = NULL WHERE seq = 2", "Entry 2 "),
        ("UPDATE audit SET detail = 'no JSON' WHERE seq = 2", "Entry 2 "),
        (f"UPDATE audit SET detail = {TWICE} WHERE seq = 2", "Entry 2 "),
        ("UPDATE audit SET detail = REPLACE(detail, ':', ': ') WHERE seq = 2", "Entry 2 "),
        ("UPDATE audit SET address = '192.0.2.1' WHERE seq = 2", "Entry 2 "),
        ("UPDATE audit SET seq = 0 WHERE seq = 6", "was put in"),
        ("UPDATE audit SET seq = -5 WHERE seq = 6", "was put in"),
    ],
)
def test_tampering_is_named(fresh_database: str, tampering: str, said: str) -> None:
    """The first fault, by the server and by the client alike."""
    write(6)
    seal_all()
    execute(tampering)

    verdict = audit_chain.verify()
    offline = verify_export(exported())

    assert verdict.fault is not None
    assert offline.fault is not None
    assert said in verdict.fault
    assert verdict.fault == offline.fault


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_in_the_hash(fresh_database: str, name: str) -> None:
    """Whatever is changed of an entry is seen."""
    write(2)
    seal_all()
    other = {"at": 1, "id": new_id(), "project_id": new_id(), "detail": "{}"}.get(name, "other")
    execute(f"UPDATE audit SET {name} = %s WHERE seq = 1", (other,))

    fault = audit_chain.verify().fault

    assert fault is not None
    assert fault.startswith("Entry 1 ")
    assert verify_export(exported()).fault == fault


def test_an_entry_is_chained_to_the_one_before(fresh_database: str) -> None:
    """Who changes an entry and its hash rightly breaks the one behind it."""
    write(3)
    seal_all()
    execute("UPDATE audit SET actor_id = 'eve' WHERE seq = 2")
    first, second, _ = audit_chain.entries()
    content = {name: value for name, value in second.items() if name != "hash"}
    changed = audit_chain.entry_hash(first["hash"], content)
    execute("UPDATE audit SET hash = %s WHERE seq = 2", (changed,))

    fault = audit_chain.verify().fault

    assert fault is not None
    assert fault.startswith("Entry 3 ")
    assert verify_export(exported()).fault == fault


def test_an_entry_behind_the_head_is_found(fresh_database: str) -> None:
    """Somebody chained an entry of their own, rightly, but the head does not know it."""
    write(3)
    seal_all()
    before = audit_chain.head()
    write(1)
    seal_all()
    deployment.write("audit:head", str(before))

    fault = audit_chain.verify().fault

    assert fault is not None
    assert "The head is at entry 3, and the chain goes on to 4" in fault
    assert verify_export(exported()).fault == "The head's hash is not that of entry 4."


def test_a_head_that_was_changed_is_found(fresh_database: str) -> None:
    """Another hash; and what is no head at all."""
    write(2)
    seal_all()

    deployment.write("audit:head", f"2:{'e' * 64}")
    assert audit_chain.verify().fault == "The head's hash is not that of entry 2."
    deployment.write("audit:head", "nonsense")
    assert "it is no SEQ:HASH" in str(audit_chain.verify().fault)


def test_entries_that_are_sealed_meanwhile_are_no_fault(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon goes on while somebody verifies."""
    monkeypatch.setattr(audit_chain, "PAGE", 2)
    write(4)
    seal_all()
    walk = audit_chain.entries

    def slow() -> Iterator[dict[str, Any]]:
        for entry in walk():
            if entry["seq"] in (2, 4):
                write(1)
                seal_all()
            yield entry

    monkeypatch.setattr(audit_chain, "entries", slow)
    verdict = audit_chain.verify()

    assert verdict.fault is None
    assert verdict.entries >= 5


def test_an_entry_that_is_seen_late_is_chained_late(fresh_database: str) -> None:
    """Its id is lower than one that is sealed: another process's clock, or a long transaction."""
    early = new_id()
    (late,) = write(1)
    seal_all()
    (written,) = write(1)
    execute("UPDATE audit SET id = %s WHERE id = %s", (early, written))
    seal_all()

    assert [entry["id"] for entry in audit_chain.entries()] == [late, early]
    assert audit_chain.verify().fault is None


def test_an_idle_sealer_writes_nothing(fresh_database: str) -> None:
    """Nothing to seal is one look."""
    assert audit_chain.seal() == 0
    assert deployment.read("audit:head") is None
    assert audit_chain.verify().fault is None


@pytest.mark.parametrize(
    "text",
    [
        "12",
        "12:",
        f"12:{'F' * 64}",
        f"-1:{'f' * 64}",
        f"12:{'f' * 64} ",
        f"\u0661:{'f' * 64}",
        "nonsense",
    ],
)
def test_what_is_no_head_is_refused(text: str) -> None:
    """A witness that nothing is compared with would be no witness."""
    with pytest.raises(ValueError, match="SEQ:HASH"):
        audit_chain.Head.read(text)
    with pytest.raises(BadInputError, match="SEQ:HASH"):
        verify_export([], text)


def test_files_that_are_no_export_are_refused() -> None:
    """With a sentence, whatever is in them."""
    good = '{"hash":"a","id":"b","seq":1}'
    for line in (
        "",
        "[]",
        "7",
        "no JSON",
        '{"seq": 1}',
        '{"seq": "1", "hash": "a"}',
        '{"seq": true, "hash": "a"}',
        '{"seq": 1, "hash": 1}',
        '{"head": 3}',
        '{"head": {"seq": 1}}',
        '{"action": "create", "action": "delete", "hash": "a", "seq": 1}',
        '{"seq": 1, "hash": "a", "detail": ' + "[" * 100_000,
    ):
        with pytest.raises(BadInputError, match="no export"):
            verify_export([line])
    assert "Entry 1 (b) was changed" in str(verify_export([good]).fault)


def test_lines_behind_the_head_are_a_fault(fresh_database: str) -> None:
    """The head is an export's last line."""
    write(2)
    seal_all()
    lines = exported()

    for more in (lines[0], lines[-1]):
        assert "Lines follow the head" in str(verify_export([*lines, more]).fault)


def test_a_chain_made_anew_is_found_by_a_witness(fresh_database: str) -> None:
    """Whoever rewrites everything cannot rewrite the head that was noted elsewhere."""
    write(4)
    seal_all()
    witness = audit_chain.head()
    execute("UPDATE audit SET seq = NULL, hash = NULL, actor_id = 'eve'")
    deployment.write("audit:head", f"0:{audit_chain.START}")
    seal_all()

    assert audit_chain.verify().fault is None
    found = audit_chain.verify(witness).fault
    assert found is not None
    assert "made anew" in found
    assert verify_export(exported(), str(witness)).fault == found


def test_who_sees_what(api: Api) -> None:
    """Administrators all, project admins their project's, owners what they own, all their own."""
    ada, bob, admin = api.user("ada"), api.user("bob"), api.admin()
    api.project(ada, viewer=bob)

    def actions(user: Any, query: str = "") -> list[str]:
        answer = user.get(f"/audit{query}")
        assert answer.status_code == 200, answer.text
        return [item["action"] for item in answer.json["items"]]

    assert actions(ada, "?project=spine") == ["add_member", "create"]
    assert actions(ada, "?object=project:spine") == ["add_member", "create"]
    assert bob.get("/audit?project=spine").status_code == 403
    assert bob.get("/audit?object=project:spine").status_code == 403
    assert api.user("mal").get("/audit?object=project:spine").status_code == 404
    assert api.user("eve").get("/audit?project=spine").status_code == 404
    assert actions(bob) == ["login"]
    assert actions(admin, "?action=add_member") == ["add_member"]
    assert {item["actor"] for item in ada.get("/audit").json["items"]} == {"ada"}
    assert ada.get("/audit/export").status_code == 403


def test_filters_narrow_together(api: Api) -> None:
    """An object and a project, an actor, an action and a time: all of them hold."""
    ada, admin = api.user("ada"), api.admin("root")
    api.project(ada)
    api.project(ada, "femur")

    def found(user: Any, query: str) -> list[tuple[str, str]]:
        items = user.get(f"/audit?{query}").json["items"]
        return [(item["actor"], item["action"]) for item in items]

    assert found(ada, "object=project:spine&project=spine") == [("ada", "create")]
    assert found(ada, "object=project:spine&project=femur") == []
    assert found(admin, "actor=ada&action=create") == [("ada", "create")] * 2
    assert found(admin, "actor=ada&action=create&until=2026-01-01T00:00:00Z") == []
    assert found(admin, "actor=root") == [("root", "login")]
    assert ada.get("/audit?since=2026-01-01T00:00:00").json["code"] == "invalid_time"
    for wrong in ("0", "0.5", "1700000000", "2026-01-01", "yesterday"):
        assert ada.get(f"/audit?since={wrong}").json["field"] == "since", wrong
    for wrong in ("spine", "project:", "system:main", "planet:earth"):
        assert ada.get(f"/audit?object={wrong}").json["code"] == "invalid_object"


def test_no_text_in_a_row_stops_the_chain(fresh_database: str) -> None:
    """What somebody writes into a row that is not sealed yet is sealed as the text that it is."""
    first, second, _ = write(3)
    execute("UPDATE audit SET detail = %s WHERE id = %s", (NESTED, first))
    execute("UPDATE audit SET detail = %s WHERE id = %s", ('{"rate":NaN}', second))

    seal_all()

    assert audit_chain.verify().fault is None
    assert verify_export(exported()).entries == 3
    execute("UPDATE audit SET detail = '{}' WHERE seq = 1")
    assert "Entry 1 " in str(audit_chain.verify().fault)


def test_what_was_changed_is_listed_as_it_is(api: Api) -> None:
    """The list is where people look first: it shows the row, and never fails by it."""
    admin = api.admin()
    write(2)
    changed = {0: "no JSON", 1: NESTED}
    for number, text in changed.items():
        execute("UPDATE audit SET detail = %s WHERE object_id = %s", (text, f"object-{number}"))

    listed = admin.get("/audit?action=create")

    assert listed.status_code == 200
    assert [item["detail"] for item in listed.json["items"]] == [NESTED, "no JSON"]


def test_pages_go_on_where_the_last_one_ended(api: Api) -> None:
    """Newest first, each entry once."""
    admin = api.admin()
    write(25)

    seen, query = [], "limit=10"
    while query:
        page = admin.get(f"/audit?{query}").json
        seen += [item["id"] for item in page["items"]]
        query = f"limit=10&cursor={page['next']}" if page["next"] else ""

    assert len(seen) == len(set(seen)) == 26
    assert seen == sorted(seen, reverse=True)


def test_what_was_deleted_is_found_by_its_id(api: Api) -> None:
    """Administrators ask who deleted it; for everybody else it does not exist."""
    ada, admin = api.user("ada"), api.admin()
    project = api.project(ada)
    assert ada.delete("/projects/spine").status_code == 204
    path = f"/audit?object=project:{project['id']}"

    actions = [item["action"] for item in admin.get(path).json["items"]]

    assert actions == ["delete", "create"]
    assert ada.get(path).status_code == api.user("eve").get(path).status_code == 404


def test_an_entry_says_who_what_when_and_from_where(api: Api) -> None:
    """And in which request."""
    ada = api.user("ada")
    ada.post("/projects", {"name": "spine"}, headers={"X-Request-Id": "request-0001"})

    entry = ada.get("/audit?action=create").json["items"][0]

    assert entry["actor"] == "ada"
    assert entry["object_kind"] == "project"
    assert entry["request_id"] == "request-0001"
    assert entry["address"] == "127.0.0.1"
    assert entry["at"].endswith("Z")


def test_an_export_is_good(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the route sends, the offline check accepts, over many pages."""
    monkeypatch.setattr(audit_chain, "PAGE", 2)
    admin = api.admin()
    api.project(admin)
    write(6)
    seal_all()

    answer = admin.get("/audit/export")

    verdict = verify_export(answer.text.splitlines())
    assert verdict.fault is None
    assert verdict.entries == audit_chain.head().seq > 0
    cut = verify_export(answer.text.splitlines()[:-1])
    assert cut.fault is not None
    assert "cut off" in cut.fault
