"""A database in trouble, seen by an agent: nothing is lost or done twice, and it ends by itself.

Whoever asks meanwhile is told in time to come again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pymysql
import pytest

from airavata_scheduler.backends import projection
from airavata_scheduler.backends.stores import ensure_default_storage
from airavata_scheduler.functions.app import create_app
from airavata_scheduler.models import database as db
from airavata_scheduler.models import drivers, migrations
from airavata_scheduler.models.database_url import read_database_url
from tests.api import Answered, Api, Caller, configuration
from tests.servers.full_disk import FullDisk
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import server_folder
from tests.servers.spicedb import SpiceDBTesting
from tests.waiting import wait_until
from tests.wire_agent import Wire, completed
from tests.work import sweep

TASKS = 3
ROLE, PASSWORD = "scheduler", "p:a ss@word"  # what the scheduler logs in as: nothing special
Server = PostgreSQL | MariaDB


@dataclass
class Site:
    """A deployment on a server of its own role, and its agent, which holds three leases."""

    server: Server
    database: str
    wire: Wire
    leases: list[str]

    def report(self, *leases: str) -> Answered:
        """Report success for each."""
        body = {"items": [completed(lease) for lease in leases], "claim": None}
        return self.wire.call("POST", "/reports", body)

    def told(self, *leases: str) -> dict[str, str]:
        """The verdicts of a report that is answered."""
        items = self.wire.report(*[completed(lease) for lease in leases])
        return {item["lease"]: item["verdict"] for item in items}

    def all_is_well(self) -> None:
        """What was not acknowledged is told once more; then each task has one result."""
        assert set(self.told(*self.leases).values()) <= {"accepted", "duplicate"}
        ended = db.execute("SELECT task_id, outcome FROM attempts")
        assert len(ended) == len({task for task, _ in ended}) == TASKS
        assert db.execute("SELECT completed, leased, running FROM nodes") == [(TASKS, 0, 0)]

    def connection(self) -> Any:
        """A connection of somebody else, in a transaction."""
        if isinstance(self.server, PostgreSQL):
            return closing(psycopg2.connect(self.server.url(self.database)))
        root = pymysql.connect(unix_socket=str(self.server.socket), user="root")
        root.select_db(self.database)
        return closing(root)


@pytest.fixture(params=["postgres_server", "mariadb_server"])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, spicedb_testing_server: SpiceDBTesting
) -> Iterator[Site]:
    """It, on each server."""
    server: Server = request.getfixturevalue(request.param)
    with on(server, tmp_path, spicedb_testing_server) as made:
        yield made


@contextmanager
def on(server: Server, folder: Path, spicedb: SpiceDBTesting) -> Iterator[Site]:
    """A site on this server."""
    with plain_role(server) as url:
        db.connect(url)
        migrations.upgrade()
        config = configuration(url, folder, SPICEDB_ENDPOINT=spicedb.endpoint)
        ensure_default_storage(config)
        app = create_app(config)
        projection.rebuild()
        app.testing = False  # errors become answers, as in production
        wire = Wire.enrolled(Api(app=app, config=config, nobody=Caller(client=app.test_client())))
        wire.submit(sweep("1..3"))
        leases = [lease["lease"] for lease in wire.claim(TASKS)["leases"]]
        assert len(leases) == TASKS
        yield Site(server, read_database_url(url).name, wire, leases)
        db.disconnect()


@contextmanager
def plain_role(server: Server) -> Iterator[str]:
    """A new database that belongs to a role without any right beyond it; its DATABASE_URL."""
    if isinstance(server, PostgreSQL):
        server.run(f"CREATE ROLE {ROLE} LOGIN")
        server.run(f"CREATE DATABASE trouble OWNER {ROLE}")
        try:
            yield server.url("trouble", user=ROLE)
        finally:
            server.run("DROP DATABASE trouble WITH (FORCE)")
            server.run(f"DROP ROLE {ROLE}")
        return
    server.run(f"CREATE USER {ROLE}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    server.run("CREATE DATABASE trouble")
    server.run(f"GRANT ALL ON trouble.* TO {ROLE}@'127.0.0.1'")
    try:
        yield f"{ROLE}:{PASSWORD}@tcp(127.0.0.1:{server.port})/trouble?parseTime=true"
    finally:
        server.run("DROP DATABASE trouble")
        server.run(f"DROP USER {ROLE}@'127.0.0.1'")


def refuses(answer: Answered) -> None:
    """The caller is told to come again, and nothing of the database's own words."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json["code"] in ("database_away", "database_lost", "database_busy")
    assert "Traceback" not in answer.text
    assert "psycopg2" not in answer.text
    assert "pymysql" not in answer.text


