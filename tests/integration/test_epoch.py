"""The epoch and the grace after an outage of our side."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import deployment, epoch, migrations
from airavata_scheduler.models.rows import insert_rows
from tests.integration.world import World, node
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import running, server_folder
from tests.waiting import wait_until


def age_last_tick(seconds: float) -> None:
    """Make the sweeper's last tick look `seconds` older than now."""
    deployment.write("sweep_tick", str(db.now_ms() - round(seconds * 1000)))


def test_the_epoch_is_short_and_stays(fresh_database: str) -> None:
    """Twelve characters, the same in every process, as long as nothing was forgotten."""
    script = (
        "import sys; from airavata_scheduler.models import database, epoch;"
        "database.connect(sys.argv[1]); print(epoch.current())"
    )

    found = epoch.current()
    epoch.tick()
    elsewhere = subprocess.run(
        [sys.executable, "-c", script, fresh_database], check=True, capture_output=True, text=True
    )

    assert len(found) == 12
    assert elsewhere.stdout.strip() == found == epoch.current()


def test_a_bump_starts_a_new_epoch_with_grace(fresh_database: str) -> None:
    """An operator who restored a backup says so: agents report again, and nothing expires."""
    epoch.tick()
    before = epoch.current()

    after = epoch.bump("restored the backup of Monday")

    assert after != before
    assert epoch.current() == after
    assert epoch.in_grace()
    assert deployment.read("epoch_reason") == "restored the backup of Monday"


def test_the_same_backup_restored_twice_begins_two_epochs(fresh_database: str) -> None:
    """Otherwise agents would not report again what they reported after the first restore (I3)."""
    epoch.tick()
    before = tuple(db.execute("SELECT name, value, at FROM deployment"))
    first = epoch.bump("restored the backup of Monday")
    db.execute("DELETE FROM deployment")
    insert_rows("deployment", ("name", "value", "at"), before)

    second = epoch.bump("restored the backup of Monday")

    assert second != first


def test_a_new_deployment_has_no_grace(fresh_database: str) -> None:
    """The very first tick begins nothing: nobody was held up."""
    assert not epoch.in_grace()
    assert not epoch.tick()
    assert not epoch.tick()
    assert not epoch.in_grace()


def test_a_late_tick_begins_the_grace(fresh_database: str) -> None:
    """After 31 s without a tick nothing expires for 300 s, and already before the next tick."""
    epoch.tick()
    age_last_tick(31)
    assert epoch.in_grace()

    assert epoch.tick()

    assert epoch.in_grace()
    assert not epoch.tick()
    until = int(deployment.read("grace_until") or 0)
    assert 299_000 < until - db.now_ms() <= 300_000
    deployment.write("grace_until", str(db.now_ms() - 1))
    assert not epoch.in_grace()


def test_an_api_that_is_away_is_our_outage(fresh_database: str) -> None:
    """The sweeper lives, but agents could tell nobody that they do: grace until 300 s after it."""
    epoch.tick()
    epoch.reachable()
    assert not epoch.tick()
    assert not epoch.in_grace()
    deployment.write("agents_api_tick", str(db.now_ms() - 31_000))
    assert epoch.in_grace()

    assert epoch.tick()
    first = int(deployment.read("grace_until") or 0)
    assert not epoch.tick()  # it began once, and goes on
    assert int(deployment.read("grace_until") or 0) >= first

    epoch.reachable()
    deployment.write("grace_until", str(db.now_ms() - 1))
    assert not epoch.in_grace()
    assert not epoch.tick()


def test_a_tick_in_time_begins_no_grace(fresh_database: str) -> None:
    """29 s are within the bound."""
    epoch.tick()
    age_last_tick(29)

    assert not epoch.in_grace()
    assert not epoch.tick()


def test_the_grace_period_is_a_parameter(fresh_database: str) -> None:
    """OUTAGE_GRACE sets it; 0 turns it off."""
    epoch.tick()
    age_last_tick(31)

    assert epoch.tick(grace_s=0)

    assert not epoch.in_grace()


