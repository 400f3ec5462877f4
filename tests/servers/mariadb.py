"""A private MariaDB server."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql

from tests.servers.programs import Server, as_user, free_port, missing, owned_by, program

USER, PASSWORD = "airavata", "a:pass@word/ with?signs"


class MariaDB:
    """A server with one all-powerful user, reached over TCP with a password full of signs."""

    def __init__(self, folder: Path, *options: str) -> None:
        """A new server in `folder`; `options` go before those that all tests have."""
        install = program("mariadb-install-db", "mysql_install_db")
        daemon = program("mariadbd")
        if install is None or daemon is None:
            missing("MariaDB (mariadbd, mariadb-install-db)")
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        if os.getuid() == 0:
            owned_by(self.data, "mysql")
        subprocess.run(
            [
                *(*as_user("mysql"), install, "--no-defaults", f"--datadir={self.data}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
        )
        self.socket = self.data / "s"
        self.server = Server(
            [
                *as_user("mysql"),
                daemon,
                "--no-defaults",
                f"--datadir={self.data}",
                # Its own: a server that starts deletes the temporary tables that it finds there.
                f"--tmpdir={self.data}",
                f"--port={self.port}",
                f"--socket={self.socket}",
                "--bind-address=127.0.0.1",
                f"--pid-file={self.data}/pid",
                "--innodb-buffer-pool-size=64M",
                "--innodb-flush-log-at-trx-commit=2",  # the machine may lose the tests' data
                # Rows that were deleted stay in the log, which is searched for secrets at the end.
                "--innodb-log-file-size=512M",
                "--skip-log-bin",
                "--skip-name-resolve",
                "--max-connections=120",
                *options,
            ],
            folder / "log",
            cwd=Path("/"),
        )

    def start(self) -> None:
        """Start it, wait until it answers, and see that its user exists."""
        self.server.start(self._answers)
        self.run(f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        self.run(f"GRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION")

    def stop(self) -> None:
        """End it."""
        self.server.stop()

    def url(self, database: str) -> str:
        """A DATABASE_URL (the guide's Go-MySQL form) for one of its databases."""
        return f"{USER}:{PASSWORD}@tcp(127.0.0.1:{self.port})/{database}?parseTime=true"

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement as the server's root; the rows that it returns."""
        root = closing(pymysql.connect(unix_socket=str(self.socket), user="root"))
        with root as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    @contextmanager
    def new_database(self, name: str) -> Iterator[str]:
        """An empty database for the block; its DATABASE_URL."""
        self.run(f"CREATE DATABASE `{name}`")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE IF EXISTS `{name}`")

    def _answers(self) -> bool:
        # Not by the driver: where a connect fails it leaves its socket open, which is a warning.
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self.socket))
                return bool(client.recv(16))
        except OSError:
            return False
