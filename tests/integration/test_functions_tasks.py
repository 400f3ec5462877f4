"""Tasks over HTTP: what one instance is, its attempts, and why it is where it is."""

from __future__ import annotations

from typing import Any

import pytest

from airavata_scheduler.models.tables import AgentSession
from tests.api import Api, LoggedIn
from tests.work import Site, sweep


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """A user with a project called `spine`."""
    user = api.user("ada")
    api.project(user)
    return user


@pytest.fixture
def site(ada: LoggedIn) -> Site:
    """A compute resource with an agent."""
    del ada
    return Site.make()


def submit(user: LoggedIn, site: Site, document: Any = None) -> dict[str, Any]:
    """A submitted and planned experiment."""
    body = {"project": "spine", "document": document or sweep("1..2"), "submit": True}
    answer = user.post("/experiments", body)
    assert answer.status_code == 201, answer.text
    site.settle()
    found: dict[str, Any] = answer.json
    return found


def test_a_task_tells_all(ada: LoggedIn, site: Site) -> None:
    """A completed task has its parameters, where it ran, when, and its files."""
    submit(ada, site)
    grant = site.claim(2)[1]
    site.start(grant)
    site.complete(grant, outputs={"result.csv": b"2"}, stdout=b"done\n")

    task = ada.get(f"/tasks/{grant.task_id}").json
    assert (task["name"], task["state"], task["attempt"]) == ("simulate[1]", "COMPLETED", 1)
    assert task["parameters"] == {"SEED": 2, "RATE": 0.5}
    assert (task["compute"], task["agent"], task["exit_code"]) == ("cluster", "cluster-agent", 0)
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]
    assert [file["path"] for file in task["outputs"]] == ["result.csv"]
    assert ada.get(f"/tasks/{grant.task_id}/artifacts").json["items"] == task["outputs"]


def test_every_attempt_is_kept(ada: LoggedIn, site: Site) -> None:
    """A retried task shows each ended try, with its failure and where its log is."""
    document = sweep("1..1")
    document["tasks"]["simulate"]["retries"] = 2
    submit(ada, site, document)
    (first,) = site.claim(1)
    site.fail(first, "exit status 3", stderr=b"first\n")

    waiting = ada.get(f"/tasks/{first.task_id}").json
    assert (waiting["state"], waiting["failure"]) == ("QUEUED", None)
    assert waiting["last_failure"]["message"] == "exit status 3"
    (attempt,) = ada.get(f"/tasks/{first.task_id}/attempts").json["items"]
    assert (attempt["number"], attempt["outcome"], attempt["exit_code"]) == (1, "FAILED", 3)
    assert attempt["failure"]["code"] == "exit_nonzero"
    assert ada.get(attempt["log_tail"].removeprefix("/api/v1")).data == b"first\n"
    reasons = ada.get(f"/tasks/{first.task_id}/explain").json["reasons"]
    assert any("exit status 3" in r["detail"] for r in reasons if r["code"] == "backing_off")


def test_explain_follows_the_task(ada: LoggedIn, site: Site) -> None:
    """Queued, given, running, ended: each state has its line."""
    submit(ada, site)
    (grant,) = site.claim(1)
    path = f"/tasks/{grant.task_id}/explain"

    given = ada.get(path).json
    assert "was given to the agent cluster-agent on cluster" in given["reasons"][0]["detail"]
    site.start(grant)
    assert "It runs on the agent cluster-agent" in ada.get(path).json["reasons"][0]["detail"]
    site.fail(grant, "exit status 3")
    ended = ada.get(path).json
    assert (ended["state"], ended["reasons"][0]["detail"]) == ("FAILED", "exit status 3")


def test_a_silent_agent_is_named(ada: LoggedIn, site: Site) -> None:
    """When the agent has not been heard of for long, a queued task says so, and since when."""
    made = submit(ada, site)
    task = ada.get(f"/experiments/{made['id']}/tasks").json["items"][0]
    AgentSession.update(heartbeat_at=AgentSession.heartbeat_at - 600_000).execute()

    reasons = ada.get(f"/tasks/{task['id']}/explain").json["reasons"]
    assert {"agent_silent"} <= {reason["code"] for reason in reasons}
    assert any("silent since 10 min" in reason["detail"] for reason in reasons)


def test_a_task_is_cancelled(ada: LoggedIn, site: Site) -> None:
    """A queued task ends at once; one that runs is marked, and explained as being stopped."""
    made = submit(ada, site)
    queued, held = ada.get(f"/experiments/{made['id']}/tasks").json["items"]
    (grant,) = site.claim(1)
    if grant.task_id == queued["id"]:
        queued, held = held, queued
    site.start(grant)

    assert ada.post(f"/tasks/{queued['id']}/cancel").json["state"] == "CANCELLED"
    assert ada.post(f"/tasks/{held['id']}/cancel").json["state"] == "RUNNING"
    assert "being stopped" in ada.get(f"/tasks/{held['id']}/explain").text


def test_others_do_not_see_it(api: Api, ada: LoggedIn, site: Site) -> None:
    """Another tenant's task is a 404 on every route; a viewer reads and may not cancel."""
    submit(ada, site)
    (grant,) = site.claim(1)
    eve, grace = api.user("eve"), api.user("grace")
    ada.post("/projects/spine/members", {"user": "grace", "role": "viewer"})

    for part in ("", "/attempts", "/explain", "/artifacts", "/logs/stdout", "/logs/stdout/events"):
        assert eve.get(f"/tasks/{grant.task_id}{part}").status_code == 404, part
    assert eve.post(f"/tasks/{grant.task_id}/cancel").status_code == 404
    assert grace.get(f"/tasks/{grant.task_id}").status_code == 200
    assert grace.post(f"/tasks/{grant.task_id}/cancel").status_code == 403
