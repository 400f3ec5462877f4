"""The protocol's rows about sessions, claims, starts and heartbeats; on each database."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from airavata_scheduler.functions import agent_sessions
from airavata_scheduler.functions.admission import load
from airavata_scheduler.models import epoch, flow
from airavata_scheduler.models.database import database
from airavata_scheduler.models.tables import Agent, AgentSession, ComputeResource, Task
from airavata_scheduler.queue.announce import announce
from tests.api import Api, MakeApi
from tests.waiting import wait_until
from tests.wire_agent import Wire, completed
from tests.work import sweep


def test_a_claim_brings_all_that_a_task_needs(api: Api) -> None:
    """A lease names its specification, which comes once, and has its own environment."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("5..7"))
    answer = wire.claim(10)

    assert [lease["name"] for lease in answer["leases"]] == [f"simulate[{n}]" for n in range(3)]
    assert [lease["environment"]["SEED"] for lease in answer["leases"]] == ["5", "6", "7"]
    assert answer["leases"][0]["environment"]["RATE"] == "0.5"
    assert {lease["gate"] for lease in answer["leases"]} == {"open"}
    (spec,) = answer["specs"].values()
    assert spec["script"] == 'echo "$SEED" > result.csv\n'
    assert spec["outputs"] == {"RESULT": "result.csv"}
    assert answer["poll_s"] == 0


def test_a_delayed_duplicate_claim_gets_the_same_leases(api: Api) -> None:
    """The same claim again: the same leases; those that ended meanwhile are named as dead."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..5"))
    body = wire.claim_body(3)
    first = wire.ok("POST", "/leases/claim", body)
    again = wire.ok("POST", "/leases/claim", body)
    wire.report(completed(first["leases"][0]))
    later = wire.ok("POST", "/leases/claim", body)

    names = [lease["lease"] for lease in first["leases"]]
    assert [lease["lease"] for lease in again["leases"]] == names
    assert [lease["lease"] for lease in later["leases"]] == names[1:]
    assert len(wire.claim(10)["leases"]) == 2


def test_a_restarted_agent_supersedes_its_older_session(api: Api) -> None:
    """The older session gets 409 for every write; the new one keeps the leases it still holds."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..1"))
    lease = wire.claim(1)["leases"][0]["lease"]
    old = wire.session_id
    opened = wire.open_session(leases=[{"lease": lease, "phase": "running"}])
    new, wire.session_id = wire.session_id, old

    assert opened["leases"] == [{"lease": lease, "verdict": "keep"}]
    for path, body in (
        ("/heartbeat", {"seq": 1}),
        ("/leases/claim", wire.claim_body(1)),
        ("/leases/start", {"leases": [lease]}),
        ("/reports", {"items": [completed(lease)]}),
        ("/leases/release", {"leases": [lease], "reason": "drain"}),
        ("/session/end", {}),
    ):
        answer = wire.call("POST", path, body)
        assert (answer.status_code, answer.json["code"]) == (409, "session_superseded"), path
    wire.session_id = new
    assert wire.report(completed(lease))[0]["verdict"] == "accepted"


def test_sessions_of_nobody_and_of_others(api: Api) -> None:
    """Without a session, with an unknown or another agent's one, a call says which it was."""
    wire = Wire.enrolled(api)
    other = wire.beside()
    codes = []
    for named in ("", "nonsense", other.session_id):
        wire.session_id = named
        answer = wire.call("POST", "/heartbeat", {"seq": 1})
        codes.append((answer.status_code, answer.json["code"]))

    assert codes == [
        (409, "session_missing"),
        (404, "session_unknown"),
        (404, "session_unknown"),
    ]


def test_the_session_tells_the_timers(api: Api) -> None:
    """Timers are the deployment's, and a compute resource's own where it has some."""
    wire = Wire.enrolled(api)
    ComputeResource.update(timers={"requeue_after_s": 60, "heartbeat_s": 5}).execute()
    opened = wire.open_session()

    assert opened["timers"] == {
        "heartbeat_s": 5,
        "suspect_after_s": 90,
        "requeue_after_s": 60,
        "offer_ack_s": 60,
        "poll_ceiling_s": 15,
    }
    assert opened["compute"]["name"] == "cluster"
    assert opened["epoch"] == epoch.current()
    assert wire.heartbeat()["interval_s"] == 5


