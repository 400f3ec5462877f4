"""The audit: written with the deed, chained, read by permission, exported and verified."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.client.api_audit import verify_export
from airavata_scheduler.models import audit_chain, deployment
from airavata_scheduler.models.database import execute, now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import AuditEntry
from tests.api import Api

ROOT = Path(__file__).parents[2]
SEALER = """
import sys
from airavata_scheduler.models import audit_chain, database
database.connect(sys.argv[1])
with database.connected():
    while audit_chain.seal(limit=7):
        pass
"""


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


def test_two_sealers_at_once_make_one_chain(fresh_database: str) -> None:
    """Neither forks it nor leaves a gap."""
    write(200)
    command = [sys.executable, "-c", SEALER, fresh_database]
    sealers = [subprocess.Popen(command) for _ in range(3)]

    assert [sealer.wait(60) for sealer in sealers] == [0, 0, 0]

    verdict = audit_chain.verify()
    assert (verdict.fault, verdict.entries) == (None, 200)


@pytest.mark.parametrize(
    ("tampering", "said"),
    [
        ("UPDATE audit SET actor_id = 'eve' WHERE seq = 3", "Entry 3 "),
        ("UPDATE audit SET detail = '{}' WHERE seq = 1", "Entry 1 "),
        ("DELETE FROM audit WHERE seq = 4", "Entry 4 is missing"),
        ("DELETE FROM audit WHERE seq >= 5", "from 5 to 6 are missing at the end"),
        ("UPDATE audit SET seq = 60 WHERE seq = 6", "Entry 6 is missing"),
        ("UPDATE audit SET hash = 'f' WHERE seq = 6", "Entry 6 "),
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
    assert api.user("eve").get("/audit?project=spine").status_code == 404
    assert actions(bob) == ["login"]
    assert actions(admin, "?action=add_member") == ["add_member"]
    assert {item["actor"] for item in ada.get("/audit").json["items"]} == {"ada"}
    assert ada.get("/audit/export").status_code == 403


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


def test_an_export_is_good(api: Api) -> None:
    """What the route sends, the offline check accepts."""
    admin = api.admin()
    api.project(admin)
    seal_all()

    answer = admin.get("/audit/export")

    verdict = verify_export(answer.text.splitlines())
    assert verdict.fault is None
    assert verdict.entries == audit_chain.head().seq > 0
    cut = verify_export(answer.text.splitlines()[:-1])
    assert cut.fault is not None
    assert "cut off" in cut.fault


def test_no_detail_is_called_like_a_secret() -> None:
    """Every call of `audit.append` in the code names harmless details."""
    forbidden = {"password", "token", "secret", "value", "key", "code", "private_key"}
    found = []
    for room in ("functions", "commands"):
        for path in sorted((ROOT / room).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "audit.append":
                    names = {item.arg for item in node.keywords if item.arg}
                    found += [(path.name, name) for name in names & forbidden]

    assert found == []
