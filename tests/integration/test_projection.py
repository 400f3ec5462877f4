"""SpiceDB lost, restored, another's, tampered with, hung: what users see, and how it comes back."""

from __future__ import annotations

import logging
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from airavata_scheduler.backends import projection, relay, spicedb_schema
from airavata_scheduler.backends import spicedb as spicedb_client
from airavata_scheduler.backends.relay import mark
from airavata_scheduler.backends.spicedb import Fence, Fenced, spicedb
from airavata_scheduler.commands import authz
from airavata_scheduler.functions import grants
from airavata_scheduler.functions.route_table import ROUTES
from airavata_scheduler.models import database, outbox
from airavata_scheduler.models.database import change, execute, now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.relations import Relationship
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.queue import jobs
from tests.api import Answered, Api, LoggedIn, MakeApi
from tests.in_step import out_of_step
from tests.integration.test_authorization_matrix import Case, answer, object_checks
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import running
from tests.servers.spicedb import SpiceDB
from tests.silently import another_process, environment, leave_project
from tests.tenants import Tenants
from tests.waiting import wait_until
from tests.wire_agent import Wire

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

MANY = 10_000  # users, with two relationships each
CHANGES = 320
SLACK_S = 1.5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SpiceDB]:
    """A SpiceDB of this test's own, in memory: whoever restarts it empties it."""
    with running(SpiceDB(tmp_path / "spicedb")) as spicedb_server:
        yield spicedb_server


def problem(answered: Answered) -> tuple[int, str]:
    """The status and the code of an answer."""
    return answered.status_code, answered.json["code"]


def alarmed(name: str) -> int:
    """How much the comparison has found, as the metric tells it."""
    rows = execute("SELECT value FROM deployment WHERE name = %s", (f"authz:{name}",))
    return int(rows[0][0]) if rows else 0


def every_route(tenants: Tenants) -> dict[str, tuple[int, str]]:
    """How the project's owner is answered on each route that asks about an object."""
    found = {}
    for name, rule in sorted(ROUTES.items()):
        if rule.who == "user" and any(not check.place.endswith("?") for check in rule.checks):
            case = Case(route=name, role="owner", tenants=("own",) * len(object_checks(name)))
            found[name] = answer(tenants, case)
    return found


REBUILDING = (503, "permissions_rebuilding")


def test_spicedb_away_and_back_empty(make_api: MakeApi, server: SpiceDB) -> None:
    """Users get 503 on every route, agents go on; empty, it refuses everybody until it is filled;
    the daemon's job does that.
    """
    api = make_api(**server.settings)
    tenants = Tenants(api)
    wire = Wire.enrolled(api)
    owner, project = tenants.callers["owner"], tenants.own.project
    assert owner.get(f"/projects/{project}").status_code == 200
    jobs.configure(api.config)

    server.kill()
    away = every_route(tenants)
    lists = [owner.get(path) for path in ("/projects", "/experiments", "/credentials", "/agents")]
    claimed = wire.claim(1)
    me = owner.get("/users/me")
    jobs.permissions()
    server.start()
    wait_until(lambda: problem(owner.get(f"/projects/{project}")) == REBUILDING)
    empty = every_route(tenants)
    stranger = tenants.callers["stranger"].get(f"/projects/{project}")
    root = tenants.callers["root"].get("/users")
    change("DELETE FROM deployment WHERE name = %s", ("cron:permissions",))
    jobs.permissions()

    assert claimed["leases"] == []
    assert {status for status, _ in away.values()} == {503}, away
    assert all('"permissions_unavailable"' in text for _, text in away.values())
    assert [problem(listed) for listed in lists] == [(503, "permissions_unavailable")] * 4
    assert all(int(listed.headers["Retry-After"]) > 0 for listed in lists)
    assert me.status_code == 200
    assert {status for status, _ in empty.values()} == {503}, empty
    assert all('"permissions_rebuilding"' in text for _, text in empty.values())
    assert problem(stranger) == problem(root) == (503, "permissions_rebuilding")
    assert out_of_step() == set()
    assert owner.get(f"/projects/{project}").status_code == 200
    assert tenants.callers["stranger"].get(f"/projects/{project}").status_code == 404