def test_the_gate_has_a_verdict_for_each(api: Api) -> None:
    """Start answers ok, cancel, finished, superseded and gone, each lease by itself."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..4"))
    ok, cancelled, finished, stolen = (lease["lease"] for lease in wire.claim(4)["leases"])
    flow.cancel_task(cancelled.split(".")[0])
    wire.report(completed(finished))
    forged = ".".join([*stolen.split(".")[:2], "0" * 32])
    nobody = "00000000-0000-7000-8000-000000000000.1." + "0" * 32
    items = wire.start(ok, cancelled, finished, forged, nobody, "bent", ok)

    assert [item["verdict"] for item in items] == [
        *("ok", "cancel", "finished", "superseded", "gone", "gone", "ok")
    ]


def test_a_drained_agent_gives_back_what_it_did_not_start(api: Api) -> None:
    """Released work costs no attempt and is claimed by the next agent."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..1"))
    lease = wire.claim(1)["leases"][0]
    body = {"leases": [lease["lease"], "x"], "reason": "drain"}
    items = wire.ok("POST", "/leases/release", body)["items"]
    again = wire.claim(1)["leases"][0]

    assert [item["verdict"] for item in items] == ["released", "gone"]
    assert again["task_id"] == lease["task_id"]
    assert Task.get().failures == Task.get().infra_failures == 0


def test_a_cancel_reaches_the_agent_by_heartbeat(api: Api) -> None:
    """A user's cancel is a verdict of the next heartbeat, and ends in CANCELLED."""
    wire = Wire.enrolled(api)
    experiment = wire.submit(sweep("1..1"))
    lease = wire.claim(1)["leases"][0]["lease"]
    wire.heartbeat()
    wire.owner.post(f"/experiments/{experiment}/cancel")
    verdicts = wire.heartbeat()["leases"]
    done = wire.report({**completed(lease), "outcome": "cancelled", "exit_code": None})

    assert verdicts == [{"lease": lease, "verdict": "cancel"}]
    assert done[0]["verdict"] == "accepted"
    assert wire.owner.get(f"/tasks/{lease.split('.')[0]}").json["state"] == "CANCELLED"


def test_attention_comes_from_sql_and_ends_with_the_heartbeat(api: Api) -> None:
    """With Redis away a cancel still calls for a heartbeat, until one has answered it."""
    wire = Wire.enrolled(api)
    experiment = wire.submit(sweep("1..1"))
    wire.claim(1)
    wire.heartbeat()
    before = wire.claim(0)["attention"]
    wire.owner.post(f"/experiments/{experiment}/cancel")
    asked = [wire.claim(0)["attention"], wire.claim(1)["attention"]]
    wire.heartbeat()

    assert (before, asked, wire.claim(0)["attention"]) == (False, [True, True], False)


def test_a_draining_agent_gets_no_work(api: Api) -> None:
    """Drained by an administrator: attention, the order in the heartbeat, and empty claims."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..2"))
    wire.owner.post(f"/agents/{wire.agent_id}/drain")
    claimed = wire.claim(1)
    beat = wire.heartbeat(mode="draining")

    assert (claimed["leases"], claimed["attention"]) == ([], True)
    assert beat["agent"]["drain"] is True
    assert wire.claim(1)["attention"] is False, "the agent has taken the order up"


def test_a_new_epoch_wants_the_full_list(api: Api) -> None:
    """Who names an old epoch is asked for everything that it holds; unknown words do no harm."""
    wire = Wire.enrolled(api)
    now = epoch.current()

    assert wire.heartbeat(epoch=now)["want_full"] is False
    assert wire.heartbeat(epoch="before")["want_full"] is True
    assert wire.heartbeat(epoch="before", full=[])["want_full"] is False
    assert wire.heartbeat(epoch=now, mode="odd", spool={"x": 1}, new_field=3)["epoch"] == now


def test_leases_that_the_server_does_not_know(api: Api) -> None:
    """A full list with strangers gets a verdict for each, and what is not listed goes back."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..2"))
    kept, dropped = (lease["lease"] for lease in wire.claim(2)["leases"])
    assert kept != dropped
    stranger = "00000000-0000-7000-8000-000000000000.1." + "0" * 32
    listed = [{"lease": name, "phase": "running"} for name in (kept, stranger, "bent")]
    opened = wire.open_session(leases=listed)

    assert [item["verdict"] for item in opened["leases"]] == ["keep", "gone", "gone"]
    assert [lease["task_id"] for lease in wire.claim(5)["leases"]] == [dropped.split(".")[0]]


