"""Killed at every step into the database: the life of an experiment goes on as if nothing was.

The process that answers one request, or does one background job, dies before its first statement,
its second, and so on to the moment after its last commit. Then its caller repeats it, as clients,
agents and the reconciler do. In the end every task has one result, of one attempt.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.models import epoch, flow
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.states import TaskState
from tests.api import NO_REDIS, SECRET, LoggedIn, MakeApi
from tests.faults.doer import Doer
from tests.servers.spicedb import SpiceDBTesting
from tests.wire_agent import BASE, Wire, artifact_item, completed, digest_header
from tests.work import sweep

pytestmark = pytest.mark.campaign

DEEDS = (
    *("create", "submit", "plan", "claim", "start", "upload", "log", "heartbeat", "report"),
    *("release", "session", "cancel_task", "cancel", "finish"),
)
NIGHTLY = bool(os.environ.get("AIRAVATA_NIGHTLY"))
DATABASES = ["sqlite", "postgresql", "mariadb"] if NIGHTLY else ["sqlite"]
MOST_STEPS = 200
RESULT = b"1\n"


@dataclass(kw_only=True)
class World:
    """The application, an agent of it, and the process that dies."""

    ada: LoggedIn
    wire: Wire
    doer: Doer
    serial: Iterator[int] = field(default_factory=lambda: count(1))


@pytest.fixture
def world(
    make_api: MakeApi,
    fresh_database: str,
    spicedb_testing_server: SpiceDBTesting,
    tmp_path: Path,
) -> Iterator[World]:
    """Everything, running."""
    settings = {
        "DATABASE_URL": fresh_database,
        "JWT_SECRET_KEY": SECRET,
        "RATE_LIMIT_ENABLED": "false",
        "REDIS_URL": NO_REDIS,
        "STORAGE_PATH": str(tmp_path / "storage"),
        **spicedb_testing_server.new_store(),
    }
    api = make_api(**settings)
    ada = api.admin("ada")
    wire = Wire.enrolled(api, owner=ada)
    api.project(ada)
    epoch.tick()
    doer = Doer(settings=settings)
    yield World(ada=ada, wire=wire, doer=doer)
    doer.stop()


class Life:
    """One experiment from its creation to its end, of which one deed is cut off once."""

    def __init__(self, world: World, deed: str, step: int) -> None:
        self.world, self.deed, self.step = world, deed, step
        self.was_cut_off = False
        self.experiment = ""

    def run(self) -> None:
        """Three tasks, of which the second is given back first, and the third is cancelled."""
        self._make()
        self._flow("plan")
        first, second, third = self._claim(3)
        self._agent("release", "POST", "/leases/release", {"leases": [second["lease"]]})
        (second,) = self._claim(1)
        self._agent("start", "POST", "/leases/start", {"leases": [first["lease"]]})
        for lease in (first, second):
            self._upload(lease["lease"])
        self._log(first["lease"])
        self._beat(first["lease"])
        self._cancel(third["lease"])
        self._session([lease["lease"] for lease in (first, second, third)])
        self._report(first, second, third)
        self._flow("finish")

    def _make(self) -> None:
        document = sweep("1..3")
        body = {"project": "spine", "document": document}
        key = {"Idempotency-Key": f"life-{next(self.world.serial)}"}
        made = self._user("create", "POST", "/api/v1/experiments", body, key)
        self.experiment = made["id"]
        self._user("submit", "POST", f"/api/v1/experiments/{made['id']}/submit", {})

    def _claim(self, most: int) -> list[dict[str, Any]]:
        body = self.world.wire.claim_body(most)
        found: list[dict[str, Any]] = self._agent("claim", "POST", "/leases/claim", body)["leases"]
        assert len(found) == most
        return sorted(found, key=lambda lease: str(lease["index"]))

    def _upload(self, lease: str) -> None:
        path = f"/leases/{lease}/artifacts?output=RESULT&path=result.csv"
        headers = {"Content-Digest": digest_header(RESULT)}
        self._agent("upload", "PUT", path, data=RESULT, headers=headers)

    def _log(self, lease: str) -> None:
        headers = {
            "Content-Range": f"bytes 0-{len(RESULT) - 1}/*",
            "Content-Digest": digest_header(RESULT),
        }
        self._agent("log", "PATCH", f"/leases/{lease}/log/stdout", data=RESULT, headers=headers)

    def _beat(self, lease: str) -> None:
        deltas = [{"lease": lease, "phase": "running", "started_s_ago": 0.1}]
        body = {"seq": next(self.world.wire.beats), "epoch": None, "deltas": deltas, "full": None}
        self._agent("heartbeat", "POST", "/heartbeat", body)

    def _cancel(self, lease: str) -> None:
        """The task; where that is the deed, the whole experiment, and no later result counts."""
        if self.deed == "cancel":
            self._user("cancel", "POST", f"/api/v1/experiments/{self.experiment}/cancel", {})
        else:
            task, _, _ = lease.partition(".")
            self._user("cancel_task", "POST", f"/api/v1/tasks/{task}/cancel", {})

    def _session(self, leases: list[str]) -> None:
        """The agent starts again, with everything that its journal holds."""
        held = [{"lease": lease} for lease in leases]
        if self.deed == "session":
            wire = self.world.wire
            wanted = {"token": wire.token, "method": "POST", "path": f"{BASE}/session"}
            self._cut_off({**wanted, "body": wire.session_body(leases=held)})
        self.world.wire.open_session(leases=held)

    def _report(self, first: Any, second: Any, third: Any) -> None:
        file = artifact_item("RESULT", "result.csv", RESULT)
        items = [completed(lease, artifacts=[file]) for lease in (first, second)]
        items.append(completed(third, outcome="cancelled"))
        answer = self._agent("report", "POST", "/reports", {"items": items, "claim": None})
        assert {item["verdict"] for item in answer["items"]} <= {"accepted", "duplicate"}

    def _flow(self, job: str) -> None:
        """What is due of a background job, and then whatever follows from it."""
        for due, about in flow.due_work():
            if due == job and self.deed == job:
                self._cut_off({"flow": job, "about": about})
        for _ in range(50):
            left = flow.due_work()
            if not left:
                return
            for due, about in left:
                getattr(flow, due)(about)
        raise AssertionError(f"background work does not end: {left}")

    def _user(
        self, deed: str, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        if deed == self.deed:
            token = self.world.ada.token
            wanted = {"token": token, "method": method, "path": path, "body": body}
            self._cut_off({**wanted, "headers": dict(headers or {})})
        path = path.removeprefix("/api/v1")
        answer = getattr(self.world.ada, method.lower())(path, body, headers=dict(headers or {}))
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json
        return found

    def _agent(
        self,
        deed: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        wire = self.world.wire
        if deed == self.deed:
            said = {"X-Agent-Session": wire.session_id, **(headers or {})}
            wanted = {"token": wire.token, "method": method, "path": BASE + path, "headers": said}
            self._cut_off(wanted | ({"body": body} if data is None else {"data": data.decode()}))
        how: dict[str, Any] = {} if data is None else {"data": data}
        return wire.ok(method, path, body, headers=dict(headers or {}), **how)

    def _cut_off(self, deed: Mapping[str, Any]) -> None:
        if self.was_cut_off:
            return
        done = self.world.doer.cut_off(deed, self.step)
        assert done.signal in (9, None), done
        self.was_cut_off = done.signal == 9
        assert self.was_cut_off or done.status is None or done.status < 300, done


def judged(life: Life) -> None:
    """Two results of one attempt each, one cancel; the numbers are those of the rows.

    Where the whole experiment was cancelled, which was before the results, they are only kept.
    """
    done = 0 if life.deed == "cancel" else 2
    rows = execute(
        "SELECT state, attempt FROM tasks WHERE experiment_id = %s ORDER BY idx", [life.experiment]
    )
    states = [TaskState(row[0]).name for row in rows]
    assert states == ["COMPLETED"] * done + ["CANCELLED"] * (3 - done)
    attempts = execute("SELECT outcome FROM attempts WHERE experiment_id = %s", [life.experiment])
    assert Counter(row[0] for row in attempts) == Counter({"COMPLETED": 2, "CANCELLED": 1})
    published = execute(
        "SELECT COUNT(*) FROM artifacts WHERE experiment_id = %s AND state = 'published'",
        [life.experiment],
    )
    assert published == [(done,)]
    progress = life.world.ada.get(f"/experiments/{life.experiment}").json
    assert progress["state"] == ("CANCELLED" if life.deed == "cancel" else "COMPLETED")
    assert progress["counts"]["completed"] == done
    assert progress["counts"]["cancelled"] == 3 - done
    assert flow.due_work() == []


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("database_kind", DATABASES, indirect=True)
def test_killed_at_each_step(world: World, deed: str) -> None:
    """From the first statement to the moment after the last commit, one life each."""
    for step in range(1, MOST_STEPS):
        life = Life(world, deed, step)
        life.run()
        judged(life)
        if not life.was_cut_off:
            assert step > 2, f"{deed} was never cut off"
            return
    pytest.fail(f"{deed} has more than {MOST_STEPS} steps")
