"""Killed at every step of giving, sharing, using and taking away: nobody ever may too much.

Each deed on a credential is cut off at each step between two stores, by the death of the API's
process, of the daemon's, of SpiceDB (which forgets everything) or of OpenBao. Meanwhile a watcher
asks over the API what a second user may do, and compares each answer with the rows before and
after it. Then everything must come to rest: SpiceDB equal to the rows, OpenBao without orphans.

By default each point is struck once, on SQLite; `make nightly` strikes twenty times, on all three
databases.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.backends import openbao, secret_collector
from airavata_scheduler.backends.spicedb import PermissionsUnavailable, StoreForeign
from airavata_scheduler.models.database import connected, execute
from airavata_scheduler.queue import jobs
from tests.api import NO_REDIS, SECRET, Api, LoggedIn, MakeApi
from tests.canaries import canary
from tests.faults.doer import Doer, Point, after, before
from tests.in_step import out_of_step
from tests.servers.openbao import OpenBao
from tests.servers.programs import server_folder
from tests.servers.spicedb import SpiceDB
from tests.waiting import wait_until
from tests.work import Site

NIGHTLY = bool(os.environ.get("AIRAVATA_NIGHTLY"))
pytestmark = pytest.mark.campaign
RUNS = 20 if NIGHTLY else 1
DATABASES = ["sqlite", "postgresql", "mariadb"] if NIGHTLY else ["sqlite"]
# How long a value waits for its row before it counts as nobody's: by night as in production.
ORPHAN_MS = secret_collector.ORPHAN_MS if NIGHTLY else 500
CONVERGES_WITHIN_S = 30.0
VALUE = {"username": "ada", "password": canary("kills")}

_COMMITTING = after("functions.audit:append")  # the last write of each transaction
_COMMITTED = before("functions.grants:relay_now")
_RELAYING = before("backends.spicedb:SpiceDB.write")
_RELAYED = after("backends.spicedb:SpiceDB.write")
_NOTED = after("models.outbox:relayed")
_OF_RELAY = (_RELAYING, _RELAYED, _NOTED)
_OF_GRANTS = (_COMMITTING, _COMMITTED, *_OF_RELAY)

POINTS: dict[str, tuple[Point, ...]] = {
    "create": (
        before("backends.openbao:OpenBao.write"),
        after("backends.openbao:OpenBao.write"),
        after("models.credentials:insert"),
        *_OF_GRANTS,
    ),
    "share": _OF_GRANTS,
    "unshare": _OF_GRANTS,
    "bind": _OF_GRANTS,
    "unbind": _OF_GRANTS,
    "rotate": (
        before("backends.openbao:OpenBao.write"),
        after("backends.openbao:OpenBao.write"),
        _COMMITTING,
    ),
    "replace": (
        after("backends.openbao:OpenBao.write"),
        before("backends.openbao:OpenBao.destroy"),
        after("backends.openbao:OpenBao.destroy"),
    ),
    "delete": (
        *_OF_GRANTS,
        before("backends.openbao:OpenBao.delete"),
        after("backends.openbao:OpenBao.delete"),
    ),
}
CASES = [(deed, point) for deed, points in POINTS.items() for point in points]


@dataclass(frozen=True, kw_only=True)
class State:
    """Whether everything is in step; false while it is not."""

    differences: list[str]

    def __bool__(self) -> bool:
        return not self.differences


@dataclass(kw_only=True)
class World:
    """The application, its servers, the doer, and two users."""

    api: Api
    spicedb: SpiceDB
    openbao: OpenBao
    doer: Doer
    ada: LoggedIn
    bob: LoggedIn
    site: Site
    serial: int = 0
    overgrants: list[str] = field(default_factory=list)

    def credential(self, *, shared: bool, bound: bool) -> str:
        """A new credential of ada's."""
        self.serial += 1
        body = {"name": f"c{self.serial}", "kind": "PASSWORD", "value": VALUE}
        made = self.ada.post("/credentials", body)
        assert made.status_code == 201, made.text
        path = f"/credentials/{made.json['id']}"
        if shared:
            answer = self.ada.post(f"{path}/shares", {"user": "bob"})
            assert answer.status_code == 201, answer.text
        if bound:
            answer = self.ada.post(f"{path}/bindings", {"compute": self.site.name})
            assert answer.status_code == 201, answer.text
        return str(made.json["id"])

    def do(self, deed: str, credential: str, point: Point, victim: int | None) -> None:
        """Do the deed on the credential, cut off at the point."""
        path = f"/api/v1/credentials/{credential}"
        self.serial += 1
        another = {"value": {**VALUE, "password": canary(f"kills{self.serial}")}}
        new = {"name": f"n{self.serial}", "kind": "PASSWORD", "value": VALUE}
        requests: dict[str, tuple[str, str, Any]] = {
            "create": ("POST", "/api/v1/credentials", new),
            "share": ("POST", f"{path}/shares", {"user": "bob"}),
            "unshare": ("DELETE", f"{path}/shares?user=bob", None),
            "bind": ("POST", f"{path}/bindings", {"compute": self.site.name}),
            "unbind": ("DELETE", f"{path}/bindings?compute={self.site.name}", None),
            "rotate": ("POST", f"{path}/rotate", another),
            "replace": ("PUT", f"{path}/value", another),
            "delete": ("DELETE", path, None),
        }
        done = self.doer.request(self.ada.token or "", *requests[deed], point=point, victim=victim)
        assert victim is not None or done.signal == 9, (deed, point, done)

    def may_read(self, credential: str) -> bool:
        """Whether the rows let bob read the credential now."""
        rows = execute(
            "SELECT 1 FROM shares s JOIN credentials c ON c.id = s.object_id "
            "WHERE s.object_id = %s AND s.subject_id = %s AND c.state = 'active'",
            (credential, self.bob.id),
        )
        return bool(rows)

    def settle(self) -> float:
        """Let the daemon's jobs run as their clock would; seconds until all is in step."""
        began = time.monotonic()
        wait_until(self._state, timeout_s=CONVERGES_WITHIN_S, message="all to be in step")
        return time.monotonic() - began

    def _state(self) -> State:
        """What SpiceDB or OpenBao have and the rows do not name, or the other way round."""
        jobs.permissions()
        jobs.secrets()
        with connected():
            names = {
                (str(row[0]), int(row[1]))
                for row in execute(
                    "SELECT v.credential_id, v.number FROM credential_versions v "
                    "JOIN credentials c ON c.id = v.credential_id "
                    "WHERE c.state = 'active' AND v.state <> 'destroyed'"
                )
            }
            there = {
                (path, stored.version)
                for path in set(openbao.secrets().paths()) - {secret_collector.MARK}
                for stored in openbao.secrets().versions(path)
                if not stored.destroyed
            }
            try:
                return State(differences=[*map(str, there ^ names), *out_of_step()])
            except (PermissionsUnavailable, StoreForeign) as away:  # it was just started again
                return State(differences=[str(away)])