def test_a_lapsed_session_opens_a_new_one(api: Api) -> None:
    """A session that expired says so: the agent opens a new one and does not end."""
    wire = Wire.enrolled(api)
    AgentSession.update(ended_at=1, end_reason="expired").execute()
    answer = wire.call("POST", "/heartbeat", {"seq": 1})

    assert (answer.status_code, answer.json["code"]) == (409, "session_expired")
    wire.open_session()
    assert wire.heartbeat()["want_full"] in (True, False)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_malformed_bodies_are_named(api: Api) -> None:
    """Wrong types, missing fields, numbers beyond the columns: 4xx with the field, no effect."""
    wire = Wire.enrolled(api)
    good = wire.claim_body(1)
    changes: tuple[dict[str, Any], ...] = (
        {"seq": -1},
        {"seq": True},
        {"max": "3"},
        {"claim_id": ""},
        {"claim_id": "x" * 65},
        {"claim_id": "a b"},
        {"seq": 10**30},
        {"free": []},
    )
    for changed in changes:
        answer = wire.call("POST", "/leases/claim", {**good, **changed})
        assert answer.status_code == 422, changed
        assert answer.json["field"].split(".")[0] == next(iter(changed))
    huge = {"free": {"cpu": 10**12, "ram_mb": -5}}
    assert wire.call("POST", "/leases/claim", {**good, **huge}).status_code == 200
    beats: tuple[dict[str, Any], ...] = (
        {"seq": 2**63},
        {"digest": {"count": 2**31, "xor": "0"}, "seq": 1},
    )
    for beat in beats:
        answer = wire.call("POST", "/heartbeat", beat)
        assert answer.status_code == 422, beat
        assert answer.json["field"].split(".")[0] == next(iter(beat))


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_long_poll_is_woken_by_new_work(make_api: MakeApi, redis_url: str) -> None:
    """A waiting claim gets work at once when an experiment is submitted, not at its next poll."""
    wire = Wire.enrolled(make_api(REDIS_URL=redis_url))
    wire.submit(sweep("1..1"))
    wire.claim(1)
    got: dict[str, Any] = {}
    waiting = threading.Thread(target=lambda: got.update(wire.claim(1, wait_s=20)))
    began_s = time.monotonic()
    waiting.start()
    other = wire.api.user("grace")
    other.post("/projects", {"name": "other"})
    body = {"project": "other", "document": sweep("1..1"), "submit": True}
    assert other.post("/experiments", body).status_code == 201
    run_announced()
    waiting.join()

    assert len(got["leases"]) == 1
    assert time.monotonic() - began_s < 10.0


def run_announced() -> None:
    """Do what the queue would do, with its announcements."""

    for _ in range(10):
        for job, key in flow.due_work():
            announce(getattr(flow, job)(key))


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_long_polls_hold_a_quarter_of_the_threads(make_api: MakeApi) -> None:
    """With four threads one claim may wait; the next is answered at once and told to pause."""
    wire = Wire.enrolled(make_api(API_THREADS="4"))
    second = wire.beside()
    waiting = threading.Thread(target=lambda: wire.claim(1, wait_s=3))
    waiting.start()

    wait_until(lambda: load.waiting == 1, message="the first long-poll")
    began_s = time.monotonic()
    answer = second.claim(1, wait_s=20)
    took_s = time.monotonic() - began_s
    waiting.join()

    assert took_s < 2.0
    assert answer["poll_s"] >= 2.0


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_long_poll_holds_no_database_connection(make_api: MakeApi) -> None:
    """While a claim waits, its connection is in the pool for requests that do not wait."""
    wire = Wire.enrolled(make_api(API_THREADS="4"))
    database.close()
    waiting = threading.Thread(target=lambda: wire.claim(1, wait_s=5))
    waiting.start()
    wait_until(lambda: load.waiting == 1, message="the long-poll")
    lowest = wait_until(
        lambda: load.waiting == 1 and not database.obj._in_use,
        timeout_s=3,
        message="the connection's return",
    )
    waiting.join()

    assert lowest


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_the_fleet_stretches_its_heartbeats(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand sessions beat every fifty seconds, so that all together send 200 a second."""

    wire = Wire.enrolled(api)
    monkeypatch.setattr(agent_sessions, "fleet_size", lambda: 10_000)

    assert wire.heartbeat()["interval_s"] == 50.0
    assert Agent.select().count() == 1


def test_the_truth_about_a_lease(api: Api) -> None:
    """An agent may ask for its own leases; those of others look like none."""
    wire = Wire.enrolled(api)
    other = wire.beside()
    wire.submit(sweep("1..1"))
    lease = wire.claim(1)["leases"][0]["lease"]

    assert wire.ok("GET", f"/leases/{lease}")["state"] == "LEASED"
    assert other.ok("GET", f"/leases/{lease}")["state"] is None
    assert wire.call("GET", "/leases/nonsense").status_code == 404
