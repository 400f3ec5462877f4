"""Experiments over HTTP: from a document to a result, on each database."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airavata_scheduler.models.tables import AuditEntry, Experiment, Task
from tests.api import Api, LoggedIn, with_headers
from tests.work import Site, sweep

YAML = """
name: from-yaml
parameters:
  SEED: {type: int}
scripts:
  SIMULATE: |
    echo $SEED > result.csv
  PLOT: |
    cat "$INPUT" > plot.png
tasks:
  simulate:
    script: SIMULATE
    task_inputs: {SEED: 1..4}
    task_outputs: {RESULT: result.csv}
  plot:
    script: PLOT
    foreach: [simulate]
    task_inputs: {INPUT: "${simulate.RESULT}"}
    task_outputs: {PICTURE: plot.png}
  report:
    script: PLOT
    depends_on: [plot]
    task_inputs: {INPUT: "${plot.PICTURE[*]}"}
"""


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


def create(user: LoggedIn, document: Any = None, **more: Any) -> dict[str, Any]:
    """A new experiment of `user` in `spine`."""
    body = {"project": "spine", "document": document or sweep(), **more}
    answer = user.post("/experiments", body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_a_file_becomes_an_experiment(ada: LoggedIn) -> None:
    """YAML text is stored as sent, counted, and shown with its document and an ETag."""
    answer = ada.post("/experiments", {"project": "spine", "document": YAML})

    assert answer.status_code == 201, answer.text
    made = answer.json
    assert answer.headers["Location"] == f"/api/v1/experiments/{made['id']}"
    assert (made["name"], made["state"], made["total"]) == ("from-yaml", "CREATED", 9)
    assert made["counts"]["waiting"] == 9
    shown = ada.get("/experiments/from-yaml")
    assert shown.headers["ETag"] == '"1"'
    assert shown.json["document"]["tasks"]["plot"]["foreach"] == ["simulate"]
    assert Experiment.get_by_id(made["id"]).source == YAML


def test_every_fault_is_named_at_once(ada: LoggedIn) -> None:
    """A wrong document is a 422 that lists each fault with its field; nothing is stored."""
    document = sweep()
    document["tasks"]["simulate"]["task_input"] = {}
    document["tasks"]["simulate"]["retries"] = "many"
    answer = ada.post("/experiments", {"project": "spine", "document": document})

    assert answer.status_code == 422
    fields = {fault["field"] for fault in answer.json["errors"]}
    assert {"tasks.simulate.task_input", "tasks.simulate.retries"} <= fields
    assert "task_inputs" in answer.text
    assert ada.get("/experiments").json["items"] == []


@pytest.mark.parametrize("points", ["1..1000000", "1..10^12"])
def test_a_sweep_of_any_size_is_one_record(ada: LoggedIn, points: str) -> None:
    """A million points, or 10^12, are accepted in less than a second, and make no task row."""
    started_s = time.monotonic()
    made = create(ada, sweep(points), submit=True)
    seconds = time.monotonic() - started_s

    assert seconds < 1
    assert made["state"] == "PLANNING"
    assert made["total"] == eval(points.split("..")[1].replace("^", "**"))
    assert Task.select().count() == 0


def test_more_than_the_limit_is_refused(ada: LoggedIn) -> None:
    """10^13 points are refused with a sentence that says how many are taken."""
    answer = ada.post("/experiments", {"project": "spine", "document": sweep("1..10^13")})

    assert (answer.status_code, answer.json["code"]) == (422, "too_many_tasks")
    assert "1,000,000,000,000" in answer.json["detail"]


def test_a_dry_run_stores_nothing(ada: LoggedIn, site: Site) -> None:
    """A dry run says what would run, the first parameter sets, and where; nothing is stored."""
    del site
    Site.make("empty", agent=False)
    answer = ada.post("/experiments", {"project": "spine", "document": YAML, "dry_run": True})

    assert answer.status_code == 200, answer.text
    seen = answer.json
    assert seen["tasks"] == 9
    assert [node["tasks"] for node in seen["nodes"]] == [4, 4, 1]
    assert seen["nodes"][0]["first"][0]["SEED"] == "1"
    places = {place["name"]: place for place in seen["placement"]["resources"]}
    assert places["cluster"]["eligible"] is True
    assert "airavata agent install-line empty" in places["empty"]["reasons"][0]["hint"]
    assert ada.get("/experiments").json["items"] == []


def test_an_idempotency_key_creates_once(ada: LoggedIn) -> None:
    """The same key again gets the same experiment; the same key with another body is refused."""
    keyed = with_headers(ada, Idempotency_Key="once")
    body = {"project": "spine", "document": sweep(), "submit": True}
    first, second = keyed.post("/experiments", body), keyed.post("/experiments", body)

    assert first.json["id"] == second.json["id"]
    assert len(ada.get("/experiments").json["items"]) == 1
    other = keyed.post("/experiments", {**body, "submit": False})
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")


def test_a_resource_that_is_not_there_is_named(ada: LoggedIn) -> None:
    """A resource that the document names and nobody knows is a 404 that says where."""
    document = sweep(placement={"compute": ["nowhere"]})
    answer = ada.post("/experiments", {"project": "spine", "document": document})
    assert (answer.status_code, answer.json["field"]) == (404, "placement.compute")

    document = sweep(resources={"storage": ["scratch:/code/a.py:./a.py"]})
    answer = ada.post("/experiments", {"project": "spine", "document": document})
    assert (answer.status_code, answer.json["field"]) == (404, "resources.storage")

    body = {"project": "spine", "document": sweep(), "compute": ["nowhere"]}
    assert ada.post("/experiments", body).status_code == 404


def test_lists_are_filtered_and_paged(ada: LoggedIn) -> None:
    """Newest first; by state, name, part of the name, owner; a cursor goes on without a gap."""
    names = [create(ada, name=f"run-{number}")["name"] for number in range(5)]
    create(ada, name="other", submit=True)

    first = ada.get("/experiments?limit=2&q=run-").json
    second = ada.get(f"/experiments?limit=2&q=run-&cursor={first['next']}").json
    third = ada.get(f"/experiments?limit=2&q=run-&cursor={second['next']}").json
    seen = [item["name"] for page in (first, second, third) for item in page["items"]]
    assert seen == list(reversed(names))
    assert third["next"] is None
    assert [e["name"] for e in ada.get("/experiments?state=PLANNING").json["items"]] == ["other"]
    assert [e["name"] for e in ada.get("/experiments?name=run-3").json["items"]] == ["run-3"]
    assert len(ada.get("/experiments?owner=ada&project=spine").json["items"]) == 6
    assert ada.get("/experiments?state=RUNING").status_code == 422
    assert ada.get("/experiments?q=100%25").json["items"] == []


def test_others_do_not_see_it(api: Api, ada: LoggedIn) -> None:
    """Whoever is not in the project gets a 404 for every route, and an empty list."""
    made = create(ada)
    eve = api.user("eve")

    for part in ("", "/progress", "/tasks", "/explain", "/archive", "/events", "/timeline"):
        assert eve.get(f"/experiments/{made['id']}{part}").status_code == 404, part
    for part in ("submit", "cancel", "retry", "derive"):
        assert eve.post(f"/experiments/{made['id']}/{part}").status_code == 404, part
    assert eve.get("/experiments").json["items"] == []


def test_a_viewer_sees_and_does_not_touch(api: Api, ada: LoggedIn) -> None:
    """A viewer reads the experiment; submitting it, or deriving from it, is forbidden."""
    made = create(ada)
    grace = api.user("grace")
    ada.post("/projects/spine/members", {"user": "grace", "role": "viewer"})

    assert grace.get(f"/experiments/{made['id']}").status_code == 200
    assert grace.post(f"/experiments/{made['id']}/submit").status_code == 403
    assert grace.post(f"/experiments/{made['id']}/derive").status_code == 403


def test_from_submit_to_the_end(ada: LoggedIn, site: Site) -> None:
    """Submitted, planned, claimed, run, finished: progress and timeline tell it all along."""
    made = create(ada, YAML)
    path = f"/experiments/{made['id']}"
    assert ada.post(f"{path}/submit").json["state"] == "PLANNING"
    site.settle()

    before = ada.get(f"{path}/progress").json
    assert (before["state"], before["counts"]["queued"], before["counts"]["waiting"]) == (
        "RUNNING",
        4,
        5,
    )
    for _ in range(3):
        for grant in site.claim(10):
            site.start(grant)
            site.complete(grant)
        site.settle()

    after = ada.get(f"{path}/progress").json
    assert (after["state"], after["counts"]["completed"]) == ("COMPLETED", 9)
    assert [node["state"] for node in after["nodes"]] == ["FINISHED"] * 3
    assert after["eta_s"] is None
    kinds = [event["kind"] for event in ada.get(f"{path}/timeline").json["items"]]
    assert kinds[:3] == ["created", "submitted", "planned"]
    assert kinds[-1] == "ended"


def test_a_failure_always_says_why(ada: LoggedIn, site: Site) -> None:
    """A failed task shows what failed, its exit code, parameters and the end of its log."""
    made = create(ada, submit=True)
    path = f"/experiments/{made['id']}"
    site.settle()
    grants = site.claim(3)
    site.fail(grants[0], "exit status 3", stderr=b"Traceback\nValueError: bad\n")
    for grant in grants[1:]:
        site.complete(grant)
    site.settle()

    (failed,) = ada.get(f"{path}/failed-tasks").json["items"]
    assert failed["failure"] == {"kind": "user", "code": "exit_nonzero", "message": "exit status 3"}
    assert (failed["exit_code"], failed["name"]) == (3, f"simulate[{grants[0].idx}]")
    assert failed["parameters"] == {"SEED": grants[0].idx + 1, "RATE": 0.5}
    assert (failed["compute"], failed["agent"]) == ("cluster", "cluster-agent")
    tail = ada.get(failed["log_tail"].removeprefix("/api/v1"))
    assert tail.data.endswith(b"ValueError: bad\n")
    (reason,) = ada.get(f"{path}/explain").json["reasons"]
    assert "1 of 3 instances failed" in reason["detail"]
    assert "exit status 3" in reason["detail"]


def test_pause_resume_cancel(ada: LoggedIn, site: Site) -> None:
    """Pause keeps everything from starting, resume lets it go on, cancel ends it; twice is once."""
    made = create(ada, submit=True)
    path = f"/experiments/{made['id']}"
    site.settle()

    assert ada.post(f"{path}/pause").json["state"] == "PAUSED"
    assert ada.post(f"{path}/pause").json["state"] == "PAUSED"
    assert site.claim(3) == []
    assert "paused" in ada.get(f"{path}/explain").json["reasons"][0]["code"]
    assert ada.post(f"{path}/resume").json["state"] == "RUNNING"
    site.settle()
    assert len(site.claim(1)) == 1
    ada.post(f"{path}/cancel")
    ada.post(f"{path}/cancel")
    counts = ada.get(f"{path}/progress").json["counts"]
    assert (counts["cancelled"], counts["leased"]) == (2, 1)
    actions = {row.action for row in AuditEntry.select()}
    assert {"experiment.pause", "experiment.resume", "experiment.cancel"} <= actions


def test_retry_runs_what_failed(ada: LoggedIn, site: Site) -> None:
    """Retrying opens the ended experiment; the failed instance runs again, the others stay."""
    made = create(ada, submit=True)
    path = f"/experiments/{made['id']}"
    site.settle()
    grants = site.claim(3)
    site.fail(grants[0])
    for grant in grants[1:]:
        site.complete(grant, outputs={"result.csv": b"1"})
    site.settle()
    assert ada.get(path).json["state"] == "FAILED"

    assert ada.post(f"{path}/retry", {"failed_only": True}).json["state"] == "RUNNING"
    site.settle()
    assert ada.get(f"{path}/failed-tasks").json["items"] == []
    (again,) = site.claim(3)
    assert again.idx == grants[0].idx
    site.complete(again, outputs={"result.csv": b"2"})
    site.settle()
    assert ada.get(path).json["state"] == "COMPLETED"
    tasks = ada.get(f"{path}/tasks").json["items"]
    assert [(task["index"], task["state"]) for task in tasks] == [
        (0, "COMPLETED"),
        (1, "COMPLETED"),
        (2, "COMPLETED"),
    ]


def test_derive_with_other_parameters(ada: LoggedIn, site: Site) -> None:
    """A derived experiment has the changed value, names its origin, and the old one stays."""
    del site
    made = create(ada)
    answer = ada.post(
        f"/experiments/{made['id']}/derive", {"name": "again", "parameters": {"RATE": 0.9}}
    )

    assert answer.status_code == 201, answer.text
    derived = answer.json
    assert (derived["name"], derived["derived_from"]) == ("again", made["id"])
    (task,) = ada.get(f"/experiments/{derived['id']}/tasks?node=simulate&index=1").json["items"]
    assert task["parameters"] == {"SEED": 2, "RATE": 0.9}


def test_derive_only_what_failed(ada: LoggedIn, site: Site) -> None:
    """Derived with `only_failed`, the new experiment has just the instance that failed."""
    made = create(ada, submit=True)
    site.settle()
    grants = site.claim(3)
    site.fail(grants[1])
    for grant in (grants[0], grants[2]):
        site.complete(grant)
    site.settle()

    path = f"/experiments/{made['id']}/derive"
    derived = ada.post(path, {"filter": "only_failed", "submit": True}).json
    assert derived["total"] == 1
    site.settle()
    (grant,) = site.claim(5)
    assert grant.idx == grants[1].idx
    changed = ada.post(path, {"filter": "only_failed", "parameters": {"SEED": "1..9"}})
    assert (changed.status_code, changed.json["code"]) == (422, "axes_changed")


def test_tasks_that_have_no_row_yet(ada: LoggedIn, site: Site) -> None:
    """An instance far behind the window is shown as PENDING with its decoded parameters."""
    made = create(ada, sweep("1..10^12"), submit=True)
    site.settle()
    path = f"/experiments/{made['id']}/tasks"

    (task,) = ada.get(f"{path}?node=simulate&index=999999999999").json["items"]
    assert (task["id"], task["state"]) == (None, "PENDING")
    assert task["parameters"]["SEED"] == 10**12
    assert ada.get(f"{path}?node=simulate&index=1000000000000").status_code == 404
    assert ada.get(f"{path}?index=1").json["code"] == "missing_field"
    wrong = ada.get(f"{path}?node=simulat")
    assert (wrong.status_code, "simulate" in wrong.json["detail"]) == (404, True)


def test_tasks_by_page_and_state(ada: LoggedIn, site: Site) -> None:
    """Tasks come in the order of the file and of their numbers; by state along its index."""
    made = create(ada, sweep("1..7"), submit=True)
    site.settle()
    grants = site.claim(2)
    for grant in grants:
        site.complete(grant)
    path = f"/experiments/{made['id']}/tasks"

    seen: list[int] = []
    page = ada.get(f"{path}?limit=3").json
    seen += [task["index"] for task in page["items"]]
    while page["next"]:
        page = ada.get(f"{path}?limit=3&cursor={page['next']}").json
        seen += [task["index"] for task in page["items"]]
    assert seen == list(range(7))
    done = ada.get(f"{path}?state=completed&limit=1").json
    rest = ada.get(f"{path}?state=completed&limit=1&cursor={done['next']}").json
    assert {t["id"] for t in done["items"] + rest["items"]} == {g.task_id for g in grants}
    assert rest["next"] is None
    unknown = ada.get(f"{path}?state=done")
    assert unknown.status_code == 422
    assert "COMPLETED" in unknown.json["detail"]


def test_explain_says_what_it_waits_for(ada: LoggedIn) -> None:
    """No daemon, no agent, a silent one, a barrier, too large a task: each is said in one line."""
    empty = Site.make("empty", agent=False)
    made = create(ada, YAML, compute=["empty"])
    path = f"/experiments/{made['id']}/explain"
    assert ada.get(path).json["reasons"][0]["code"] == "not_submitted"

    ada.post(f"/experiments/{made['id']}/submit")
    codes = [reason["code"] for reason in ada.get(path).json["reasons"]]
    assert codes[:2] == ["no_daemon", "planning"]
    empty.settle()
    found = {(r["node"], r["code"]): r["detail"] for r in ada.get(path).json["reasons"]}
    assert found["simulate", "no_agent"] == "No agent is enrolled on empty."
    assert found["plot", "foreach"] == ("4 of its 4 instances wait for 4 of 4 of simulate.")
    assert found["report", "barrier"] == "It waits for 4 of 4 of plot."
    empty.enrol("pending")
    assert "waits to be approved" in ada.get(path).text


def test_explain_says_who_comes_first(ada: LoggedIn, site: Site) -> None:
    """A queued experiment is told how many instances of others come before it."""
    first = create(ada, sweep("1..5"), submit=True)
    second = create(ada, sweep("1..5"), submit=True)
    site.settle()

    reasons = ada.get(f"/experiments/{second['id']}/explain").json["reasons"]
    (queued,) = [reason for reason in reasons if reason["code"] == "queued"]
    assert "about 5 instances of 1 other experiments come before" in queued["detail"]
    reasons = ada.get(f"/experiments/{first['id']}/explain").json["reasons"]
    assert any("come next" in reason["detail"] for reason in reasons)
