"""A private Redis server."""

from __future__ import annotations

import socket
from pathlib import Path

import redis

from tests.canaries import redis_contents
from tests.servers.programs import Server, as_user, free_port, missing, program


class Redis:
    """A server that keeps nothing on disk: Redis holds no truth here."""

    def __init__(self, folder: Path) -> None:
        daemon = program("redis-server", "valkey-server")
        if daemon is None:
            missing("Redis (redis-server)")
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.contents = folder / "contents"
        self.server = Server(
            [
                *(*as_user(), daemon, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            ],
            folder / "log",
        )

    @property
    def url(self) -> str:
        """Its REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.start(self._answers)

    def stop(self) -> None:
        """End it; what it held is written to its folder, which is searched for secrets."""
        if self._answers():
            with redis.Redis.from_url(self.url) as client:
                self.contents.write_bytes(redis_contents(client))
        self.server.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
