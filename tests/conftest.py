"""Fixtures that every test may use: private servers, and a database of each kind.

`database_url` and `fresh_database` run a test once for each database. The servers start on first
use and end with the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from airavata_scheduler.backends import openbao_setup
from airavata_scheduler.backends.openbao_http import Server
from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.models import database as db
from airavata_scheduler.models import migrations
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.tables import TABLES
from tests.canaries import leaks
from tests.servers.mariadb import MariaDB
from tests.servers.openbao import OpenBao
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import running, server_folder
from tests.servers.redis import Redis
from tests.servers.spicedb import SpiceDBTesting

DATABASES = ("sqlite", "postgresql", "mariadb")
_numbers = count(1)


@pytest.fixture(scope="session", autouse=True)
def no_secret_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end no file of any test has a canary in it: databases, logs, journals, answers."""
    yield
    found = leaks([tmp_path_factory.getbasetemp()])
    assert found == [], f"a secret was written down: {found}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQL]:
    """A private PostgreSQL server for the session."""
    with server_folder("postgresql") as folder, running(PostgreSQL(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """A private MariaDB server for the session."""
    with server_folder("mariadb") as folder, running(MariaDB(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A private Redis server for the session."""
    with server_folder("redis") as folder, running(Redis(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def spicedb_testing_server() -> Iterator[SpiceDBTesting]:
    """A private SpiceDB for the session, in which each key has a store of its own."""
    with server_folder("spicedb") as folder, running(SpiceDBTesting(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def openbao_server() -> Iterator[OpenBao]:
    """A private OpenBao for the session, unsealed; what earlier tests left in it is still there."""
    with server_folder("openbao") as folder, running(OpenBao(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def secrets_settings(
    openbao_server: OpenBao, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The settings by which the scheduler logs in to the session's OpenBao, which is set up."""
    where = {"OPENBAO_ADDR": openbao_server.address, "OPENBAO_CA_FILE": str(openbao_server.ca_file)}
    server = Server.of(Configuration.read(where, dotenv=None))
    file = tmp_path_factory.mktemp("secrets") / "secret-id"
    with openbao_server.client() as root:
        role_id = openbao_setup.set_up(root, server).role_id
        write_whole(file, openbao_setup.wrapped_secret_id(root).encode(), 0o600)
    return {**where, "OPENBAO_ROLE_ID": role_id, "OPENBAO_SECRET_ID_FILE": str(file)}


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The REDIS_URL of the session's server; what earlier tests left in it is still there."""
    return redis_server.url


@pytest.fixture
def postgres_url(postgres_server: PostgreSQL) -> Iterator[str]:
    """The DATABASE_URL of an empty PostgreSQL database of this test."""
    with postgres_server.new_database(f"test_{next(_numbers)}") as url:
        yield url
        db.disconnect()


@pytest.fixture
def mariadb_url(mariadb_server: MariaDB) -> Iterator[str]:
    """The DATABASE_URL of an empty MariaDB database of this test."""
    with mariadb_server.new_database(f"test_{next(_numbers)}") as url:
        yield url
        db.disconnect()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    """The DATABASE_URL of an SQLite file of this test, not made yet."""
    yield f"sqlite:///{tmp_path / 'airavata.db'}"
    db.disconnect()


@pytest.fixture(params=DATABASES)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on; it runs once for each."""
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database_kind: str) -> str:
    """The DATABASE_URL of an empty database, without tables; the test runs once for each kind."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mariadb": "mariadb_url"}
    return str(request.getfixturevalue(name[database_kind]))


@pytest.fixture(scope="session")
def kept_postgres_url(postgres_server: PostgreSQL) -> Iterator[str]:
    """A PostgreSQL database that keeps its tables from test to test."""
    with postgres_server.new_database("kept") as url:
        yield with_tables(url)


@pytest.fixture(scope="session")
def kept_mariadb_url(mariadb_server: MariaDB) -> Iterator[str]:
    """A MariaDB database that keeps its tables from test to test."""
    with mariadb_server.new_database("kept") as url:
        yield with_tables(url)


@pytest.fixture
def fresh_database(request: pytest.FixtureRequest, database_kind: str) -> Iterator[str]:
    """All tables without rows, bound and connected; the DATABASE_URL. Runs once for each kind.

    Another database than that of `database_url`. Making tables costs half a second on a server:
    they are kept, and emptied before each test, not after it.
    """
    name = {
        "sqlite": "sqlite_url",
        "postgresql": "kept_postgres_url",
        "mariadb": "kept_mariadb_url",
    }
    url = str(request.getfixturevalue(name[database_kind]))
    if database_kind == "sqlite":
        with_tables(url)
    db.connect(url)
    empty_tables()
    yield url
    db.disconnect()


def with_tables(url: str) -> str:
    """Make the tables in the database at `url`."""
    db.connect(url)
    migrations.upgrade()
    db.disconnect()
    return url


def empty_tables() -> None:
    """Delete every row but the record of the schema itself."""
    with db.transaction():
        for table in reversed(TABLES):
            table.delete().execute()
        for migration in migrations.MIGRATIONS:
            migrations.record(migration.version, migration.name)
