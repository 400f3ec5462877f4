"""The schema: the files, a migrated database and the models say the same."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import migrations, schema
from airavata_scheduler.models.database_url import Dialect
from airavata_scheduler.models.errors import ConfigurationError, Unavailable
from airavata_scheduler.models.tables import TABLES
from tests.servers import mariadb
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import program

ALL = [migration.name for migration in migrations.MIGRATIONS]
DB_FOLDER = Path(__file__).parents[2] / "db"

_POSTGRESQL_SHAPE = {
    "columns": """
        SELECT table_name, column_name, ordinal_position, data_type, character_maximum_length,
               is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public'""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
}
_MYSQL_SHAPE = {
    "columns": """
        SELECT table_name, column_name, ordinal_position, column_type, collation_name,
               is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = DATABASE()""",
    "indexes": """
        SELECT table_name, index_name, seq_in_index, column_name, non_unique, collation
        FROM information_schema.statistics WHERE table_schema = DATABASE()""",
    "constraints": """
        SELECT table_name, column_name, constraint_name, referenced_table_name
        FROM information_schema.key_column_usage WHERE table_schema = DATABASE()""",
}


def shape(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that information_schema knows about the tables at `url`."""
    db.connect(url)
    try:
        queries = _POSTGRESQL_SHAPE if db.dialect() == "postgresql" else _MYSQL_SHAPE
        return {name: sorted(db.execute(sql), key=repr) for name, sql in queries.items()}
    finally:
        db.disconnect()


def upgraded(url: str) -> str:
    db.connect(url)
    migrations.upgrade()
    db.disconnect()
    return url


@pytest.mark.parametrize(("dialect", "name"), list(schema.FILES.items()))
def test_the_committed_files_are_the_models(dialect: Dialect, name: str) -> None:
    """db/ is up to date; `make schema` writes it."""
    assert (DB_FOLDER / name).read_text(encoding="utf-8") == schema.ddl(dialect)


@pytest.fixture
def guides_database(postgres_server: PostgreSQL) -> Iterator[None]:
    """The guide's role and its empty database; other tests of the server make the role, too."""
    postgres_server.run("CREATE ROLE airavata LOGIN")
    postgres_server.run("CREATE DATABASE airavata_scheduler OWNER airavata")
    yield
    db.disconnect()
    postgres_server.run("DROP DATABASE airavata_scheduler WITH (FORCE)")
    postgres_server.run("DROP ROLE airavata")


@pytest.mark.usefixtures("guides_database")
def test_psql_loads_the_file_as_the_guide_says(postgres_server: PostgreSQL) -> None:
    """`psql -U airavata -d airavata_scheduler -f db/schema.sql` as the database's owner."""
    psql = program("psql", folders=sorted(Path("/usr/lib/postgresql").glob("*/bin")))
    assert psql is not None

    subprocess.run(
        [psql, "-U", "airavata", "-d", "airavata_scheduler", "-f", DB_FOLDER / "schema.sql"],
        check=True,
        capture_output=True,
        env={**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(postgres_server.port)},
    )

    with postgres_server.new_database("migrated") as url:
        loaded = postgres_server.url("airavata_scheduler", user="airavata")
        assert shape(loaded) == shape(upgraded(url))
    db.connect(loaded)
    migrations.check()
    assert migrations.upgrade() == []
    assert 0 <= db.now_ms() - db.execute("SELECT applied_at FROM schema_version")[0][0] < 60_000
    db.disconnect()


def test_psql_loads_nothing_into_a_database_that_is_not_empty(postgres_server: PostgreSQL) -> None:
    """A name that is taken stops the load with an error, and nothing of it stays."""
    psql = program("psql", folders=sorted(Path("/usr/lib/postgresql").glob("*/bin")))
    assert psql is not None
    with postgres_server.new_database("taken") as url:
        postgres_server.run("CREATE TABLE tasks (id int)", database="taken")

        loading = subprocess.run(
            [psql, url, "-f", DB_FOLDER / "schema.sql"], check=False, capture_output=True, text=True
        )

        assert loading.returncode == 3
        assert '"tasks" already exists' in loading.stderr
        db.connect(url)
        assert db.database.get_tables() == ["tasks"]
        db.disconnect()


def test_mysql_loads_the_file_as_the_guide_says(mariadb_server: MariaDB) -> None:
    """`mysql -u airavata -p airavata_scheduler < db/schema.mysql.sql`."""
    client = program("mysql", "mariadb")
    assert client is not None
    with (
        mariadb_server.new_database("airavata_scheduler") as loaded,
        mariadb_server.new_database("migrated") as url,
    ):
        with (DB_FOLDER / "schema.mysql.sql").open("rb") as text:
            subprocess.run(
                [
                    *(client, "--no-defaults", "-u", mariadb.USER, f"-p{mariadb.PASSWORD}"),
                    *("-h", "127.0.0.1", "-P", str(mariadb_server.port), "airavata_scheduler"),
                ],
                check=True,
                capture_output=True,
                stdin=text,
            )

        found = shape(loaded)
        assert found == shape(upgraded(url))
        collations = {row[4] for row in found["columns"]} - {None}
        assert collations in ({"utf8mb4_nopad_bin"}, {"utf8mb4_0900_bin"})  # MariaDB's, MySQL's
        db.connect(loaded)
        migrations.check()
        assert migrations.upgrade() == []
        db.disconnect()


def test_the_database_has_the_models_columns(fresh_database: str) -> None:
    """Every table and column of the models is there and no other, NULL where the model says so."""
    tables = {table._meta.table_name: table for table in TABLES}

    assert set(db.database.get_tables()) == set(tables)
    for name, table in tables.items():
        expected = {(field.column_name, field.null) for field in table._meta.sorted_fields}
        found = {(column.name, column.null) for column in db.database.get_columns(name)}
        assert found == expected, name


def test_the_database_has_the_models_indexes(fresh_database: str) -> None:
    """Every index is there by its name."""
    for table in TABLES:
        found = {index.name for index in db.database.get_indexes(table._meta.table_name)}
        assert {index.name for index in table.INDEXES} <= found


def test_a_table_comes_after_those_that_it_references() -> None:
    """TABLES can be created in its order, and names each table once."""
    seen: set[str] = set()
    for table in TABLES:
        assert set(table.REFERENCES.values()) <= seen
        seen.add(table._meta.table_name)

    assert len(seen) == len(TABLES)


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_no_name_is_too_long(dialect: Dialect) -> None:
    """PostgreSQL cuts names off after 63 characters; two would then collide."""
    names = [word.strip('"`(),;') for word in schema.ddl(dialect).split() if word[0] in '"`']

    assert max(map(len, names)) <= 63


def test_an_empty_database_is_refused_with_the_next_step(database_url: str) -> None:
    """`check` says which command to run."""
    db.connect(database_url)

    with pytest.raises(ConfigurationError, match=r"empty: run `airavata-scheduler db upgrade`"):
        migrations.check()


def test_a_newer_database_is_refused(fresh_database: str) -> None:
    """Neither `check` nor `upgrade` touches what a newer program made."""
    db.change("INSERT INTO schema_version (version, name, applied_at) VALUES (99, 'later', 0)")

    for refused in (migrations.check, migrations.upgrade):
        with pytest.raises(ConfigurationError, match=r"version 99, made by a newer program"):
            refused()


def test_an_older_database_is_upgraded_step_by_step(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` asks for the upgrade; `upgrade` runs what is missing, in order, once."""
    ran: list[int] = []
    now = schema.VERSION
    later = tuple(
        migrations.Migration(version=step, name=f"step_{step}", apply=partial(ran.append, step))
        for step in (now + 1, now + 2)
    )
    monkeypatch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS + later)
    monkeypatch.setattr(schema, "VERSION", now + 2)

    with pytest.raises(
        ConfigurationError, match=rf"version {now} and this program needs {now + 2}"
    ):
        migrations.check()

    assert migrations.upgrade() == [f"step_{now + 1}", f"step_{now + 2}"]
    assert migrations.upgrade() == []
    assert ran == [now + 1, now + 2]
    migrations.check()


def test_a_migration_that_fails_is_not_recorded(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next upgrade tries again, and the lock is free for it."""

    def fail() -> None:
        raise ZeroDivisionError

    now = schema.VERSION
    broken = migrations.Migration(version=now + 1, name="broken", apply=fail)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            migrations.upgrade()
    assert migrations.version() == now


def test_the_newest_migration_is_the_schemas_version() -> None:
    """Numbers rise by one from 1 to the version that the code speaks."""
    numbers = [migration.version for migration in migrations.MIGRATIONS]

    assert numbers == list(range(1, schema.VERSION + 1))


def test_a_first_upgrade_that_was_cut_off_goes_on(mariadb_url: str) -> None:
    """MySQL commits each table: what is there already is kept, the rest is created."""
    db.connect(mariadb_url)
    for statement in schema.statements("mysql")[:5]:
        db.execute(statement)

    assert migrations.upgrade() == ALL
    migrations.check()


def test_two_replicas_upgrade_at_once(database_url: str) -> None:
    """Both return without an error, and one of them did the work."""
    script = (
        "import sys; from airavata_scheduler.models import database, migrations;"
        "database.connect(sys.argv[1]); print(migrations.upgrade())"
    )
    command = [sys.executable, "-c", script, database_url]
    replicas = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    answers = sorted(replica.communicate(timeout=60)[0].strip() for replica in replicas)

    assert answers == [str(ALL), "[]"]


@pytest.mark.parametrize("kind", ["postgres_url", "mariadb_url"])
def test_a_replica_that_waits_too_long_for_the_other_says_so(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one upgrades, the other does nothing, and gives up with a sentence."""
    db.connect(request.getfixturevalue(kind))
    monkeypatch.setattr(migrations, "LOCK_WAIT_S", 1)
    said: list[str] = []

    def second() -> None:
        try:
            migrations.upgrade()
        except Unavailable as error:
            said.append(error.detail)

    with db.connected(), migrations._alone():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(30)

    assert said == ["Another process is upgrading the database and has not finished; wait for it."]
    assert migrations.upgrade() == ALL


_TRUST_COLUMNS = {
    "users": ("kind", "totp", "totp_since", "totp_step"),
    "logins": ("method",),
    "outbox": ("object_kind", "object_id", "revokes"),
    "audit": ("seq", "hash"),
    "compute_resources": ("endpoint",),
}
_TRUST_INDEXES = {
    "outbox": ("outbox_waiting",),
    "audit": ("audit_actor", "audit_seq", "audit_unsealed"),
}
_OLD_ROWS = (
    "INSERT INTO users (id, name, is_admin, state, version, email, full_name, created_at, "
    "updated_at) VALUES ('{id}', 'ada', TRUE, 'active', 1, '', '', 1, 1)",
    "INSERT INTO logins (id, user_id, refresh_hash, rotated_at, generation, created_at, "
    "expires_at, user_agent, address) VALUES ('{id}', '{id}', 'h', 1, 1, 1, 2, '', '')",
    "INSERT INTO audit (id, at, actor_kind, actor_id, action, object_kind, object_id, "
    "request_id, address, detail) VALUES ('{id}', 1, 'user', 'a', 'create', 'user', 'b', '', '', "
    "'{{}}')",
    "INSERT INTO outbox (id, kind, payload, created_at) "
    "VALUES ('{id}', 'relation', '{{\"updates\": []}}', 1)",
)


def made_older() -> None:
    """Turn a database of this version into one of version 1, without rows."""
    for table in reversed(TABLES):
        if table.__module__.endswith("tables_trust"):
            db.execute(f'DROP TABLE "{table._meta.table_name}"')
    for name, indexes in _TRUST_INDEXES.items():
        on = f' ON "{name}"' if db.dialect() == "mysql" else ""
        for index in indexes:
            db.execute(f'DROP INDEX "{index}"{on}')
    for name, columns in _TRUST_COLUMNS.items():
        for column in columns:
            db.execute(f'ALTER TABLE "{name}" DROP COLUMN "{column}"')
    db.execute("DELETE FROM schema_version WHERE version > 1")


def test_version_1_becomes_version_2(
    database_url: str, database_kind: str, request: pytest.FixtureRequest
) -> None:
    """Rows stay, but for what stood in the outbox; the shape is a fresh one's, order apart."""
    row_id = "01a21a00-0000-7000-8000-000000000001"
    upgraded(database_url)
    fresh = _columns(database_url)
    db.connect(database_url)
    made_older()
    for sql in _OLD_ROWS:
        db.execute(sql.format(id=row_id))

    assert migrations.upgrade() == ["trust"]
    migrations.check()

    assert db.execute("SELECT name, kind, totp FROM users") == [("ada", "person", None)]
    assert db.execute("SELECT method FROM logins") == [("password",)]
    assert db.execute("SELECT action, seq FROM audit") == [("create", None)]
    assert db.execute("SELECT COUNT(*) FROM outbox") == [(0,)]
    db.disconnect()
    assert _columns(database_url) == fresh


def _columns(url: str) -> dict[str, tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]]:
    """Each table's columns with their types, and its indexes with their columns."""
    db.connect(url)
    found: dict[str, tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]] = {
        name: (
            {
                (column.name, column.data_type, column.null, column.primary_key)
                for column in db.database.get_columns(name)
            },
            {(index.name, index.unique, *index.columns) for index in db.database.get_indexes(name)},
        )
        for name in db.database.get_tables()
    }
    db.disconnect()
    return found
