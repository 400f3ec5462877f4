"""Logs over HTTP: ranges of what is written so far, and following it, on each database."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airavata_scheduler.functions.logs import _Follower
from airavata_scheduler.models import leases
from airavata_scheduler.models.leases import Grant
from airavata_scheduler.models.tables import Task
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
    """A compute resource with an agent, and one task with a retry."""
    document = sweep("1..1")
    document["tasks"]["simulate"]["retries"] = 1
    site = Site.make()
    answer = ada.post("/experiments", {"project": "spine", "document": document, "submit": True})
    assert answer.status_code == 201, answer.text
    site.settle()
    return site


@pytest.fixture
def grant(site: Site) -> Grant:
    """The task, running."""
    (grant,) = site.claim(1)
    site.start(grant)
    return grant


def events(text: str) -> list[tuple[str, Any, str | None]]:
    """(kind, data, id) of each event in a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(event|data|id): (.*)$", block, re.MULTILINE))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found


def test_a_running_task_shows_what_it_wrote(ada: LoggedIn, site: Site, grant: Grant) -> None:
    """Any range, also counted from the end, with size, and that it is not complete."""
    site.log(grant, "stdout", b"0123456789")
    path = f"/tasks/{grant.task_id}/logs/stdout"

    whole = ada.get(path)
    assert (whole.data, whole.headers["X-Log-Size"]) == (b"0123456789", "10")
    assert (whole.headers["X-Log-Complete"], whole.headers["X-Log-Attempt"]) == ("false", "1")
    assert whole.mimetype == "text/plain"
    assert ada.get(f"{path}?offset=2&limit=3").data == b"234"
    tail = ada.get(f"{path}?offset=-4")
    assert (tail.data, tail.headers["X-Log-Offset"]) == (b"6789", "6")
    assert ada.get(f"{path}?offset=-400").data == b"0123456789"
    assert ada.get(f"{path}?offset=99").data == b""
    assert ada.get(f"/tasks/{grant.task_id}/logs/stderr").data == b""
    assert ada.get(f"/tasks/{grant.task_id}/logs/stdin").status_code == 422


def test_a_short_log_comes_with_the_report(ada: LoggedIn, site: Site, grant: Grant) -> None:
    """A stream that was never sent live is in the report's row; the other one is empty."""
    site.complete(grant, stdout=b"done\n")

    answer = ada.get(f"/tasks/{grant.task_id}/logs/stdout?offset=1")
    assert (answer.data, answer.headers["X-Log-Complete"]) == (b"one\n", "true")
    assert ada.get(f"/tasks/{grant.task_id}/logs/stderr").headers["X-Log-Complete"] == "true"


def test_each_attempt_has_its_own(ada: LoggedIn, site: Site, grant: Grant) -> None:
    """Without a number it is the newest attempt's; an attempt that there was not is a 404."""
    site.fail(grant, stderr=b"first\n")
    path = f"/tasks/{grant.task_id}/logs/stderr"

    assert ada.get(path).data == b"first\n"
    assert ada.get(f"{path}?attempt=1").data == b"first\n"
    missing = ada.get(f"{path}?attempt=7")
    assert (missing.status_code, missing.json["code"]) == (404, "attempt_not_found")
    assert "1 to 1" in missing.json["hint"]


def test_following_an_ended_task_ends(ada: LoggedIn, site: Site, grant: Grant) -> None:
    """All of the log comes as events with ids, then `end`, then the stream closes."""
    text = "x" + "ä" * 40_000  # so a chunk ends in the middle of a character
    site.log(grant, "stdout", text.encode())
    site.complete(grant)

    answer = ada.get(f"/tasks/{grant.task_id}/logs/stdout/events")
    assert answer.mimetype == "text/event-stream"
    found = events(answer.text)
    assert found[0][0] == "attempt"
    logs = [(data, identity) for kind, data, identity in found if kind == "log"]
    assert "".join(data["text"] for data, _ in logs) == text
    assert len(logs) == 2
    assert logs[-1][1] == "1:80001"
    kind, end, _ = found[-1]
    assert (kind, end["size"], end["state"], end["complete"]) == ("end", 80_001, "COMPLETED", True)


def test_following_goes_on_where_it_broke_off(ada: LoggedIn, site: Site, grant: Grant) -> None:
    """With Last-Event-ID only the bytes behind it come; one that is not ours begins anew."""
    site.log(grant, "stdout", b"0123456789")
    site.complete(grant)
    path = f"/tasks/{grant.task_id}/logs/stdout/events"

    resumed = events(ada.get(path, headers={"Last-Event-ID": "1:6"}).text)
    assert [data["text"] for kind, data, _ in resumed if kind == "log"] == ["6789"]
    for forged in ("x:y", "1:-5", "9" * 50, "1:99999999999999999999"):
        again = ada.get(path, headers={"Last-Event-ID": forged})
        assert events(again.text)[-1][0] == "end"


def test_following_an_attempt_that_there_was_not_is_refused(
    ada: LoggedIn, site: Site, grant: Grant
) -> None:
    """404 before the stream begins, not a stream that breaks off."""
    missing = ada.get(f"/tasks/{grant.task_id}/logs/stdout/events?attempt=2")

    assert (missing.status_code, missing.json["code"]) == (404, "attempt_not_found")


def test_following_goes_over_an_attempt_that_never_started(ada: LoggedIn, site: Site) -> None:
    """Its agent gave it back: who asked for it gets the end, who saw it begin gets the next one."""
    (first,) = site.claim(1)
    asked = _Follower(first.task_id, "stdout", 1, "")
    assert not asked.look().ended
    assert site.session_id is not None
    leases.release(site.session_id, [first.lease], "drained")
    assert [event.kind for event in asked.look().events] == ["end"]
    Task.update(available_at=0).execute()
    (second,) = site.claim(1)
    site.start(second)
    site.log(second, "stdout", b"second\n")
    site.complete(second)

    path = f"/tasks/{first.task_id}/logs/stdout/events"
    found = events(ada.get(path, headers={"Last-Event-ID": "1:0"}).text)
    assert [kind for kind, _, _ in found] == ["attempt", "log", "end"]
    assert found[1][1]["text"] == "second\n"


def test_following_sees_every_attempt(ada: LoggedIn, site: Site, grant: Grant) -> None:
    """A client that read half of the first attempt gets its rest, then the second one's."""
    site.log(grant, "stderr", b"first attempt\n")
    site.fail(grant)
    Task.update(available_at=0).execute()
    (second,) = site.claim(1)
    site.start(second)
    site.log(second, "stderr", b"second\n")
    site.complete(second)

    path = f"/tasks/{grant.task_id}/logs/stderr/events"
    found = events(ada.get(path, headers={"Last-Event-ID": "1:6"}).text)
    said = [(data["attempt"], data["text"]) for kind, data, _ in found if kind == "log"]
    assert said == [(1, "attempt\n"), (2, "second\n")]
    assert found[-1][1]["attempt"] == 2