def test_another_server_is_another_epoch(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of another identity changes the epoch and begins the grace; then it is known."""
    epoch.tick()
    before = epoch.current()
    monkeypatch.setattr(epoch, "_incarnation", lambda: "another server")
    assert epoch.in_grace()

    assert epoch.tick()

    assert epoch.current() != before
    assert epoch.in_grace()
    assert not epoch.tick()


def test_the_server_is_known_by_its_own_identity(fresh_database: str) -> None:
    """PostgreSQL and MariaDB 10.11 tell who they are; SQLite has a value in the file."""
    kind = {"postgresql": "postgresql/", "mysql": "server_u", "sqlite": "stored/"}[db.dialect()]

    assert epoch._incarnation().startswith(kind)
    assert epoch._incarnation() == epoch._incarnation()


def test_a_promoted_standby_is_another_epoch() -> None:
    """A restart keeps the epoch; a failover (a new timeline) changes it at once.

    A standby that has not taken over yet is refused: nobody is judged by what it says.
    """
    with server_folder("failover") as folder, running(PostgreSQL(folder)) as server:
        db.connect(server.url())
        migrations.upgrade()
        first = epoch.current()
        server.stop()
        server.start()
        db.connect(server.url())
        restarted = epoch.current()
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        db.connect(server.url())
        with pytest.raises(db.ConnectionLost):
            epoch.current()
        server.run("SELECT pg_promote()")
        wait_until(lambda: in_charge(server), message="the promotion")
        db.connect(server.url())
        promoted = epoch.current()
        db.disconnect()

    assert restarted == first
    assert promoted != first


def in_charge(server: PostgreSQL) -> bool:
    db.connect(server.url())
    return db.execute("SELECT pg_is_in_recovery()") == [(False,)]


def test_a_server_that_hides_its_identifier_still_has_an_epoch(
    postgres_url: str, postgres_server: PostgreSQL
) -> None:
    """Managed services forbid pg_control_system(); a value in the database stands in."""
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    db.connect(postgres_url)
    migrations.upgrade()
    db.execute("CREATE ROLE modest LOGIN")
    try:
        db.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO modest")
        db.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        db.connect(postgres_server.url(name, user="modest"))

        assert "stored/" in epoch._incarnation()
        with db.transaction():
            assert epoch.current() == epoch.current()
        assert not epoch.tick()
    finally:
        db.connect(postgres_url)
        db.execute("DROP OWNED BY modest")
        db.execute("DROP ROLE modest")


def test_a_former_server_that_takes_over_again_is_no_former_epoch(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that were away meanwhile would think that they had told it everything (I3)."""
    seen = [epoch.current()]
    for server in ("the other server", "this server", "the other server"):
        monkeypatch.setattr(epoch, "_incarnation", lambda server=server: server)
        epoch.tick()
        seen.append(epoch.current())

    assert len(set(seen)) == 4


def test_a_server_whose_clock_is_behind_begins_its_epoch_after_all_that_it_has(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its grace begins all the same, and what it knows from before looks older than the epoch."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 2))
    agent.claim(1)
    epoch.tick()
    monkeypatch.setitem(db.NOW_SQL, db.dialect(), f"({db.now_sql()} - 20000)")
    monkeypatch.setattr(epoch, "_incarnation", lambda: "a server whose clock is behind")
    assert epoch.in_grace()

    assert epoch.tick()

    assert epoch.in_grace()
    began_at = deployment.written_at(epoch.BEGAN) or 0
    older = db.execute("SELECT created_at, leased_at FROM tasks")
    assert all(at < began_at for row in older for at in row if at is not None)
    assert agent.claim(1) == []
    (since,) = agent.claimed(1, hold_s=0).grants
    assert since.leased_at >= began_at


def test_a_copy_of_a_server_is_another_one(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB's own identity comes along with copied files; in a replication its number differs."""
    db.connect(mariadb_url)
    migrations.upgrade()
    mine = epoch._incarnation()
    monkeypatch.setattr(
        epoch,
        "execute",
        lambda *asked: [(k, "4711" if k == "server_id" else v) for k, v in db.execute(*asked)],
    )

    assert epoch._incarnation() != mine
