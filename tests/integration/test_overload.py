"""What the API gives up when more is asked than its threads can do, and what never."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from airavata_scheduler.functions import streams
from airavata_scheduler.functions.admission import LIMITS, Gate, call_of, load
from airavata_scheduler.functions.route_table import ROUTES
from tests.api import MakeApi
from tests.integration.test_functions_metrics import value
from tests.waiting import wait_until
from tests.wire_agent import Wire
from tests.work import sweep

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])
THREADS = 20


@pytest.fixture
def _nothing_at_work() -> Iterator[None]:
    """Other tests' requests have all been answered; so have this one's at its end.

    An answer that a test did not read to its end still counts as one that is being sent.
    """
    assert load.working == 0
    aside, load.aside = load.aside, 0
    yield
    load.working, load.aside = 0, aside


def test_overload_sheds_in_the_order_of_the_protocol(
    make_api: MakeApi, _nothing_at_work: None
) -> None:
    """As work piles up: users' reads, claims, logs, starts; heartbeats and reports never."""
    api = make_api(API_THREADS=str(THREADS))
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..1"))
    lease = wire.claim(1)["leases"][0]["lease"]

    def refused(busy: int) -> list[str]:
        load.working = busy
        answers = {
            "read": wire.owner.get("/experiments"),
            "claim": wire.call("POST", "/leases/claim", wire.claim_body(1)),
            "log": wire.patch_log(lease, 0, b"x"),
            "start": wire.call("POST", "/leases/start", {"leases": [lease]}),
            "write": wire.owner.post("/projects", {"name": f"busy-{busy}"}),
            "session": wire.call("POST", "/session", {}),
            "heartbeat": wire.call("POST", "/heartbeat", {"seq": busy}),
            "report": wire.call("POST", "/reports", {"items": []}),
            "token": wire.ask_token(),
            "health": wire.owner.get("/health"),
        }
        load.working = 0
        return [name for name, answer in answers.items() if answer.status_code == 503]

    assert refused(5) == []
    assert refused(12) == ["read"]
    assert refused(14) == ["read", "claim"]
    assert refused(16) == ["read", "claim", "log"]
    assert refused(18) == ["read", "claim", "log", "start", "write"]
    assert refused(200) == ["read", "claim", "log", "start", "write", "session"]


def test_a_refusal_is_a_problem_that_says_when_to_come_back(
    make_api: MakeApi, _nothing_at_work: None
) -> None:
    """It is spread: not all who were refused in one second come back in one second."""
    api = make_api(API_THREADS=str(THREADS))
    ada = api.user("ada")
    before = value(api, "scheduler_api_requests_shed_total", call="read") or 0

    load.working = THREADS
    answers = [ada.get("/experiments") for _ in range(60)]
    load.working = 0

    assert {answer.status_code for answer in answers} == {503}
    problem = answers[0].json
    waits = {int(answer.headers["Retry-After"]) for answer in answers}
    assert (problem["code"], problem["status"]) == ("overloaded", 503)
    assert problem["hint"].startswith("Send the same request again in ")
    assert answers[0].headers["X-Request-Id"] == problem["request_id"]
    assert waits == {2, 3, 4, 5, 6}
    assert value(api, "scheduler_api_requests_shed_total", call="read") == before + 60


def test_a_refusal_costs_less_than_a_millisecond(make_api: MakeApi, _nothing_at_work: None) -> None:
    """It looks at the first line alone: no token, no row, no body."""
    api = make_api(API_THREADS=str(THREADS))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/v1/experiments"}
    answered: list[str] = []

    load.working = THREADS
    began_s = time.thread_time()
    for _ in range(200):
        list(api.app.wsgi_app(environ, lambda status, *_: answered.append(status)))  # type: ignore[arg-type]
    took_s = time.thread_time() - began_s

    assert set(answered) == {"503 Service Unavailable"}
    assert took_s / 200 < 0.001


def test_a_request_that_waits_is_not_work(make_api: MakeApi, _nothing_at_work: None) -> None:
    """It holds a thread, but no share: else some who wait would have the rest refused."""
    make_api(API_THREADS="4")
    seen: list[tuple[int, int]] = []

    def look() -> bool:
        return len(seen) > 1

    def waits(_environ: Any, _start: Any) -> list[bytes]:
        streams.wait_until(time.monotonic() + 10, look)
        return []

    waiting = threading.Thread(
        target=lambda: Gate(waits)({"REQUEST_METHOD": "GET", "PATH_INFO": "/api/v1/calls"}, Mock())
    )
    waiting.start()
    wait_until(lambda: load.aside == 1, timeout_s=5, message="it to wait")
    seen += [(load.working, load.aside)] * 2
    waiting.join()

    assert seen[0] == (0, 1)
    assert (load.working, load.aside) == (0, 0)


def test_every_route_has_its_class(make_api: MakeApi) -> None:
    """The agents' routes by name; users' by whether they read; probes and metrics always."""
    calls = {name: call_of(*name.split(" ", 1)) for name in ROUTES}
    agents = {
        name.replace("/agent/v1", ""): call
        for name, call in calls.items()
        if name.split()[1].startswith("/agent/v1/")
    }

    assert set(calls.values()) <= set(LIMITS)
    assert {name: call for name, call in agents.items() if call != "always"} == {
        "POST /enroll": "session",
        "GET /download": "start",
        "GET /download.sha256": "start",
        "GET /install.sh": "start",
        "POST /session": "session",
        "POST /leases/claim": "claim",
        "POST /leases/start": "start",
        "PATCH /leases/{lease}/log/{stream}": "log",
        "PUT /leases/{lease}/artifacts": "upload",
        "GET /leases/{lease}/inputs/{number}": "start",
        "GET /blobs/{sha256}": "start",
    }
    assert calls["GET /metrics"] == calls["GET /api/v1/health/ready"] == "always"
    assert calls["POST /api/v1/experiments"] == "write"
    assert calls["GET /api/v1/experiments"] == "read"
