"""The systems under measurement: `local` on SQLite, and server, daemon and worker on PostgreSQL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg2

from airavata_scheduler.backends import openbao_setup
from airavata_scheduler.backends.openbao_http import Server
from airavata_scheduler.client.api import Client
from airavata_scheduler.models.configuration import Configuration
from benchmarks.cost import processes_of
from benchmarks.plain_sql import postgresql_rate, sqlite_rate
from tests.acceptance.deployment import Deployment
from tests.acceptance.system import ROOT, LocalSystem
from tests.servers.openbao import OpenBao
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import running, server_folder
from tests.servers.redis import Redis
from tests.servers.spicedb import SpiceDB

COMPUTE = "bench"
WORKER = "bench-worker"
REQUESTS_PER_MINUTE = "1000000"  # one client sends everything; the limit is no part of the question


@dataclass(frozen=True, kw_only=True)
class System:
    """A system that runs, a client of it, and the plain SQL on its kind of database."""

    name: str
    folder: Path
    client: Client
    environment: dict[str, str]  # of the user's commands
    plain_rate: Callable[[int], float]
    rebuild: Callable[[int], int] | None = None  # with so many more people; how many relationships


@contextmanager
def on_sqlite(folder: Path) -> Iterator[System]:
    """`airavata-scheduler local`."""
    system = LocalSystem(folder=folder)
    system.start()
    try:
        with Client(environ=system.environment) as client:
            yield System(
                name="SQLite",
                folder=folder,
                client=client,
                environment=system.environment,
                plain_rate=partial(sqlite_rate, _database_of(system.home), folder),
            )
    finally:
        system.stop()
        _end_leftovers(folder)


@contextmanager
def on_postgresql(folder: Path) -> Iterator[System]:
    """`server`, `daemon` and `worker` beside a PostgreSQL that waits for its disk, and a Redis."""
    with (
        server_folder("bench-postgresql") as place,
        running(PostgreSQL(place, durable=True)) as postgresql,
        running(Redis(folder / "redis")) as redis,
        postgresql.new_database("airavata") as url,
        postgresql.new_database("plain") as plain_url,
        postgresql.new_database("spicedb") as store,
        running(SpiceDB(folder / "spicedb", postgres_url=store)) as spicedb,
        running(OpenBao(place / "openbao")) as openbao,
    ):
        schema = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", plain_url, "-f"]
        subprocess.run([*schema, str(ROOT / "db" / "schema.sql")], check=True, capture_output=True)
        settings = {
            "DATABASE_URL": url,
            "REDIS_URL": redis.url,
            "JWT_SECRET_KEY": "0123456789abcdef0123456789abcdef",
            "MAX_REQUESTS_PER_MINUTE": REQUESTS_PER_MINUTE,
            **spicedb.settings,
            **_set_up(openbao),
        }
        made = Deployment(folder=folder, settings=settings)
        try:
            _furnish(made)
            environment = dict(made.environment)
            with Client(environ=environment) as client:
                yield System(
                    name="PostgreSQL",
                    folder=folder,
                    client=client,
                    environment=environment,
                    plain_rate=partial(postgresql_rate, plain_url),
                    rebuild=partial(_rebuild, made, url),
                )
        finally:
            made.end_all()
            _end_leftovers(folder)


_PEOPLE = """
INSERT INTO users (id, name, is_admin, created_at, updated_at)
SELECT gen_random_uuid(), 'someone-' || number, FALSE, 0, 0 FROM generate_series(1, %s) AS number
"""


def _rebuild(made: Deployment, url: str, people: int) -> int:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(_PEOPLE, (people,))
        connection.commit()
    found = re.search(r"holds (\d+) relationships", made.run("authz", "rebuild").stdout)
    if found is None:
        raise RuntimeError("the rebuild did not say what it did")
    return int(found[1])


def _set_up(openbao: OpenBao) -> dict[str, str]:
    """Make what the scheduler needs in OpenBao; the settings by which it is reached."""
    server = Server.of(Configuration.read(openbao.settings, dotenv=None))
    with openbao.client() as root:
        openbao_setup.set_up(root, server)
    return openbao.settings


def _database_of(home: Path) -> Path:
    return next(home.glob("*.db"))


def _furnish(made: Deployment) -> None:
    """An administrator, a project, a compute resource, and a worker that is let in."""
    made.run("db", "upgrade")
    made.start("server")
    made.start("daemon")
    made.wait_until_it_answers()
    link = made.run("admin", "bootstrap").stdout.strip()
    for command in (
        ("auth", "bootstrap", link, "--user", "ada"),
        ("project", "create", "bench", "--use"),
        ("resource", "compute", "create", COMPUTE, "--kind", "BARE_METAL"),
    ):
        done = made.airavata(*command)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    made.start("worker", made.worker_environment(WORKER, COMPUTE))
    made.approve(WORKER)
    made.wait_for_worker(WORKER)


def _end_leftovers(folder: Path) -> None:
    """The shepherd outlives its agent on purpose; here nothing is to be taken up again."""
    for pid in processes_of(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
