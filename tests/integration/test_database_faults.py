"""A database that goes away, comes back, or is too busy."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import deployment, migrations
from airavata_scheduler.models.errors import Unavailable
from tests.servers.mariadb import PASSWORD, MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.waiting import wait_until

Server = PostgreSQL | MariaDB


@pytest.fixture(params=["postgres_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each real server with a migrated database bound; it runs again after the test."""
    found: Server = request.getfixturevalue(request.param)
    with found.new_database("faults") as url:
        db.connect(url)
        migrations.upgrade()
        yield found
        if not found.server.alive:
            found.start()
        db.disconnect()


def kill_our_connection(server: Server) -> None:
    """End the connection of this thread from the server's side."""
    if isinstance(server, PostgreSQL):
        own = db.execute("SELECT pg_backend_pid()")[0][0]
        server.run(f"SELECT pg_terminate_backend({own}, 5000)")
    else:
        server.run(f"KILL {db.execute('SELECT CONNECTION_ID()')[0][0]}")


def test_a_stopped_server_is_unavailable_and_a_started_one_is_used_again(server: Server) -> None:
    """Each call says 503 while the server is away; then the next one works, without a restart."""
    with db.connected():
        deployment.write("a", "1")
    server.stop()

    for _ in range(3):
        with pytest.raises(Unavailable) as caught, db.connected():
            deployment.read("a")
        assert caught.value.status == 503
        assert (caught.value.retry_after_s or 0) > 0

    server.start()
    with db.connected():
        assert deployment.read("a") == "1"


def test_a_server_that_restarted_while_a_connection_idled_is_not_noticed(server: Server) -> None:
    """The pool sees that its connections hung up and makes new ones."""
    with db.connected():
        deployment.write("a", "1")
    server.stop()
    server.start()

    with db.connected():
        assert deployment.read("a") == "1"


def test_a_lost_connection_is_retried_once(server: Server) -> None:
    """A transaction whose connection dies is done again on a new one, as a whole."""
    tries: list[int] = []

    @db.retried
    def write_both() -> None:
        tries.append(1)
        with db.transaction():
            deployment.write("a", str(len(tries)))
            if len(tries) == 1:
                kill_our_connection(server)
            deployment.write("b", str(len(tries)))

    write_both()

    assert len(tries) == 2
    assert (deployment.read("a"), deployment.read("b")) == ("2", "2")


def test_a_connection_that_is_lost_again_and_again_is_unavailable(server: Server) -> None:
    """The second loss ends the call; nothing of it is stored, and the next call works."""
    tries: list[int] = []

    @db.retried
    def always_killed() -> None:
        tries.append(1)
        with db.transaction():
            deployment.write("a", "1")
            kill_our_connection(server)
            deployment.write("b", "1")

    with pytest.raises(db.ConnectionLost):
        always_killed()

    assert len(tries) == db.LOST_TRIES
    assert deployment.read("a") is None


def test_a_lost_connection_inside_an_inner_transaction_shows_itself(server: Server) -> None:
    """The savepoint's clean-up does not hide what happened."""
    with pytest.raises(db.ConnectionLost), db.transaction(), db.transaction():
        kill_our_connection(server)
        deployment.read("a")

    assert deployment.read("a") is None


def test_a_lost_connection_does_not_hide_the_first_error(server: Server) -> None:
    """What was raised in the block comes out; the roll-back that found nobody is no news."""
    with pytest.raises(ZeroDivisionError), db.transaction():
        kill_our_connection(server)
        raise ZeroDivisionError

    assert deployment.read("a") is None


def test_a_start_without_a_database_says_why(
    postgres_server: PostgreSQL, mariadb_server: MariaDB, tmp_path: Path
) -> None:
    """Wrong name, wrong password, nobody there: a sentence with the cause, without the password."""
    cases = [
        (postgres_server.url("no_such_database"), "no_such_database"),
        (mariadb_server.url("no_such_database"), "no_such_database"),
        (mariadb_server.url("x").replace("airavata:", "airavata:not-"), "Access denied"),
        ("postgres://u:hunter2@127.0.0.1:1/d", "refused"),
        ("u:hunter2@tcp(127.0.0.1:1)/d", "Can't connect"),
        (f"sqlite:///{tmp_path}/no/such/folder/a.db", "unable to open"),
    ]
    for url, cause in cases:
        with pytest.raises(db.DatabaseAway) as caught:
            db.connect(url)
        text = f"{caught.value.detail} {caught.value.hint}"
        assert cause in text
        assert "hunter2" not in text
        assert PASSWORD not in text


def test_a_locked_sqlite_file_is_busy_not_broken(sqlite_url: str, tmp_path: Path) -> None:
    """Another program that holds the write lock makes us wait, then answer 503."""
    pool = db.connect(sqlite_url)
    migrations.upgrade()
    db.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(tmp_path / "airavata.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(db.Contended):
            deployment.write("a", "1")
        with pytest.raises(db.Contended), db.transaction():
            pass

        other.execute("ROLLBACK")
    deployment.write("a", "1")
    assert deployment.read("a") == "1"
    assert not pool.in_transaction()


def test_a_new_sqlite_file_that_another_program_has_locked_is_waited_for(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Two programs that meet at a new file both get it: who finds it locked tries again."""
    answers: list[object] = []

    def second() -> None:
        db.connect(sqlite_url)
        answers.append(migrations.upgrade())

    thread = threading.Thread(target=second)
    with closing(sqlite3.connect(tmp_path / "airavata.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        other.execute("ROLLBACK")
    thread.join(30)

    assert answers == [[migration.name for migration in migrations.MIGRATIONS]]


def test_every_connection_in_use_is_unavailable(fresh_database: str) -> None:
    """A thread that gets no connection in time is told to come again, in our words."""
    pool = db.database.obj
    pool._max_connections, pool._wait_timeout = 1, 0.05
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            with db.connected():
                db.checked_connection()
        except Unavailable as error:
            errors.append(error)

    with db.connected():
        db.checked_connection()
        in_thread(ask)

    assert [type(error) for error in errors] == [db.DatabaseAway]


def in_thread(deed: Callable[[], None]) -> None:
    thread = threading.Thread(target=deed)
    thread.start()
    wait_until(lambda: not thread.is_alive(), message="the thread to end")


def test_a_connection_that_could_not_be_made_ready_is_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might have another time zone, or wait for locks without end."""
    pool = db.database.obj
    pool.close_all()
    prepare, tries = type(pool)._initialize_connection, []

    def fails_once(self: object, connection: object) -> None:
        tries.append(connection)
        if len(tries) == 1:
            raise RuntimeError("the server did not take a setting")
        prepare(self, connection)

    monkeypatch.setattr(type(pool), "_initialize_connection", fails_once)
    with pytest.raises(RuntimeError):
        db.checked_connection()

    db.checked_connection()
    assert len(set(map(id, tries))) == len(tries) == 2


def test_what_is_busy_is_not_tried_for_longer_than_a_caller_waits(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that each try waits for in vain ends the call with the first try after 5 s."""
    monkeypatch.setattr(db, "RETRIED_FOR_S", 0.0)
    tries: list[int] = []

    @db.retried
    def busy() -> None:
        tries.append(1)
        raise db.Contended

    with pytest.raises(db.Contended):
        busy()

    assert len(tries) == 1