@contextmanager
def read_only(server: Server) -> Iterator[None]:
    """The server takes no writes, as one that is being moved, or was demoted."""
    if isinstance(server, PostgreSQL):
        server.run("ALTER SYSTEM SET default_transaction_read_only = on")
        reload(server, "default_transaction_read_only", "on")
        try:
            yield
        finally:
            server.run("ALTER SYSTEM RESET default_transaction_read_only")
            reload(server, "default_transaction_read_only", "off")
        return
    server.run("SET GLOBAL read_only = 1")
    try:
        yield
    finally:
        server.run("SET GLOBAL read_only = 0")


def reload(server: PostgreSQL, name: str, value: str) -> None:
    """Let the server read its settings again, and wait until it has."""
    server.run("SELECT pg_reload_conf()")
    wait_until(lambda: server.run(f"SHOW {name}") == [(value,)], message=f"{name} = {value}")


def test_a_server_that_takes_no_writes(site: Site) -> None:
    """Calls are refused while it lasts; no connection to such a server is kept for later."""
    with read_only(site.server):
        made = db.database.obj.made
        refuses(site.report(*site.leases))
        refuses(site.report(*site.leases))

        assert db.database.obj.made > made + 1

    site.all_is_well()


@contextmanager
def few_connections(server: Server) -> Iterator[None]:
    """The server allows no more than ten or so."""
    if isinstance(server, PostgreSQL):
        server.run(f"ALTER ROLE {ROLE} CONNECTION LIMIT 10")
        yield
        return
    server.run("SET GLOBAL max_connections = 10")
    try:
        yield
    finally:
        server.run("SET GLOBAL max_connections = 120")


def take_every_connection(server: Server, stack: ExitStack) -> None:
    """Others use up all that the server allows, until the stack is left."""
    while True:
        try:
            taken = connect_as_role(server)
        except (psycopg2.OperationalError, pymysql.err.OperationalError):
            return
        stack.enter_context(closing(taken))


def connect_as_role(server: Server) -> Any:
    """One more connection of the plain role."""
    if isinstance(server, PostgreSQL):
        return psycopg2.connect(server.url("trouble", user=ROLE))
    return pymysql.connect(
        host="127.0.0.1", port=server.port, user=ROLE, password=PASSWORD, database="trouble"
    )


