"""Private SpiceDB servers: one for many tests at once, and one as it is in production."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import Any, Final

import grpc
from authzed.api.v1 import InsecureClient, ReadSchemaRequest, SyncClient
from grpcutil import bearer_token_credentials

from airavata_scheduler.backends.certificates import ensure_private_authority
from airavata_scheduler.commands.programs import spicedb_program
from airavata_scheduler.models.errors import ConfigurationError
from tests.servers.programs import Server, as_user, free_port, missing

_ANSWERS_WITHIN_S = 1.0
# What says that the server and its store work; an empty store has no schema.
_ANSWERS: Final = (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)


class _Program:
    """What both kinds have: a process, its endpoint, and whether it answers."""

    def __init__(self, folder: Path) -> None:
        try:
            self.program = spicedb_program()
        except ConfigurationError:
            missing("SpiceDB (spicedb; deploy/spicedb.sh builds it)")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.ca_file: Path | None = None
        self.token = secrets.token_hex(16)
        self.server: Server

    @property
    def endpoint(self) -> str:
        """Its SPICEDB_ENDPOINT."""
        return f"localhost:{self.port}" if self.ca_file else f"127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings by which the scheduler reaches it."""
        return {
            "SPICEDB_ENDPOINT": self.endpoint,
            "SPICEDB_TOKEN": self.token,
            "SPICEDB_INSECURE": "false" if self.ca_file else "true",
            "SPICEDB_CA_FILE": str(self.ca_file or ""),
        }

    def client(self, token: str | None = None) -> Any:
        """A client of the `authzed` library; `token` is another preshared key than its own."""
        key = token or self.token
        if self.ca_file is None:
            return InsecureClient(self.endpoint, key)
        return SyncClient(self.endpoint, bearer_token_credentials(key, self.ca_file.read_bytes()))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.server.pid

    def start(self) -> None:
        """Start it, on the same port each time, and wait until its store answers."""
        self.server.start(self.answers)

    def stop(self) -> None:
        """End it."""
        self.server.stop()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.server.kill()

    def freeze(self) -> None:
        """It is there, its port is open, and it says nothing."""
        self.server.freeze()

    def thaw(self) -> None:
        """Let it go on."""
        self.server.thaw()

    def answers(self) -> bool:
        """Whether its store can be read: a port that listens is not enough."""
        try:
            self.client().ReadSchema(ReadSchemaRequest(), timeout=_ANSWERS_WITHIN_S)
        except grpc.RpcError as error:
            return error.code() in _ANSWERS
        return True


class SpiceDBTesting(_Program):
    """`spicedb serve-testing`: each preshared key has an empty store of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = Server(
            [
                *(*as_user(), self.program, "serve-testing"),
                f"--grpc-addr=127.0.0.1:{self.port}",
                *("--http-enabled=false", "--readonly-grpc-enabled=false"),
                *("--readonly-http-enabled=false", "--skip-release-check", "--log-level=warn"),
            ],
            folder / "log",
        )

    def new_store(self) -> dict[str, str]:
        """The settings of an empty store that nobody else has."""
        return self.settings | {"SPICEDB_TOKEN": secrets.token_hex(16)}


class SpiceDB(_Program):
    """`spicedb serve`: one store, in memory or in PostgreSQL, and one preshared key."""

    def __init__(self, folder: Path, *, tls: bool = False, postgres_url: str | None = None) -> None:
        """`tls`: with a certificate of its own authority. In memory, a restart forgets all."""
        super().__init__(folder)
        store = ["--datastore-engine=memory"]
        environment = {"SPICEDB_GRPC_PRESHARED_KEY": self.token}
        if postgres_url is not None:
            store = ["--datastore-engine=postgres"]
            environment["SPICEDB_DATASTORE_CONN_URI"] = postgres_url
            self._migrate(postgres_url)
        self.server = Server(
            [
                *(*as_user(), self.program, "serve", *store),
                f"--grpc-addr=127.0.0.1:{self.port}",
                *(_tls_options(folder / "tls") if tls else ()),
                *("--http-enabled=false", "--metrics-enabled=false", "--telemetry-endpoint="),
                *("--skip-release-check", "--log-level=warn", "--grpc-shutdown-grace-period=1s"),
            ],
            folder / "log",
            environment=environment,
        )
        if tls:
            self.ca_file = folder / "tls" / "ca.pem"

    def _migrate(self, postgres_url: str) -> None:
        # Without it the server listens, and fails each call.
        subprocess.run(
            [
                *(self.program, "datastore", "migrate", "head", "--datastore-engine=postgres"),
                *(f"--datastore-conn-uri={postgres_url}", "--skip-release-check"),
            ],
            check=True,
            capture_output=True,
        )


def _tls_options(folder: Path) -> list[str]:
    ensure_private_authority(folder, ["localhost", "127.0.0.1"])
    return [
        f"--grpc-tls-cert-path={folder / 'server.pem'}",
        f"--grpc-tls-key-path={folder / 'server.key'}",
    ]
