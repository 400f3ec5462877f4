"""A private OpenBao server, by the file that production has: config/openbao.hcl."""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import httpx
import hvac

from airavata_scheduler.backends.certificates import ensure_private_authority
from airavata_scheduler.commands.programs import openbao_program
from airavata_scheduler.models.errors import ConfigurationError
from tests.servers.programs import Server, as_user, free_port, missing
from tests.waiting import wait_until

SHARES, THRESHOLD = 3, 2
_ACTIVE = 200
_SEALED = 503
_ANSWERS_WITHIN_S = 5
_RESTORES_WITHIN_S = 60

CONFIGURATION = Path(__file__).parents[2] / "config" / "openbao.hcl"
STATIC_SEAL = """
seal "static" {
  current_key_id = "1"
  current_key    = "file:///openbao/seal.key"
}
"""


class OpenBao:
    """One node. With the static seal it unseals itself; with Shamir's, `start` and `unseal` do."""

    def __init__(self, folder: Path, *, seal: Literal["static", "shamir"] = "static") -> None:
        try:
            program = openbao_program()
        except ConfigurationError:
            missing("OpenBao (bao; pip install 'airavata-scheduler[local]')")
        self.port, cluster_port = free_port(), free_port()
        self.ca_file = folder / "certs" / "ca.pem"
        self.audit_files = [folder / "logs" / "audit-1.log", folder / "logs" / "audit-2.log"]
        self.root_token = ""
        self.keys: list[str] = []  # Shamir's, base64
        self._static = seal == "static"
        self._tries_its_key = False
        for name in ("file", "logs", "certs"):
            (folder / name).mkdir(parents=True)
        ensure_private_authority(folder / "certs", ["localhost", "127.0.0.1"])
        text = CONFIGURATION.read_text()
        if self._static:
            (folder / "seal.key").write_bytes(secrets.token_bytes(32))
            text += STATIC_SEAL
        configuration = folder / "openbao.hcl"
        configuration.write_text(here(text, folder, self.port, cluster_port))
        self.server = Server(
            [*as_user(), program, "server", f"-config={configuration}", "-log-level=warn"],
            folder / "log",
        )

    @property
    def address(self) -> str:
        """Its OPENBAO_ADDR."""
        return f"https://localhost:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings by which the scheduler reaches it, as root."""
        return {
            "OPENBAO_ADDR": self.address,
            "OPENBAO_TOKEN": self.root_token,
            "OPENBAO_CA_FILE": str(self.ca_file),
        }

    @contextmanager
    def client(self, token: str | None = None, timeout_s: int = _ANSWERS_WITHIN_S) -> Iterator[Any]:
        """A client for the block, with the root token or another; "" is no token."""
        client = hvac.Client(
            url=self.address,
            token=self.root_token if token is None else token,
            verify=str(self.ca_file),
            timeout=timeout_s,
        )
        try:
            yield client
        finally:
            client.adapter.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.server.pid

    def start(self) -> None:
        """Start it, on the same port each time; the first time it is initialised. Active after."""
        # Started before it is initialised, it tries its stored key once more after 5 s.
        self._tries_its_key = self._static and not self.root_token
        self.server.start(lambda: self.health() is not None)
        if not self.root_token:
            self._initialise()
        if not self._static:
            self.unseal()
        self._await_active()

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

    def seal(self) -> None:
        """Seal it: it listens, and answers each request with 503, until `unseal`."""
        if self._tries_its_key:
            self.stop()
            self.start()
        with self.client() as client:
            client.sys.seal()
        # It answers before it is done.
        wait_until(lambda: self.health() == _SEALED, message="OpenBao to be sealed")

    def unseal(self) -> None:
        """Unseal it: by its keys, or by a restart where the seal is static."""
        if self._static:
            self.stop()
            self.server.start(lambda: self.health() is not None)
        else:
            with self.client("") as client:
                for key in self.keys[:THRESHOLD]:
                    client.sys.submit_unseal_key(key)
        self._await_active()

    def save_snapshot(self) -> bytes:
        """All that it holds, as `restore_snapshot` takes it."""
        with self.client() as client:
            return bytes(client.sys.take_raft_snapshot().content)

    def restore_snapshot(self, snapshot: bytes) -> None:
        """Go back to what it held then; secrets that were written since are lost."""
        with self.client(timeout_s=_RESTORES_WITHIN_S) as client:
            client.sys.restore_raft_snapshot(snapshot)
            # It says that it is active meanwhile, and holds requests for about 5 s.
            client.auth.token.lookup_self()

    def health(self) -> int | None:
        """The status of sys/health (200 active, 501 not initialised, 503 sealed), None if away."""
        trust = ssl.create_default_context(cafile=str(self.ca_file))
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.address}/v1/sys/health", verify=trust, timeout=1).status_code
        return None

    def _initialise(self) -> None:
        shares = (
            {"recovery_shares": SHARES, "recovery_threshold": THRESHOLD}
            if self._static
            else {"secret_shares": SHARES, "secret_threshold": THRESHOLD}
        )
        with self.client("") as client:
            made = client.adapter.put("/v1/sys/init", json=shares)
        self.root_token = made["root_token"]
        self.keys = made["keys_base64"]

    def _await_active(self) -> None:
        wait_until(lambda: self.health() == _ACTIVE, message="OpenBao to be active")


def here(text: str, folder: Path, port: int, cluster_port: int, **others: str) -> str:
    """The configuration `text` of production, for a folder and ports of this machine.

    `others` are more of such pairs: what the text has, and what stands for it here.
    """
    places = {
        **others,
        "/openbao/certs/openbao.": f"{folder}/certs/server.",
        "/openbao/": f"{folder}/",
        "0.0.0.0:8200": f"127.0.0.1:{port}",
        "0.0.0.0:8201": f"127.0.0.1:{cluster_port}",
        "https://openbao:8200": f"https://localhost:{port}",
        "https://openbao:8201": f"https://127.0.0.1:{cluster_port}",
    }
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found.group()], text)
