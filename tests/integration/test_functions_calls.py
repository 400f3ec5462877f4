"""Calls of functions over HTTP: arguments checked, results waited for, on each database."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from typing import Any

import pytest

from airavata_scheduler.models.leases import Report
from airavata_scheduler.models.node_facts import node_facts
from airavata_scheduler.models.tables import Task
from airavata_scheduler.queue import wake
from tests.api import Api, LoggedIn, with_headers
from tests.work import Site, sweep

PYTHON = {
    "kind": "python",
    "python": {
        "entry": "area",
        "source": "def area(width, height=2):\n    return width * height\n",
    },
    "parameters": {"width": {"type": "float"}, "height": {"type": "float", "default": 2}},
}
PICKLED = {"kind": "python", "python": {"entry": "f", "source": "f = len", "codec": "pickle"}}


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """A user with a project `spine` that has the functions `area` and `pickled`."""
    user = api.user("ada")
    api.project(user)
    for name, spec in (("area", PYTHON), ("pickled", PICKLED)):
        answer = user.post("/functions", {"project": "spine", "name": name, "spec": spec})
        assert answer.status_code == 201, answer.text
    return user


@pytest.fixture
def site(ada: LoggedIn) -> Site:
    """A compute resource with an agent."""
    del ada
    return Site.make()


def call(user: LoggedIn, **arguments: Any) -> dict[str, Any]:
    """Call `area` once."""
    answer = user.post("/functions/area/calls", {"arguments": arguments})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_a_call_that_no_heartbeat_saw_has_its_beginning(ada: LoggedIn, site: Site) -> None:
    """Short calls end between heartbeats: they began as long before their end as they took."""
    made = call(ada, width=3)
    (grant,) = site.claim(1)
    result = {"encoding": "json", "data": 6}

    site.report(Report(lease=grant.lease, outcome="completed", duration_ms=0, result=result))

    ended = ada.get(f"/calls/{made['id']}").json
    assert made["created_at"] <= ended["started_at"] <= ended["finished_at"]


def test_a_call_of_a_script_runs_its_text(ada: LoggedIn, site: Site) -> None:
    """A script function is stored under names; what the agent gets is the text of the one."""
    text = "#!/bin/sh\necho $N\n"
    spec = {"script": text, "parameters": {"N": {"type": "int"}}}
    ada.post("/functions", {"project": "spine", "name": "shout", "spec": spec})
    ada.post("/functions/shout/calls", {"arguments": {"N": 1}})

    (grant,) = site.claim(1)

    assert node_facts(grant.node_id).spec["script"] == text
    assert node_facts(grant.node_id).spec["resources"]["cpu"] == 1


def test_a_call_and_its_result(ada: LoggedIn, site: Site) -> None:
    """A call is queued at once; its result, small, comes back as the agent reported it."""
    made = call(ada, width=3)
    assert (made["function"], made["version"], made["state"]) == ("area", 1, "QUEUED")
    (grant,) = site.claim(1)
    assert '"height":2' in (grant.arguments or "").replace(" ", "").replace("2.0", "2")
    site.start(grant)
    site.complete(grant, result={"encoding": "json", "data": 6})

    done = ada.get(f"/calls/{made['id']}").json
    assert (done["state"], done["result"]) == ("COMPLETED", {"encoding": "json", "data": 6})
    assert (done["attempts"], done["failure"], done["exit_code"]) == (1, None, 0)


def test_every_wrong_argument_is_named(ada: LoggedIn, site: Site) -> None:
    """A wrong type, an unknown name and a missing one are told together, with their fields."""
    del site
    answer = ada.post("/functions/area/calls", {"arguments": {"heigth": 1, "height": "high"}})

    assert answer.status_code == 422
    found = {fault["field"]: fault["detail"] for fault in answer.json["errors"]}
    assert "height" in found["arguments.heigth"]
    assert "high" in found["arguments.height"]
    assert "arguments.width" in found
    assert Task.select().count() == 0


def test_a_batch_is_all_or_nothing(ada: LoggedIn, site: Site) -> None:
    """A thousand calls are made in one transaction; one wrong item makes none, and is named."""
    items: list[dict[str, Any]] = [{"arguments": {"width": number}} for number in range(1000)]
    answer = ada.post("/functions/area/calls/batch", {"calls": items})
    assert answer.status_code == 201
    ids = [item["id"] for item in answer.json["items"]]
    assert len(set(ids)) == 1000
    assert [grant.task_id for grant in site.claim(3)] == ids[:3]

    items[7] = {"arguments": {"width": "wide"}}
    wrong = ada.post("/functions/area/calls/batch", {"calls": items})
    assert (wrong.status_code, wrong.json["field"]) == (422, "calls[7].arguments.width")
    assert Task.select().count() == 1000
    assert ada.post("/functions/area/calls/batch", {"calls": items * 2}).status_code == 422


def test_a_key_calls_once(ada: LoggedIn, site: Site) -> None:
    """The same Idempotency-Key again gets the same call."""
    del site
    keyed = with_headers(ada, Idempotency_Key="one")

    assert call(keyed, width=1)["id"] == call(keyed, width=1)["id"]
    assert Task.select().count() == 1


def test_waiting_ends_with_the_call(api: Api, ada: LoggedIn, site: Site) -> None:
    """`wait` answers as soon as the call has ended, long before its time is over."""
    made = call(ada, width=1)
    (grant,) = site.claim(1)
    answers: list[Any] = []
    waiting = threading.Event()

    def wait() -> None:
        client = LoggedIn(**{**vars(ada), "client": api.app.test_client()})
        waiting.set()
        answers.append(client.get(f"/calls/{made['id']}?wait=50s"))

    waiter = threading.Thread(target=wait)
    started_s = time.monotonic()
    waiter.start()
    waiting.wait()
    site.complete(grant, result={"encoding": "json", "data": 1})
    wake.publish("task", made["id"])
    waiter.join(timeout=30)

    assert not waiter.is_alive()
    assert time.monotonic() - started_s < 20
    assert answers[0].json["state"] == "COMPLETED"


def test_waiting_has_a_limit(ada: LoggedIn, site: Site) -> None:
    """A call that does not end is answered when the time is over; a malformed one is refused."""
    del site
    answer = ada.post("/functions/area/calls?wait=100ms", {"arguments": {"width": 1}})

    assert (answer.status_code, answer.json["state"]) == (201, "QUEUED")
    for text in ("soon", "10", "-1s"):
        wrong = ada.get(f"/calls/{answer.json['id']}?wait={text}")
        assert (wrong.status_code, wrong.json["field"]) == (422, "wait")


def test_results_are_those_that_ended(ada: LoggedIn, site: Site) -> None:
    """Of many calls the answer has those that have ended, in the order of the question."""
    ids = [call(ada, width=number)["id"] for number in range(4)]
    grants = site.claim(4)
    for grant in (grants[3], grants[1]):
        site.complete(grant, result={"encoding": "json", "data": grant.idx})

    items = ada.post("/calls/results", {"ids": ids, "wait": "20s"}).json["items"]
    assert [item["id"] for item in items] == [ids[1], ids[3]]
    assert ada.post("/calls/results", {"ids": []}).json == {"items": []}


def test_a_failed_call_says_why(ada: LoggedIn, site: Site) -> None:
    """The exception's words are the failure's message, and a pickled exception is the result."""
    made = call(ada, width=1)
    (grant,) = site.claim(1)
    site.report(
        Report(
            lease=grant.lease,
            outcome="failed",
            failure_kind="user",
            failure_code="function_raised",
            message="ValueError: bad",
            exit_code=1,
            result={"encoding": "pickle", "data": "gASVAAAA"},
        )
    )

    done = ada.get(f"/calls/{made['id']}").json
    assert done["state"] == "FAILED"
    assert done["failure"]["code"] == "function_raised"
    assert done["failure"]["message"].startswith("ValueError: bad")
    assert done["result"]["encoding"] == "pickle"


def test_a_large_result_is_an_artifact(ada: LoggedIn, site: Site) -> None:
    """A result that was uploaded is named by the id of its artifact, whose bytes can be read."""
    made = call(ada, width=1)
    (grant,) = site.claim(1)
    site.complete(
        grant,
        outputs={"result.json": b"[1, 2, 3]"},
        result={"encoding": "json", "artifact": "result.json"},
    )

    result = ada.get(f"/calls/{made['id']}").json["result"]
    assert result["sha256"] == hashlib.sha256(b"[1, 2, 3]").hexdigest()
    assert (result["encoding"], result["size"]) == ("json", 9)
    assert ada.get(f"/artifacts/{result['artifact']}/content").data == b"[1, 2, 3]"


def test_pickled_and_large_arguments(ada: LoggedIn, site: Site) -> None:
    """Pickles travel as base64 or as a blob; a function takes only the form that it declares."""
    del site
    path = "/functions/pickled/calls"
    data = base64.b64encode(b"\x80\x05pickle").decode()
    assert ada.post(path, {"packed": {"encoding": "pickle", "data": data}}).status_code == 201
    codes = {
        "codec_mismatch": {"arguments": {"a": 1}},
        "not_base64": {"packed": {"encoding": "pickle", "data": "?"}},
        "arguments_too_large": {"packed": {"encoding": "pickle", "data": "A" * 70_000}},
        "ambiguous": {"arguments": {}, "packed": {"encoding": "pickle", "data": data}},
        "blob_missing": {"packed": {"encoding": "blob", "sha256": "0" * 64}},
    }
    for code, body in codes.items():
        answer = ada.post(path, body)
        assert (answer.status_code, answer.json["code"]) == (422, code)

    blob = b"y" * 100_000
    digest = hashlib.sha256(blob).hexdigest()
    ada.put(f"/projects/spine/blobs/{digest}", data=blob)
    body = {"packed": {"encoding": "blob", "sha256": digest, "size": len(blob)}}
    assert ada.post(path, body).status_code == 201
    big = ada.post("/functions/area/calls", {"arguments": {"width": 1, "height": "1" * 70_000}})
    assert big.status_code == 422


def test_a_call_is_cancelled(ada: LoggedIn, site: Site) -> None:
    """A queued call ends at once; cancelling it again, or an ended one, changes nothing."""
    made = call(ada, width=1)

    assert ada.post(f"/calls/{made['id']}/cancel").json["state"] == "CANCELLED"
    assert ada.post(f"/calls/{made['id']}/cancel").json["state"] == "CANCELLED"
    assert site.claim(1) == []


def test_others_do_not_see_calls(api: Api, ada: LoggedIn, site: Site) -> None:
    """Another tenant's call is a 404: alone, cancelled, or among the ids of a batch."""
    del site
    mine = call(ada, width=1)
    eve = api.user("eve")

    assert eve.get(f"/calls/{mine['id']}").status_code == 404
    assert eve.post(f"/calls/{mine['id']}/cancel").status_code == 404
    assert eve.post("/calls/results", {"ids": [mine["id"]]}).status_code == 404
    assert eve.post("/functions/area/calls", {"arguments": {"width": 1}}).status_code == 404


def test_a_task_of_an_experiment_is_no_call(ada: LoggedIn, site: Site) -> None:
    """An experiment's task, asked for as a call, is a 404 that says so."""
    made = ada.post("/experiments", {"project": "spine", "document": sweep(), "submit": True})
    assert made.status_code == 201, made.text
    site.settle()
    (grant,) = site.claim(1)

    answer = ada.get(f"/calls/{grant.task_id}")
    assert (answer.status_code, answer.json["code"]) == (404, "call_not_found")