def test_a_change_while_spicedb_is_away(make_api: MakeApi, server: SpiceDB) -> None:
    """What was committed then is in what it is filled with; nobody is let in by what was."""
    api = make_api(**server.settings)
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", viewer=bob)["id"]

    server.kill()
    leave_project(project, bob.id)
    grants.relay_now()
    away = problem(bob.get(f"/projects/{project}"))
    server.start()
    wait_until(lambda: problem(bob.get(f"/projects/{project}")) == REBUILDING)
    projection.ensure()

    assert away == (503, "permissions_unavailable")
    assert bob.get(f"/projects/{project}").status_code == 404
    assert out_of_step() == set()


def test_a_relayer_whose_spicedb_lost_its_schema(make_api: MakeApi, server: SpiceDB) -> None:
    """It had the position in mind and no check came between: still a sentence, not a fault."""
    api = make_api(**server.settings)
    ada = api.user("ada")
    api.project(ada, "spine")

    server.kill()
    server.start()
    leave_project(new_id(), ada.id)

    with pytest.raises(relay.ProjectionMissing):
        relay.relay()
    assert problem(ada.get("/projects")) == (503, "permissions_rebuilding")
    projection.ensure()
    assert len(ada.get("/projects").json["items"]) == 1


def test_spicedb_restored_to_an_older_state(
    make_api: MakeApi, postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    """A dump from before a revoke: refused from the first check on, until it is filled again."""
    with (
        postgres_server.new_database("restored") as url,
        running(SpiceDB(tmp_path / "spicedb", postgres_url=url)) as server,
    ):
        api = make_api(**server.settings)
        ada, bob = api.user("ada"), api.user("bob")
        project = api.project(ada, "spine", viewer=bob)["id"]
        assert bob.get(f"/projects/{project}").status_code == 200
        server.stop()
        postgres_server.run('CREATE DATABASE "dump" TEMPLATE "restored"')
        server.start()
        wait_until(lambda: ada.delete(f"/projects/{project}/members/bob").status_code == 204)
        server.stop()
        postgres_server.run('DROP DATABASE "restored" WITH (FORCE)')
        postgres_server.run('CREATE DATABASE "restored" TEMPLATE "dump"')
        server.start()

        wait_until(lambda: problem(bob.get("/projects"))[1] != "permissions_unavailable")
        restored = [problem(who.get(f"/projects/{project}")) for who in (bob, ada)]
        lists = [problem(who.get("/projects")) for who in (bob, ada)]
        filled = projection.ensure()

        assert restored == lists == [(503, "permissions_rebuilding")] * 2
        assert filled
        assert bob.get(f"/projects/{project}").status_code == 404
        assert ada.get(f"/projects/{project}").status_code == 200
        assert out_of_step() == set()
        postgres_server.run('DROP DATABASE "dump"')


def test_a_position_that_lies_behind(api: Api) -> None:
    """The same by hand, and just one change behind."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    here = outbox.newest_position()

    back = [mark("position", str(here - 1))]
    spicedb().write(back, [mark("position", str(here))], [])

    # SpiceDB may answer from its state before that for a while: which was the newer one.
    refused = wait_until(lambda: ada.get(f"/projects/{project}").json.get("code"))
    assert refused == ada.get("/projects").json["code"] == "permissions_rebuilding"
    with pytest.raises(relay.ProjectionMissing):
        relay.check_marks(relay.read_marks(spicedb()))
    projection.ensure()
    assert ada.get(f"/projects/{project}").status_code == 200


def released(monkeypatch: pytest.MonkeyPatch, *changes: tuple[str, str]) -> None:
    """From here on this process is a release whose schema has the texts `after` for `before`."""
    text = spicedb_schema.text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    monkeypatch.setattr(spicedb_schema, "text", lambda: text)


def test_a_release_with_another_schema(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets nobody in by the old, wider rule; the daemon brings the new one by itself, once."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", viewer=bob)["id"]
    assert bob.get(f"/projects/{project}").status_code == 200

    released(monkeypatch, ("view + system->administer", "administration + system->administer"))
    refused = [problem(who.get(f"/projects/{project}")) for who in (ada, bob)]
    leave_project(new_id(), ada.id)
    with pytest.raises(relay.ProjectionMissing):
        relay.relay()
    filled = [projection.ensure(), projection.ensure()]

    assert refused == [REBUILDING] * 2
    assert filled == [True, False]
    assert bob.get(f"/projects/{project}").status_code == 404
    assert ada.get(f"/projects/{project}").status_code == 200


def test_a_release_whose_schema_has_less(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relation and a kind of object are gone for which the older release wrote relationships."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    with monkeypatch.context() as before:
        released(
            before,
            ("\trelation viewer: user |", "\trelation guest: user\n\trelation viewer: user |"),
            (
                "definition mark {}",
                "definition room {\n\trelation guest: user\n}\ndefinition mark {}",
            ),
        )
        assert projection.ensure()
        guests = [(("project", project), ada.id), (("room", new_id()), ada.id)]
        keys = [outbox.relationship(where, "guest", ("user", who)) for where, who in guests]
        spicedb().write(keys, [], [])

    refused = problem(ada.get(f"/projects/{project}"))
    filled = projection.ensure()

    assert refused == REBUILDING
    assert filled
    assert ada.get(f"/projects/{project}").status_code == 200
    assert "room" not in spicedb().kinds()
    assert out_of_step() == set()


def test_the_spicedb_of_another_deployment(api: Api, tmp_path: Path) -> None:
    """It is told from an empty one, is not touched, and is taken over only by who says so."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    others = environment(api.config) | {"DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}
    config = api.config

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return another_process(config, *words, env=others)

    assert run("db", "upgrade").returncode == 0
    refused = run("authz", "rebuild")
    assert run("authz", "rebuild", "--take-over").returncode == 0
    foreign = problem(ada.get(f"/projects/{project}"))
    relays = run("authz", "relay").returncode
    with pytest.raises(relay.ProjectionForeign):
        projection.ensure()
    with pytest.raises(relay.ProjectionForeign):
        projection.rebuild()
    leave_project(new_id(), ada.id)
    with pytest.raises(relay.ProjectionForeign):
        relay.relay()
    projection.rebuild(take_over=True)

    assert refused.returncode == 1
    assert "another deployment" in refused.stderr
    assert "--take-over" in refused.stderr
    assert relays == 0
    assert foreign == (503, "permissions_foreign")
    assert ada.get(f"/projects/{project}").status_code == 200
    assert out_of_step() == set()


