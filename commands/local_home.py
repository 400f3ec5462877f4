"""The folder in which `airavata-scheduler local` keeps everything: $AIRAVATA_HOME.

secrets/             keys, each 0600: what signs tokens, SpiceDB's, and OpenBao's (seal, recovery,
                     and the scheduler's secret id)
tls/                 a private authority and the certificate of the agents' port
airavata.db          the SQL database (SQLite)
storage/             the default storage resource: artifacts, logs, blobs
openbao/             OpenBao: its configuration, its store, and its two audit logs
agent/               the state folder of the machine's own agent
logs/<child>.log     what each child says
run/                 the lock, the status file, Redis's socket
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.models.errors import ConfigurationError

_LONGEST_SOCKET_PATH = 100  # sockaddr_un holds 107 bytes


@dataclass(frozen=True, kw_only=True)
class LocalHome:
    """Where each file of one single-machine installation is."""

    root: Path

    @classmethod
    def from_environment(cls) -> LocalHome:
        """$AIRAVATA_HOME, else ~/.airavata; nothing is made yet."""
        named = os.environ.get("AIRAVATA_HOME", "")
        return cls(root=Path(named).expanduser().absolute() if named else Path.home() / ".airavata")

    def lay_out(self) -> None:
        """Make the folders (0700) and the keys (0600) where they are missing."""
        try:
            for folder in ("secrets", "tls", "storage", "openbao", "agent", "logs", "run"):
                (self.root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            self.redis_socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The state folder {self.root} cannot be made: {error.strerror}.",
                hint="Set AIRAVATA_HOME to a folder that you can write.",
            ) from None
        for name in ("jwt", "spicedb"):
            key = self.root / "secrets" / name
            if not key.is_file():
                write_whole(key, secrets.token_hex(32).encode(), 0o600)

    @property
    def database_url(self) -> str:
        """The SQLite file, as DATABASE_URL has it."""
        return f"sqlite:///{self.root / 'airavata.db'}"

    @property
    def jwt_secret(self) -> str:
        """The key that signs tokens."""
        return (self.root / "secrets" / "jwt").read_text(encoding="ascii")

    @property
    def spicedb_key(self) -> str:
        """SpiceDB's preshared key."""
        return (self.root / "secrets" / "spicedb").read_text(encoding="ascii")

    @property
    def openbao(self) -> Path:
        """The folder in which OpenBao runs."""
        return self.root / "openbao"

    @property
    def openbao_seal_key(self) -> Path:
        """The key by which OpenBao unseals itself."""
        return self.root / "secrets" / "openbao-seal-key"

    @property
    def openbao_recovery_key(self) -> Path:
        """What another root token of OpenBao's is made with."""
        return self.root / "secrets" / "openbao-recovery-key"

    @property
    def openbao_secret_id(self) -> Path:
        """By which the API and the daemon log in to OpenBao."""
        return self.root / "secrets" / "openbao-secret-id"

    @property
    def tls(self) -> Path:
        """The folder of the private authority."""
        return self.root / "tls"

    @property
    def storage(self) -> Path:
        """The folder of the default storage resource."""
        return self.root / "storage"

    @property
    def agent(self) -> Path:
        """The agent's state folder."""
        return self.root / "agent"

    @property
    def token_file(self) -> Path:
        """Where a fresh enrolment token waits for the agent."""
        return self.root / "secrets" / "enrolment-token"

    @property
    def redis_socket(self) -> Path:
        """Redis's socket; in the temporary folder where the path would be too long for one."""
        path = self.root / "run" / "redis.sock"
        if len(str(path)) <= _LONGEST_SOCKET_PATH:
            return path
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"airavata-{os.getuid()}-{digest}" / "redis.sock"

    def log(self, child: str) -> Path:
        """The log file of one child."""
        return self.root / "logs" / f"{child}.log"

    def lock(self) -> IO[str] | None:
        """Hold the folder for this process, or None where another supervisor has it."""
        file = (self.root / "run" / "lock").open("w", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace the status file in one step."""
        path = self.root / "run" / "status.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(status, indent=2), encoding="utf-8")
        temporary.replace(path)

    def read_status(self) -> dict[str, Any] | None:
        """What the last supervisor wrote, or None."""
        try:
            status: dict[str, Any] = json.loads(
                (self.root / "run" / "status.json").read_text(encoding="utf-8")
            )
        except (FileNotFoundError, ValueError):
            return None
        return status
