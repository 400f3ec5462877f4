"""A private PostgreSQL server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2

from tests.servers.programs import Server, as_user, free_port, missing, owned_by, program

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
SMART_STOP = signal.SIGINT  # PostgreSQL's fast shutdown: it does not wait for clients


class PostgreSQL:
    """A cluster with one superuser, `postgres`, trusted on loopback."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """A new cluster in `folder`; `durable`: commits reach the disk, as in production."""
        initdb, postgres = (program(name, folders=_FOLDERS) for name in ("initdb", "postgres"))
        if initdb is None or postgres is None:
            missing("PostgreSQL (initdb, postgres)")
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        if os.getuid() == 0:
            owned_by(self.data, "postgres")
        subprocess.run(
            [
                *(*as_user("postgres"), initdb, "-D", str(self.data), "--no-sync"),
                *("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
        )
        # fsync off: the machine may lose the tests' data.
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.data),
            "fsync": "on" if durable else "off",
            "max_connections": "120",
            "shared_buffers": "64MB",
            # Every row that was ever written stays in the log, which is searched for secrets when
            # the session ends: tables are emptied and dropped long before.
            "wal_keep_size": "1GB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.server = Server(
            [*as_user("postgres"), postgres, "-D", str(self.data), "-p", str(self.port), *options],
            folder / "log",
            cwd=Path("/"),
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.start(self._answers)

    def stop(self) -> None:
        """End it at once, with its connections."""
        self.server.stop(SMART_STOP)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """A DATABASE_URL for one of its databases."""
        return f"postgres://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def run(self, sql: str, database: str = "postgres") -> None:
        """Run one statement outside any transaction."""
        with closing(psycopg2.connect(self.url(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)

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
