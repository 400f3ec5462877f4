"""What the search at the end of a session finds, long after a table was emptied and dropped."""

from __future__ import annotations

import psycopg2
import pymysql
import pytest
import redis

from airavata_scheduler.models.ids import new_id
from tests.canaries import leaks
from tests.servers import programs
from tests.servers.mariadb import PASSWORD, USER, MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import running, server_folder
from tests.servers.redis import Redis

ROWS = 300


def planted() -> str:
    """Another word than the session's: what is planted here is no leak."""
    return f"planted{new_id()}"


@pytest.mark.parametrize("server_kind", ["postgresql", "mariadb"])
def test_a_row_that_was_deleted_is_found(request: pytest.FixtureRequest, server_kind: str) -> None:
    """The logs of the servers keep it, whatever became of table and database."""
    word, name = planted(), f"canaries_{server_kind}"
    server: PostgreSQL | MariaDB = request.getfixturevalue(
        {"postgresql": "postgres_server", "mariadb": "mariadb_server"}[server_kind]
    )
    with server.new_database(name):
        connection = (
            psycopg2.connect(server.url(name))
            if isinstance(server, PostgreSQL)
            else pymysql.connect(
                host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, database=name
            )
        )
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE secrets (text VARCHAR(200))")
            cursor.execute("INSERT INTO secrets VALUES (%s)", (word,))
            connection.commit()
            cursor.execute("DELETE FROM secrets")
            cursor.executemany("INSERT INTO secrets VALUES (%s)", [("x" * 200,)] * ROWS)
            connection.commit()
        connection.close()

    assert leaks([server.data], word) != []


def test_a_key_of_redis_is_found() -> None:
    """A Redis that keeps nothing on disk writes down what it held when it ends."""
    word = planted()
    with server_folder("redis") as folder:
        with running(Redis(folder)) as server, redis.Redis.from_url(server.url) as client:
            client.hset("a", "b", word)
        assert leaks([folder], word) == [f"{folder / 'contents'}: in clear"]


def test_a_server_that_wrote_a_secret_down_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name of the file, before the folder is gone."""
    word = planted()
    monkeypatch.setattr(programs, "leaks", lambda paths: leaks(paths, word))

    with (
        pytest.raises(AssertionError, match="demo has written a secret down") as failed,
        server_folder("demo") as folder,
    ):
        (folder / "log").write_text(f"a password: {word}")

    assert f"{folder / 'log'}: in clear" in str(failed.value)