def test_what_was_written_by_hand_is_found(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`authz compare` takes it away with an alarm, and writes what is missing."""
    ada, eve = api.user("ada"), api.user("eve")
    project = api.project(ada, "spine")["id"]
    extra = outbox.relationship(("project", project), "owner", ("user", eve.id))
    odd = Relationship.read(f"group:{new_id()}#member@group:{new_id()}#membership")
    lost = outbox.relationship(("project", project), "owner", ("user", ada.id))
    change("UPDATE outbox SET created_at = created_at - 600000")
    monkeypatch.setattr(projection, "RECENT_MS", 0)
    spicedb().write([extra, odd], [lost], [])
    for name, value in environment(api.config).items():
        monkeypatch.setenv(name, value)
    # The binding and the connection of this process are the test's; the command makes its own.
    monkeypatch.setattr(authz, "_connect", lambda: None)

    with caplog.at_level(logging.WARNING, "airavata_scheduler.backends.projection"):
        compared = CliRunner().invoke(authz.command, ["compare"])
    again = CliRunner().invoke(authz.command, ["compare"])

    assert compared.exit_code == 1
    assert "Missing and written: 1. Too many and deleted: 2." in compared.output
    assert (again.exit_code, again.output) == (
        0,
        "Missing and written: 0. Too many and deleted: 0.\n",
    )
    errors = {record.getMessage() for record in caplog.records if record.levelno == logging.ERROR}
    assert errors == {
        f"permissions: SpiceDB had {key}, which no row grants; it is taken away"
        for key in (extra, odd)
    }
    assert (alarmed("extra"), alarmed("missing")) == (2, 1)
    metrics = api.nobody.get("//metrics").text
    assert 'scheduler_permissions_repaired_total{fault="extra"} 2.0' in metrics
    assert out_of_step() == set()
    assert eve.get(f"/projects/{project}").status_code == 404
    assert ada.get(f"/projects/{project}").status_code == 200


def test_a_relation_that_no_row_makes_is_found_too(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema has it, nothing of ours writes it: somebody did by hand, and it is taken away."""
    ada, eve = api.user("ada"), api.user("eve")
    project = api.project(ada, "spine")["id"]
    released(
        monkeypatch,
        ("\trelation viewer: user |", "\trelation guest: user\n\trelation viewer: user |"),
        ("participation + viewer", "participation + viewer + guest"),
    )
    projection.ensure()
    odd = outbox.relationship(("project", project), "guest", ("user", eve.id))
    spicedb().write([odd], [], [])
    # Nobody keeps a token of it: SpiceDB may answer from its state before that for a while.
    wait_until(lambda: eve.get(f"/projects/{project}").status_code == 200)

    repaired = projection.reconcile()

    assert (repaired.missing, repaired.extra) == (0, 1)
    assert eve.get(f"/projects/{project}").status_code == 404
    assert ada.get(f"/projects/{project}").status_code == 200
    assert out_of_step() == set()


def test_a_schema_that_was_written_by_hand_is_found(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It lets in whom ours does not, until the comparison fills SpiceDB by ours; with an alarm."""
    ada, eve = api.user("ada"), api.user("eve")
    project = api.project(ada, "spine")["id"]
    wider = spicedb_schema.text().replace(
        "permission read = view + system->administer",
        "permission read = view + system->administer + system->anybody",
    )
    monkeypatch.setattr(authz, "_connect", lambda: None)
    spicedb().write_schema(wider)
    # Nobody keeps a token of it: SpiceDB may answer from its state before that for a while.
    wait_until(lambda: eve.get(f"/projects/{project}").status_code == 200)
    for name, value in environment(api.config).items():
        monkeypatch.setenv(name, value)

    with caplog.at_level(logging.ERROR, "airavata_scheduler.backends.projection"):
        compared = CliRunner().invoke(authz.command, ["compare"])
    again = CliRunner().invoke(authz.command, ["compare"])

    assert compared.exit_code == 1
    assert "SpiceDB had another schema than ours: it was filled again." in compared.output
    assert "another schema than ours" in caplog.text
    assert again.exit_code == 0
    assert eve.get(f"/projects/{project}").status_code == 404
    assert ada.get(f"/projects/{project}").status_code == 200


def test_two_rebuilds_at_once(api: Api) -> None:
    """The second one takes over: the first one stops at its next write, and all is right."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    inner: list[int] = []

    def meanwhile(_count: int) -> None:
        if not inner:
            inner.append(projection.rebuild())
            api.project(ada, "rib")

    with pytest.raises(Fenced):
        projection.rebuild(progress=meanwhile)

    assert inner[0] > 0
    assert out_of_step() == set()
    assert ada.get(f"/projects/{project}").status_code == 200
    assert len(ada.get("/projects").json["items"]) == 2


def test_a_rebuild_that_began_before_another_one_was_through(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The late one has read old marks: it is fenced off, and shuts nobody out by its own mark."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    read_marks = relay.read_marks

    def slow(database: spicedb_client.SpiceDB) -> relay.Marks:
        monkeypatch.undo()
        found = read_marks(database)
        projection.rebuild()
        return found

    monkeypatch.setattr(relay, "read_marks", slow)
    with pytest.raises(Fenced):
        projection.rebuild()

    assert ada.get(f"/projects/{project}").status_code == 200
    assert out_of_step() == set()


def test_a_relayer_that_got_on_after_a_rebuild_read_the_marks(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new position goes too: whoever has that one in mind is refused after the rebuild."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    here = outbox.newest_position()
    read_marks = relay.read_marks

    def then_relay(database: spicedb_client.SpiceDB) -> relay.Marks:
        monkeypatch.undo()
        found = read_marks(database)
        leave_project(new_id(), ada.id)
        assert relay.relay() == 1
        return found

    monkeypatch.setattr(relay, "read_marks", then_relay)
    projection.rebuild()

    there = [key for key in spicedb().relationships(*relay.RELAY) if key.relation == "position"]
    assert there == [mark("position", str(outbox.newest_position()))]
    with pytest.raises(Fenced):
        spicedb().write([], [], [Fence(relationship=mark("position", str(here + 1)))])
    assert ada.get(f"/projects/{project}").status_code == 200


def test_a_rebuild_that_clears_for_long_is_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are to take away: no other process thinks that it died, and takes over."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    clear_some = spicedb().clear_some
    cleared: list[str] = []

    def slow(kind: str, *arguments: Any, **named: Any) -> bool:
        with pytest.raises(relay.ProjectionMissing):
            projection.ensure()
        cleared.append(kind)
        done = clear_some(kind, *arguments, **named)
        change("UPDATE deployment SET at = at - %s", (projection.STALE_REBUILD_MS + 1,))
        return done

    monkeypatch.setattr(spicedb_client, "MAX_UPDATES", 1)
    monkeypatch.setattr(spicedb(), "clear_some", slow)
    projection.rebuild()

    assert cleared.count("user") > 2
    assert ada.get(f"/projects/{project}").status_code == 200


def test_a_rebuild_that_dies_behind_its_last_write(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SpiceDB is whole then: checks pass, and by no token of the SpiceDB that was there before."""
    ada = api.user("ada")
    project = api.project(ada, "spine")["id"]
    change("UPDATE zed_tokens SET token = 'of another SpiceDB'")
    noted = outbox.newest_position()
    write = spicedb().write

    def die(touch: list[Relationship], *rest: Any) -> str:
        token = write(touch, *rest)
        if any(key.relation == "projection" for key in touch):
            raise SystemExit
        return token

    monkeypatch.setattr(spicedb(), "write", die)
    with pytest.raises(SystemExit):
        projection.rebuild()
    monkeypatch.undo()

    assert outbox.newest_position() == noted
    assert ada.get(f"/projects/{project}").status_code == 200
    assert len(ada.get("/projects").json["items"]) == 1
    assert not projection.ensure()
    assert api.project(ada, "rib")["id"]
    assert out_of_step() == set()


def test_checks_fail_while_a_rebuild_runs(api: Api) -> None:
    """Neither 404 nor 200 from what is half there; a change then is in it afterwards."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine", viewer=bob)["id"]
    seen: list[tuple[int, str]] = []

    def look(_count: int) -> None:
        seen.extend(problem(who.get(f"/projects/{project}")) for who in (ada, bob))
        leave_project(project, bob.id)

    projection.rebuild(progress=look)

    assert set(seen) == {(503, "permissions_rebuilding")}
    assert bob.get(f"/projects/{project}").status_code == 404
    assert ada.get(f"/projects/{project}").status_code == 200
    assert out_of_step() == set()


def test_a_rebuild_of_many(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """20,000 relationships are written in one go, in batches."""
    now = now_ms()
    columns = ("id", "name", "is_admin", "created_at", "updated_at")
    for start in range(0, MANY, 500):
        rows = [(new_id(), f"u{number}", False, now, now) for number in range(start, start + 500)]
        insert_rows("users", columns, rows)

    batches: list[int] = []
    began = time.perf_counter()
    count = projection.rebuild(progress=batches.append)
    took_s = time.perf_counter() - began

    assert count >= 2 * MANY
    assert len(batches) >= count // projection.BATCH
    assert out_of_step() == set()
    with caplog.at_level(logging.INFO):
        logging.getLogger(__name__).info(
            "%d relationships in %.1f s: %.0f/s", count, took_s, count / took_s
        )


def test_a_frozen_spicedb_holds_few_threads(make_api: MakeApi, server: SpiceDB) -> None:
    """Nobody waits longer than the time-out; after it only one request in a second waits at all."""
    api = make_api(**server.settings)
    ada = api.user("ada")
    path = f"/projects/{api.project(ada, 'spine')['id']}"
    assert ada.get(path).status_code == 200
    slow_s = spicedb_client.CHECK_TIMEOUT_S * 0.8

    def asked(_: int) -> tuple[float, tuple[int, str]]:
        began = time.monotonic()
        answered = problem(ada.get(path))
        return time.monotonic() - began, answered

    server.freeze()
    wait_until(lambda: not server.answers())
    try:
        first_s, first = asked(0)
        until = time.monotonic() + spicedb_client.CHECK_TIMEOUT_S + 2 * spicedb_client.AWAY_S
        waited, answers = [], []
        with ThreadPoolExecutor(8) as pool:
            while time.monotonic() < until:
                for took_s, answered in pool.map(asked, range(8)):
                    answers.append(answered)
                    waited += [took_s] if took_s > slow_s else []
    finally:
        server.thaw()

    assert first == (503, "permissions_unavailable")
    assert first_s < spicedb_client.CHECK_TIMEOUT_S + SLACK_S
    assert set(answers) == {(503, "permissions_unavailable")}
    assert 1 <= len(waited) <= 3, (len(answers), waited)
    assert max(waited) < spicedb_client.CHECK_TIMEOUT_S + SLACK_S
    wait_until(lambda: ada.get(path).status_code == 200)


def test_spicedb_hangs_just_after_it_allowed(make_api: MakeApi, server: SpiceDB) -> None:
    """The request then reads the relay's marks: no longer than a check may take either."""
    api = make_api(**server.settings)
    api.project(api.user("ada"), "spine")

    def marks() -> object:
        with database.connected():
            return relay.read_marks(spicedb())

    server.freeze()
    wait_until(lambda: not server.answers())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(marks)
        try:
            failed = asked.exception(spicedb_client.CHECK_TIMEOUT_S + SLACK_S)
        finally:
            server.thaw()

    assert isinstance(failed, spicedb_client.PermissionsUnavailable)


class Walk:
    """Random changes through the API, by an administrator of everything."""

    def __init__(self, api: Api, chance: random.Random) -> None:
        self.api, self.chance = api, chance
        self.root = api.admin("root")
        self.users = [self.root, *(api.user(f"w{number}") for number in range(5))]
        self.names = 0
        self.deeds: list[Callable[[], Any]] = [
            self.make_project,
            self.join,
            self.join,
            self.change_role,
            self.leave,
            self.delete_project,
            self.make_group,
            self.enter_group,
            self.enter_group,
            self.leave_group,
            self.group_into_project,
            self.group_out_of_project,
            self.delete_group,
            self.make_resource,
            self.share,
            self.unshare,
            self.delete_resource,
            self.disable,
            self.administer,
        ]

    def step(self) -> None:
        """One change; one that is refused is one too."""
        answered = self.chance.choice(self.deeds)()
        assert answered is None or answered.status_code < 500, answered.text

    def _name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def _any(self, path: str) -> str | None:
        items = self.root.get(path).json["items"]
        return self.chance.choice(items)["id"] if items else None

    def _user(self) -> LoggedIn:
        return self.chance.choice(self.users[1:])

    def make_project(self) -> Any:
        return self._user().post("/projects", {"name": self._name("p")})

    def join(self) -> Any:
        role = self.chance.choice(("viewer", "member", "admin", "owner"))
        body = {"user": self._user().name, "role": role}
        return self._in("/projects", "POST", "/members", body)

    def change_role(self) -> Any:
        role = self.chance.choice(("viewer", "member", "admin", "owner"))
        return self._in("/projects", "PATCH", f"/members/{self._user().name}", {"role": role})

    def leave(self) -> Any:
        return self._in("/projects", "DELETE", f"/members/{self._user().name}")

    def delete_project(self) -> Any:
        return self._in("/projects", "DELETE", "") if self.chance.random() < 0.4 else None

    def make_group(self) -> Any:
        return self._user().post("/groups", {"name": self._name("g")})

    def enter_group(self) -> Any:
        group = self._any("/groups")
        inner = self.chance.random() < 0.4 and group is not None
        body = {"group": group} if inner else {"user": self._user().name}
        return self._in("/groups", "POST", "/members", body)

    def leave_group(self) -> Any:
        group = self._any("/groups")
        way = f"/groups/{group}" if self.chance.random() < 0.4 else f"/members/{self._user().name}"
        return self._in("/groups", "DELETE", way)

    def group_into_project(self) -> Any:
        role = self.chance.choice(("viewer", "member", "admin"))
        body = {"group": self._any("/groups"), "role": role}
        return self._in("/projects", "POST", "/members", body)

    def group_out_of_project(self) -> Any:
        return self._in("/projects", "DELETE", f"/groups/{self._any('/groups')}")

    def delete_group(self) -> Any:
        return self._in("/groups", "DELETE", "") if self.chance.random() < 0.3 else None

    def make_resource(self) -> Any:
        body = {"name": self._name("c"), "kind": "SLURM"}
        project = self._any("/projects")
        if project is not None and self.chance.random() < 0.7:
            body["project"] = project
        return self.root.post("/compute-resources", body)

    def share(self) -> Any:
        who = (
            {"user": self._user().name}
            if self.chance.random() < 0.5
            else {"group": self._any("/groups")}
        )
        relation = self.chance.choice(("user", "operator"))
        return self._in("/compute-resources", "POST", "/shares", {**who, "relation": relation})

    def unshare(self) -> Any:
        query = f"/shares?user={self._user().name}"
        return self._in("/compute-resources", "DELETE", query)

    def delete_resource(self) -> Any:
        return self._in("/compute-resources", "DELETE", "") if self.chance.random() < 0.3 else None

    def disable(self) -> Any:
        state = self.chance.choice(("active", "disabled"))
        return self.root.patch(f"/users/{self._user().id}", {"state": state})

    def administer(self) -> Any:
        body = {"is_admin": self.chance.random() < 0.5}
        return self.root.patch(f"/users/{self._user().id}", body)

    def _in(self, path: str, method: str, tail: str, body: Any = None) -> Any:
        found = self._any(path)
        return None if found is None else self.root.request(method, f"{path}/{found}{tail}", body)


@pytest.mark.parametrize("seed", [7, pytest.param(20261126, marks=pytest.mark.campaign)])
def test_after_each_relay_spicedb_is_what_the_rows_say(
    api: Api, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever changed, in whichever order, and however many relays did not happen."""
    chance = random.Random(seed)
    walk, now = Walk(api, chance), grants.relay_now
    compared = 0

    def sometimes() -> None:
        if chance.random() < 0.5:
            now()
        else:
            outbox.take_written()

    monkeypatch.setattr(grants, "relay_now", sometimes)
    for _ in range(CHANGES):
        walk.step()
        if chance.random() < 0.2:
            forget = chance.random() < 0.3
            if forget:
                change("UPDATE outbox SET relayed_at = NULL")
            relay.relay()
        if not outbox.waiting(1):
            assert out_of_step() == set()
            compared += 1

    relay.relay()
    assert out_of_step() == set()
    assert compared > CHANGES // 10
    assert execute("SELECT COUNT(*) FROM outbox")[0][0] > CHANGES // 4