def test_a_storm_of_connections(site: Site) -> None:
    """Who has a connection goes on with it; who needs a new one is refused, at once."""
    first, second, third = site.leases
    with few_connections(site.server), ExitStack() as stack:
        take_every_connection(site.server, stack)
        assert site.told(first) == {first: "accepted"}
        db.disconnect()
        take_every_connection(site.server, stack)
        before_s = time.monotonic()

        refuses(site.report(second, third))

        assert time.monotonic() - before_s < 5.0
    site.all_is_well()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for 5 s in production takes one."""
    monkeypatch.setattr(drivers, "LOCK_TIMEOUT_S", 1)
    monkeypatch.setattr(db, "RETRIED_FOR_S", 0.5)


def lock(connection: Any, table: str, **where: str) -> None:
    """Lock a row, and keep it until the connection ends."""
    ((column, value),) = where.items()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT id FROM {table} WHERE {column} = %s FOR UPDATE", [value])


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("request_of", ["report", "start", "heartbeat", "release"])
def test_one_task_that_somebody_holds_locked(site: Site, request_of: str) -> None:
    """The others of the request are answered; it is left out, and told when the lock is gone."""
    stuck, *others = site.leases
    wire = site.wire
    deeds: dict[str, Callable[[], object]] = {
        "report": lambda: site.told(*site.leases),
        "start": lambda: {line["lease"]: "ok" for line in wire.start(*site.leases)},
        "heartbeat": lambda: wire.heartbeat(
            deltas=[{"lease": lease, "phase": "running"} for lease in site.leases]
        )["leases"],
        "release": lambda: {
            line["lease"]: line["verdict"]
            for line in wire.ok("POST", "/leases/release", {"leases": site.leases})["items"]
        },
    }
    wanted: dict[str, object] = {
        "report": dict.fromkeys(others, "accepted"),
        "start": dict.fromkeys(others, "ok"),
        "heartbeat": [],
        "release": dict.fromkeys(others, "released"),
    }
    with site.connection() as other:
        # Whoever has locked a task asks for it by its id.
        lock(other, "tasks", id=stuck.partition(".")[0])
        found = deeds[request_of]()
    assert found == wanted[request_of]
    if request_of == "release":
        site.leases = [stuck, *(lease["lease"] for lease in wire.claim(TASKS)["leases"])]
    site.all_is_well()


@pytest.mark.usefixtures("short_waits")
def test_a_session_waits_for_a_task_that_somebody_holds_locked(site: Site) -> None:
    """All leases move to the new session, or none; what goes on needs no new one."""
    with site.connection() as other:
        lock(other, "tasks", id=site.leases[0].partition(".")[0])

        refuses(site.wire.call("POST", "/session", site.wire.session_body()))

        site.wire.heartbeat(full=[{"lease": lease, "phase": "running"} for lease in site.leases])
    site.all_is_well()


@pytest.mark.usefixtures("short_waits")
def test_an_experiment_that_somebody_holds_locked(site: Site) -> None:
    """Its counters cannot be changed: nothing of it is answered, and other experiments go on."""
    (node,) = db.execute("SELECT id FROM nodes")
    site.wire.submit(sweep("1..1"))
    (other_lease,) = [lease["lease"] for lease in site.wire.claim(TASKS)["leases"]]
    with site.connection() as other:
        lock(other, "nodes", id=node[0])
        found = site.told(*site.leases, other_lease)

    assert found == {other_lease: "accepted"}
    assert set(site.told(*site.leases).values()) == {"accepted"}


def test_a_stricter_time_limit_of_the_role_stays(postgres_server: PostgreSQL) -> None:
    """What its operator says of the role, or in the address, goes before ours."""
    asked = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
    with plain_role(postgres_server) as url:
        found = []
        for role_has, more in (("0", ""), ("2s", ""), ("2min", ""), ("0", OWN_LIMIT)):
            postgres_server.run(f"ALTER ROLE {ROLE} SET statement_timeout = '{role_has}'")
            db.connect(url + more)
            found += db.execute(asked)
        db.disconnect()

    assert found == [("1min", "5s"), ("2s", "5s"), ("1min", "5s"), ("2min", "5s")]


OWN_LIMIT = "&options=-c%20statement_timeout%3D2min"


def test_a_statement_that_takes_too_long(site: Site) -> None:
    """It is cancelled, and the caller told to come again."""
    if isinstance(site.server, PostgreSQL):
        site.server.run(f"ALTER ROLE {ROLE} SET statement_timeout = '200ms'")
    else:
        site.server.run("SET GLOBAL max_statement_time = 0.2")
    db.database.obj.close_idle()
    try:
        with site.connection() as other:
            lock(other, "tasks", id=site.leases[0].partition(".")[0])
            refuses(site.report(*site.leases))
    finally:
        if isinstance(site.server, PostgreSQL):
            site.server.run(f"ALTER ROLE {ROLE} RESET statement_timeout")
        else:
            site.server.run("SET GLOBAL max_statement_time = 0")
    db.database.obj.close_idle()
    site.all_is_well()


@pytest.mark.campaign
@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_a_full_disk(
    kind: type[Server],
    tmp_path: Path,
    spicedb_testing_server: SpiceDBTesting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What needs room is refused, also again and again; when there is room it is taken in.

    MariaDB may end itself on the way, and its supervisor starts it again.
    """
    with server_folder("full-disk") as folder:
        disk, server = FullDisk(folder), kind(folder / "server")
        with monkeypatch.context() as patch:
            for name, value in disk.environment.items():
                patch.setenv(name, value)
            server.start()
        try:
            with on(server, tmp_path, spicedb_testing_server) as site:
                large = {"noise": secrets.token_urlsafe(45_000)}
                reports = [completed(lease, result=large) for lease in site.leases]
                with disk.filled():
                    for _ in range(3):
                        refuses(
                            site.wire.call("POST", "/reports", {"items": reports, "claim": None})
                        )
                if isinstance(server, MariaDB):  # it ends itself where a roll-back finds no room
                    server.stop()
                    server.start()
                assert {line["verdict"] for line in site.wire.report(*reports)} == {"accepted"}
        finally:
            server.stop()
