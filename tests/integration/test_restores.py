"""Restore drills: a store goes back to an older state, and nobody may more than the rows say."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from airavata_scheduler.backends import projection, relay
from airavata_scheduler.backends.spicedb import spicedb
from airavata_scheduler.models import database as db
from airavata_scheduler.models import outbox
from airavata_scheduler.models.database_url import read_database_url
from airavata_scheduler.models.relations import Relationship
from tests.api import Api
from tests.in_step import out_of_step
from tests.servers.programs import program

Restore = Callable[[], None]


def dumped(url: str, folder: Path) -> Restore:
    """Dump the database as the operator does; what restores it."""
    if url.startswith("sqlite"):
        return _sqlite(Path(url.removeprefix("sqlite:///")), folder / "backup.db")
    if url.startswith("postgres"):
        return _postgresql(url, folder / "backup.sql")
    return _mariadb(url, folder / "backup.sql")


def _sqlite(file: Path, backup: Path) -> Restore:
    with sqlite3.connect(file) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()

    def restore() -> None:
        source, target = sqlite3.connect(backup), sqlite3.connect(file)
        source.backup(target)
        source.close()
        target.close()

    return restore


def _postgresql(url: str, backup: Path) -> Restore:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    dump, psql = (program(name, folders=folders) for name in ("pg_dump", "psql"))
    assert dump is not None
    assert psql is not None
    subprocess.run([dump, url, "--clean", "--if-exists", "-f", str(backup)], check=True)

    def restore() -> None:
        db.database.close_all()
        command = [psql, url, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(backup)]
        subprocess.run(command, check=True, capture_output=True)

    return restore


def _mariadb(url: str, backup: Path) -> Restore:
    address = read_database_url(url)
    known = address.parameters
    login = [f"--host={known['host']}", f"--port={known['port']}", f"--user={known['user']}"]
    environment = {**os.environ, "MYSQL_PWD": known.get("password") or ""}
    dump, client = program("mariadb-dump", "mysqldump"), program("mariadb", "mysql")
    assert dump is not None
    assert client is not None
    with backup.open("wb") as file:
        subprocess.run([dump, *login, address.name], check=True, stdout=file, env=environment)

    def restore() -> None:
        db.database.close_all()
        with backup.open("rb") as file:
            subprocess.run([client, *login, address.name], check=True, stdin=file, env=environment)

    return restore


def test_a_restored_dump_takes_back_what_it_does_not_have(
    api: Api, fresh_database: str, tmp_path: Path
) -> None:
    """SpiceDB holds what was granted after the dump: it lets nobody in until it is filled anew."""
    ada, bob, eve = api.user("ada"), api.user("bob"), api.user("eve")
    project = api.project(ada, viewer=bob)["id"]
    restore = dumped(fresh_database, tmp_path)
    ada.post("/projects/spine/members", {"user": "eve", "role": "viewer"})
    ada.delete("/projects/spine/members/bob")
    assert eve.get(f"/projects/{project}").status_code == 200

    restore()
    refused = {user.get(f"/projects/{project}").json.get("code") for user in (ada, bob)}
    projection.ensure()

    assert refused == {"permissions_rebuilding"}
    assert ada.get(f"/projects/{project}").status_code == 200
    assert bob.get(f"/projects/{project}").status_code == 200
    assert eve.get(f"/projects/{project}").status_code in (401, 404)
    assert out_of_step() == set()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_relayer_that_died_in_the_middle_is_no_restored_dump(api: Api) -> None:
    """SpiceDB is ahead of what is noted, and not of what was intended: the relay goes on."""
    ada = api.user("ada")
    noted = outbox.newest_position()

    def dies() -> None:
        raise KeyboardInterrupt

    outbox.append(
        [outbox.relationship(("user", ada.id), "account", ("user", ada.id))],
        about=("user", ada.id),
        revokes=False,
    )
    with pytest.raises(KeyboardInterrupt):
        relay.relay(dies)

    marks = relay.read_marks(spicedb())
    assert marks.position == noted + 1
    assert relay.check_marks(marks) == noted + 1
    assert relay.relay() == 1
    assert ada.get(f"/users/{ada.id}").status_code == 200


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_commits_lost_by_a_failover_are_noticed_by_the_relay(api: Api) -> None:
    """A relayer that still knows a position of which the database knows nothing does not go on."""
    ada = api.user("ada")
    api.project(ada)
    before = outbox.newest_position()
    db.change("UPDATE zed_tokens SET position = %s", (before - 1,))
    outbox.append(
        [outbox.relationship(("user", ada.id), "account", ("user", ada.id))],
        about=("user", ada.id),
        revokes=True,
    )

    with pytest.raises(relay.ProjectionMissing):
        relay.relay()
    assert projection.ensure()
    assert out_of_step() == set()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_process_that_did_not_relay_what_was_lost_does_not_go_on_either(
    api: Api,
) -> None:
    """The one commit that is lost was another process's, by whose share SpiceDB is ahead.

    What this one intends must not make that look like a position that the database knows.
    """
    ada, eve = api.user("ada"), api.user("eve")
    project = api.project(ada)["id"]
    before = outbox.newest_position()
    lost = outbox.relationship(("project", project), "viewer", ("user", eve.id))
    there = [relay.mark("position", str(number)) for number in (before, before + 1)]
    spicedb().write([lost, there[1]], [there[0]], [])
    outbox.append(
        [outbox.relationship(("user", ada.id), "account", ("user", ada.id))],
        about=("user", ada.id),
        revokes=False,
    )

    with pytest.raises(relay.ProjectionMissing):
        relay.relay()
    assert eve.get(f"/projects/{project}").json["code"] == "permissions_rebuilding"
    assert projection.ensure()
    assert eve.get(f"/projects/{project}").status_code == 404
    assert out_of_step() == set()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_another_relayer_that_gets_on_meanwhile_is_no_restored_spicedb(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its position is noted after ours was read: SpiceDB only looks as if it were behind."""
    ada = api.user("ada")
    ask, others = spicedb().relationships, iter([1])

    def overtaken(*of: str, timeout_s: float = 300.0) -> list[Relationship]:
        found = list(ask(*of, timeout_s=timeout_s))
        if of == relay.RELAY and next(others, None):
            here = outbox.newest_position()
            old, new = (relay.mark("position", str(number)) for number in (here, here + 1))
            outbox.intend(here + 1)
            token = spicedb().write([new], [old], [])
            outbox.keep_tokens([outbox.NEWEST], token=token, position=here + 1)
        return found

    monkeypatch.setattr(spicedb(), "relationships", overtaken)
    outbox.append(
        [outbox.relationship(("user", ada.id), "account", ("user", ada.id))],
        about=("user", ada.id),
        revokes=False,
    )

    assert relay.relay() == 1
    assert not projection.ensure()
