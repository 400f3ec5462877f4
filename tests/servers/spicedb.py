"""A private SpiceDB."""

from __future__ import annotations

from pathlib import Path

from tests.servers.programs import Server, as_user, free_port, listens, missing, program

CACHE = Path.home() / ".cache" / "airavata-scheduler" / "bin"


class SpiceDBTesting:
    """`spicedb serve-testing`: each key has an empty store of its own."""

    def __init__(self, folder: Path) -> None:
        daemon = program("spicedb") or next(map(str, sorted(CACHE.glob("spicedb@*"))), None)
        if daemon is None:
            missing("SpiceDB (spicedb)")
        self.port = free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        self.server = Server(
            [
                *(*as_user(), daemon, "serve-testing", "--grpc-addr", self.endpoint),
                *("--http-enabled=false", "--readonly-grpc-enabled=false"),
            ],
            folder / "log",
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.start(lambda: listens(self.port))

    def stop(self) -> None:
        """End it."""
        self.server.stop()
