"""Registering functions and reading them, on each database."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest

from airavata_scheduler.models.tables import FunctionVersion
from tests.api import Api, LoggedIn

SPEC: dict[str, Any] = {
    "parameters": {"RATE": {"type": "float", "default": 0.5}, "SEED": {"type": "int"}},
    "scripts": {"RUN": "echo $SEED"},
    "outputs": {"RESULT": "result.csv"},
}


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """A user with a project called `spine`."""
    user = api.user("ada")
    api.project(user)
    return user


def register(user: LoggedIn, name: str = "diffusion", **spec: Any) -> Any:
    """Register in `spine`."""
    body = {"project": "spine", "name": name, "spec": {**SPEC, **spec}}
    return user.post("/functions", body)


def test_the_same_spec_is_the_same_version(ada: LoggedIn) -> None:
    """Registering makes version 1; again the same, 200 and still 1; another one, version 2."""
    first, again, other = register(ada), register(ada), register(ada, scripts={"RUN": "echo other"})

    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
    assert [answer.json["version"] for answer in (first, again, other)] == [1, 1, 2]
    assert len({answer.json["id"] for answer in (first, again, other)}) == 1


def test_a_function_is_found_by_name_and_version(ada: LoggedIn) -> None:
    """By id, by name, and by name@number with that version's spec."""
    made = register(ada).json
    register(ada, scripts={"RUN": "echo other"})

    latest = ada.get("/functions/diffusion").json
    assert (latest["version"], latest["spec"]["scripts"]) == (2, {"RUN": "echo other"})
    assert ada.get("/functions/diffusion@1").json["spec"]["scripts"] == {"RUN": "echo $SEED"}
    assert ada.get(f"/functions/{made['id']}").json["version"] == 2
    missing = ada.get("/functions/diffusion@7")
    assert (missing.status_code, missing.json["hint"]) == (404, "It has the versions 1 to 2.")
    assert "diffusion" in ada.get("/functions/difusion").json["hint"]


def test_versions_are_listed_newest_first(ada: LoggedIn) -> None:
    """Pages of versions, each with its spec."""
    for number in range(5):
        register(ada, scripts={"RUN": f"echo {number}"})

    first = ada.get("/functions/diffusion/versions?limit=3").json
    rest = ada.get(f"/functions/diffusion/versions?limit=3&cursor={first['next']}").json
    assert [v["version"] for v in first["items"] + rest["items"]] == [5, 4, 3, 2, 1]
    assert rest["next"] is None


def test_functions_are_listed_by_name(ada: LoggedIn) -> None:
    """In the order of the names, by part of the name, page by page."""
    for name in ("charlie", "alpha", "bravo", "alphabet"):
        register(ada, name)

    first = ada.get("/functions?project=spine&limit=3").json
    rest = ada.get(f"/functions?project=spine&limit=3&cursor={first['next']}").json
    names = [item["name"] for item in first["items"] + rest["items"]]
    assert names == ["alpha", "alphabet", "bravo", "charlie"]
    assert [f["name"] for f in ada.get("/functions?q=lpha").json["items"]] == ["alpha", "alphabet"]


def test_every_fault_is_named(ada: LoggedIn) -> None:
    """A wrong spec is a 422 with each fault and its field; nothing is stored."""
    answer = register(ada, parameters={"X": {"type": "flot"}}, retires=2)

    assert answer.status_code == 422
    assert {fault["field"] for fault in answer.json["errors"]} >= {"parameters.X.type", "retires"}
    assert "retries" in answer.text
    assert ada.get("/functions").json["items"] == []


def test_files_must_have_been_sent(ada: LoggedIn) -> None:
    """A file that the spec names has to be a blob of the project, of that size."""
    data = b"print('hello')"
    digest = hashlib.sha256(data).hexdigest()
    body = {
        "project": "spine",
        "name": "with-file",
        "spec": {**SPEC, "files": ["run.py"]},
        "files": {"run.py": {"sha256": digest, "size": len(data)}},
    }
    missing = ada.post("/functions", body)
    assert (missing.status_code, missing.json["code"]) == (422, "blob_missing")
    assert missing.json["field"] == "files.run.py"

    ada.put(f"/projects/spine/blobs/{digest}", data=data)
    made = ada.post("/functions", body)
    assert made.status_code == 201, made.text
    assert made.json["spec"]["files"][0]["sha256"] == digest


def test_a_storage_resource_is_resolved_once(ada: LoggedIn) -> None:
    """What a function stages from is found when it is registered, and kept by its id."""
    answer = register(ada, resources={"storage": ["default:/code/a.py:./a.py"]})

    assert answer.status_code == 201, answer.text
    (entry,) = answer.json["spec"]["stage_in"]
    assert len(entry["storage_id"]) == 36
    wrong = register(ada, "other", resources={"storage": ["nowhere:/a:./a"]})
    assert (wrong.status_code, wrong.json["field"]) == (404, "resources.storage")


def test_two_who_register_at_once(api: Api, ada: LoggedIn) -> None:
    """Eight registrations of different specs at the same time make eight versions, 1 to 8."""
    register(ada)
    answers: list[Any] = []

    def send(number: int) -> None:
        client = LoggedIn(**{**vars(ada), "client": api.app.test_client()})
        answers.append(register(client, scripts={"RUN": f"echo {number}"}))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    assert [answer.status_code for answer in answers] == [201] * 8
    numbers = sorted(row.number for row in FunctionVersion.select())
    assert numbers == list(range(1, 10))


def test_others_do_not_see_it(api: Api, ada: LoggedIn) -> None:
    """Without a role in the project: 404 and an empty list; a viewer reads and may not register."""
    register(ada)
    eve, grace = api.user("eve"), api.user("grace")
    ada.post("/projects/spine/members", {"user": "grace", "role": "viewer"})

    assert eve.get("/functions/diffusion").status_code == 404
    assert eve.get("/functions").json["items"] == []
    assert grace.get("/functions/diffusion").status_code == 200
    assert register(grace).status_code == 403