@pytest.fixture
def own_spicedb() -> Iterator[SpiceDB]:
    """A SpiceDB in memory that the tests may kill."""
    with server_folder("spicedb") as folder:
        server = SpiceDB(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def settings(
    own_spicedb: SpiceDB, secrets_settings: dict[str, str], fresh_database: str, tmp_path: Path
) -> dict[str, str]:
    """What the application and the doer have in common."""
    return {
        "DATABASE_URL": fresh_database,
        "JWT_SECRET_KEY": SECRET,
        "RATE_LIMIT_ENABLED": "false",
        "REDIS_URL": NO_REDIS,
        "STORAGE_PATH": str(tmp_path / "storage"),
        **own_spicedb.settings,
        **secrets_settings,
    }


@pytest.fixture
def world(
    make_api: MakeApi,
    own_spicedb: SpiceDB,
    openbao_server: OpenBao,
    settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Everything, running."""
    monkeypatch.setattr(secret_collector, "ORPHAN_MS", ORPHAN_MS)
    api = make_api(**settings)
    jobs.configure(api.config)
    for path in list(openbao.secrets().paths()):
        openbao.secrets().delete(path)  # other tests' values, whose rows are gone
    ada, bob = api.admin("ada"), api.user("bob")
    site = Site.make(agent=False)
    doer = Doer(settings=settings)
    yield World(
        api=api,
        spicedb=own_spicedb,
        openbao=openbao_server,
        doer=doer,
        ada=ada,
        bob=bob,
        site=site,
    )
    doer.stop()


class Watcher:
    """Asks without a pause whether bob may read a credential, and judges each answer."""

    def __init__(self, world: World, credential: str) -> None:
        self.world, self.credential = world, credential
        self.asked = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.look()

    def look(self) -> None:
        """One question between two looks at the rows."""
        with connected():
            was = self.world.may_read(self.credential)
        answer = self.world.bob.get(f"/credentials/{self.credential}")
        with connected():
            now = self.world.may_read(self.credential)
        self.asked += 1
        if answer.status_code == 200 and not was and not now:
            self.world.overgrants.append(f"{self.credential}: {answer.text[:200]}")
        assert answer.status_code in (200, 404, 503), answer.text


def strike(world: World, deed: str, point: Point, victim: Callable[[], int | None]) -> None:
    """One deed, cut off, under the watcher's eyes; right after it the rows hold."""
    credential = world.credential(
        shared=deed not in ("create", "share"), bound=deed in ("unbind", "delete")
    )
    watcher = Watcher(world, credential)
    watcher.look()
    # Whoever asks relays what waits: during a relay's own steps nobody else may ask, or the point
    # would not be reached. Right after it somebody does.
    with watcher if point not in _OF_RELAY else nullcontext():
        world.do(deed, credential, point, victim())
    watcher.look()
    assert watcher.asked >= 2


@pytest.mark.parametrize(("deed", "point"), CASES, ids=[f"{d}: {p}" for d, p in CASES])
@pytest.mark.parametrize("database_kind", DATABASES, indirect=True)
def test_the_api_killed(world: World, deed: str, point: Point) -> None:
    """No answer ever allows what the rows do not; at the end everything is in step."""
    for _ in range(RUNS):
        strike(world, deed, point, lambda: None)

    assert world.overgrants == []
    assert world.settle() <= CONVERGES_WITHIN_S


@pytest.mark.parametrize("deed", ["share", "unshare", "delete"])
@pytest.mark.parametrize("point", [_RELAYING, _RELAYED, _NOTED], ids=str)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_relay_killed(world: World, deed: str, point: Point) -> None:
    """The daemon relays what a request left, and is killed at it: the next round does it."""
    for _ in range(RUNS):
        strike(world, deed, _COMMITTED, lambda: None)
        execute("UPDATE deployment SET at = 0 WHERE name = 'cron:permissions'")
        world.doer.job("permissions", point=point)

    assert world.overgrants == []
    assert world.settle() <= CONVERGES_WITHIN_S


@pytest.mark.parametrize("deed", ["create", "share", "unshare", "bind", "delete"])
@pytest.mark.parametrize("point", [_RELAYING, _RELAYED], ids=str)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_spicedb_killed(world: World, deed: str, point: Point) -> None:
    """It comes back empty: nobody may do anything until it is filled, then what the rows say."""
    for _ in range(RUNS):
        strike(world, deed, point, lambda: world.spicedb.pid)
        world.spicedb.kill()
        world.spicedb.start()
        world.settle()

    assert world.overgrants == []


@pytest.mark.parametrize("deed", ["create", "rotate", "replace", "delete"])
@pytest.mark.parametrize("later", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_openbao_killed(world: World, deed: str, later: bool) -> None:
    """It comes back with what it had acknowledged; nothing is half made."""
    name = {"delete": "delete", "replace": "destroy"}.get(deed, "write")
    point = Point(where=f"backends.openbao:OpenBao.{name}", after=later)
    for _ in range(RUNS):
        strike(world, deed, point, lambda: world.openbao.pid)
        world.openbao.kill()
        world.openbao.start()
        world.settle()

    assert world.overgrants == []
