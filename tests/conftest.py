"""Fixtures that every test may use: private servers, and a database of each kind.

`database_url` and `fresh_database` run a test once for each database. The servers start on first
use and end with the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import migrations
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.redis import Redis

DATABASES = ("sqlite", "postgresql", "mariadb")
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A private PostgreSQL server for the session."""
    server = PostgreSQL(tmp_path_factory.mktemp("postgresql"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A private MariaDB server for the session."""
    server = MariaDB(tmp_path_factory.mktemp("mariadb"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A private Redis server for the session."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


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
def database_url(request: pytest.FixtureRequest) -> str:
    """The DATABASE_URL of an empty database; the test runs once for each kind."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mariadb": "mariadb_url"}
    return str(request.getfixturevalue(name[request.param]))


@pytest.fixture
def fresh_database(database_url: str) -> Iterator[str]:
    """An empty database with all tables, bound and connected; its DATABASE_URL."""
    with ExitStack() as stack:
        db.connect(database_url)
        stack.callback(db.disconnect)
        migrations.upgrade()
        yield database_url
