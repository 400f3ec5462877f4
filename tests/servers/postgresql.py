"""A private PostgreSQL server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from tests.servers.programs import Server, as_user, free_port, missing, owned_by, program

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
SMART_STOP = signal.SIGINT  # PostgreSQL's fast shutdown: it does not wait for clients


def pg(name: str) -> str:
    """The full path of one of PostgreSQL's own programs."""
    found = program(name, folders=_FOLDERS)
    if found is None:
        missing(f"PostgreSQL ({name})")
    return found


def run_as_postgres(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs to its end; they refuse to be root."""
    command = [*as_user("postgres"), pg(name), *arguments]
    done = subprocess.run(command, capture_output=True, cwd="/", text=True, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr}"


class PostgreSQL:
    """A cluster with one superuser, `postgres`, trusted on loopback."""

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """A new cluster in `folder`; `durable`: commits reach the disk, as in production.

        `settings` go before those that all tests have.
        """
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        if os.getuid() == 0:
            owned_by(self.data, "postgres")
        self._fill()
        # fsync off: the machine may lose the tests' data.
        chosen = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.data),
            "fsync": "on" if durable else "off",
            "max_connections": "120",
            "shared_buffers": "64MB",
            # Every row that was ever written stays in the log, which is searched for secrets when
            # the session ends: tables are emptied and dropped long before.
            "wal_keep_size": "1GB",
            **(settings or {}),
        }
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        command = [*as_user("postgres"), pg("postgres"), "-D", str(self.data)]
        command += ["-p", str(self.port), *options]
        self.server = Server(command, folder / "log", cwd=Path("/"))

    def _fill(self) -> None:
        """Make the data folder of a new cluster."""
        words = ("--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8")
        run_as_postgres("initdb", "-D", str(self.data), *words)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.start(self._answers)

    def stop(self) -> None:
        """End it at once, with its connections."""
        self.server.stop(SMART_STOP)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """A DATABASE_URL for one of its databases."""
        return f"postgres://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def run(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside any transaction; the rows that it returns."""
        with closing(psycopg2.connect(self.url(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []

    @contextmanager
    def new_database(self, name: str) -> Iterator[str]:
        """An empty database for the block; its DATABASE_URL."""
        self.run(f'CREATE DATABASE "{name}"')
        try:
            yield self.url(name)
        finally:
            self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url()).close()
        except psycopg2.OperationalError:
            return False
        return True
