"""The private OpenBao of `airavata-scheduler local`: laid out, started, and set up once.

It unseals itself with a key of the state folder. The root token is used for the set-up and revoked;
what stays is the AppRole by which the API and the daemon log in, and the recovery key: it makes
another root token where a later version of the scheduler wants to set up more.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import shutil
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from airavata_scheduler.backends.openbao_http import Server, call
from airavata_scheduler.backends.openbao_setup import (
    OPERATOR_POLICY,
    POLICY,
    ROLE,
    policy_text,
    set_up,
)
from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.commands.local_home import LocalHome
from airavata_scheduler.commands.programs import openbao_program
from airavata_scheduler.models.errors import ConfigurationError, Unavailable

SET_UP = "1"  # another number, and what is set up here beside the policies is set up again
_SEAL_KEY_BYTES = 32
_PROBE_TIMEOUT_S = 1.0
_CALL_TIMEOUT_S = 20.0
_ACTIVE_WITHIN_S = 30.0
_POLL_S = 0.02

# It runs in its folder, and every path is relative: the state folder may be moved. The audit
# devices' text is kept in its store, and must be the same at each start.
_CONFIGURATION = """\
storage "raft" {{
  path                   = "raft"
  node_id                = "local"
  performance_multiplier = 1
}}

listener "tcp" {{
  address         = "{host}:{port}"
  cluster_address = "{host}:{cluster_port}"
  tls_cert_file   = "../tls/server.pem"
  tls_key_file    = "../tls/server.key"

  # With the recovery key, 0600 in secrets/, `local` makes a root token for a new set-up.
  disable_unauthed_generate_root_endpoints = false
}}

seal "static" {{
  current_key_id = "1"
  current_key    = "file://../secrets/openbao-seal-key"
}}

api_addr     = "https://{host}:{port}"
cluster_addr = "https://{host}:{cluster_port}"

audit "file" "one" {{
  options {{
    file_path = "audit-1.log"
  }}
}}

audit "file" "two" {{
  options {{
    file_path = "audit-2.log"
  }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class PrivateOpenBao:
    """The OpenBao of one state folder, on the ports of this start."""

    home: LocalHome
    host: str
    port: int
    cluster_port: int

    def lay_out(self) -> None:
        """Write its key, once, and its configuration.

        Raises ConfigurationError where there is a store whose key was lost.
        """
        raft = self.home.openbao / "raft"
        if not self.home.openbao_seal_key.is_file():
            if raft.exists():
                raise ConfigurationError(
                    f"{self.home.openbao_seal_key} is missing: without it nobody can read the "
                    f"secrets in {raft}.",
                    hint="Put it back from your backup, or move that folder away to begin anew.",
                )
            key = secrets.token_bytes(_SEAL_KEY_BYTES)
            write_whole(self.home.openbao_seal_key, key, 0o600)
        if not self.home.openbao_recovery_key.exists() and not self._mark.exists():
            # A first start that was killed: initialised or not, nobody has a key to it.
            shutil.rmtree(raft, ignore_errors=True)
        raft.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = _CONFIGURATION.format(host=self.host, port=self.port, cluster_port=self.cluster_port)
        write_whole(self.home.openbao / "openbao.hcl", text.encode(), 0o600)

    def command(self) -> list[str]:
        """Its command line, for the folder `home.openbao`."""
        return [openbao_program(), "server", "-config=openbao.hcl"]

    def is_ready(self) -> bool:
        """Whether it is unsealed and active, or waits to be initialised."""
        return self._health() in (HTTPStatus.OK, HTTPStatus.NOT_IMPLEMENTED)

    def set_up(self) -> None:
        """Initialise it and make what the scheduler needs, unless that was done before."""
        root_token = None
        if self._health() == HTTPStatus.NOT_IMPLEMENTED:
            root_token = self._initialise()
        text = _set_up_text(self._server)
        if self._mark.is_file() and self._mark.read_text("ascii") == text:
            return
        client = self._server.client(root_token or self._new_root_token())
        try:
            set_up(client, self._server)
            # Chosen, so that the settings of the other children are known before this is done.
            role = f"/v1/auth/approle/role/{ROLE}"
            call(lambda: client.adapter.post(f"{role}/role-id", json={"role_id": ROLE}))
            if not self.home.openbao_secret_id.is_file():
                made = call(lambda: client.adapter.post(f"{role}/secret-id", json={}), repeat=False)
                secret_id = made["data"]["secret_id"].encode()
                write_whole(self.home.openbao_secret_id, secret_id, 0o600)
        finally:
            call(client.auth.token.revoke_self)
            client.adapter.close()
        write_whole(self._mark, text.encode(), 0o600)

    @property
    def _mark(self) -> Path:
        return self.home.openbao / "set-up"

    def _initialise(self) -> str:
        """Initialise it and keep the recovery key; the root token, which is kept nowhere."""
        shares = {"recovery_shares": 1, "recovery_threshold": 1}
        with self._client() as client:
            made = _call(client, "PUT", "sys/init", shares)
        recovery_key = made["recovery_keys_base64"][0].encode()
        write_whole(self.home.openbao_recovery_key, recovery_key, 0o600)
        deadline = time.monotonic() + _ACTIVE_WITHIN_S
        while self._health() != HTTPStatus.OK:
            if time.monotonic() > deadline:
                raise Unavailable("OpenBao was initialised and does not become active.")
            time.sleep(_POLL_S)
        return str(made["root_token"])

    def _new_root_token(self) -> str:
        if not self.home.openbao_recovery_key.is_file():
            raise ConfigurationError(
                f"{self.home.openbao_recovery_key} is missing: OpenBao's set-up cannot be renewed.",
                hint="Put it back from your backup.",
            )
        key = self.home.openbao_recovery_key.read_text("ascii")
        attempt = "sys/generate-root/attempt"
        with self._client() as client:
            _call(client, "DELETE", attempt)
            begun = _call(client, "PUT", attempt, {})
            share = {"key": key, "nonce": begun["nonce"]}
            made = _call(client, "PUT", "sys/generate-root/update", share)
        encoded, pad = made["encoded_root_token"], begun["otp"].encode()
        masked = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
        return bytes(a ^ b for a, b in zip(masked, pad, strict=True)).decode()

    @property
    def _server(self) -> Server:
        """As the settings name it; the mounts and the key have their default names."""
        return Server(
            address=f"https://{self.host}:{self.port}",
            ca_file=str(self.home.tls / "ca.pem"),
            credentials="credentials",
            transit="transit",
            key="credentials",
            ssh="ssh",
        )

    def _client(self, timeout_s: float = _CALL_TIMEOUT_S) -> httpx.Client:
        trust = ssl.create_default_context(cafile=str(self.home.tls / "ca.pem"))
        base = f"https://{self.host}:{self.port}/v1/"
        return httpx.Client(base_url=base, verify=trust, trust_env=False, timeout=timeout_s)

    def _health(self) -> int | None:
        with suppress(httpx.TransportError), self._client(_PROBE_TIMEOUT_S) as client:
            return client.get("sys/health").status_code
        return None


def _call(
    client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What OpenBao answers. Raises Unavailable with what it says against it, never with a key."""
    try:
        answer = client.request(method, path, json=body)
    except httpx.TransportError as error:
        raise Unavailable(f"OpenBao did not answer {method} {path}: {error}") from error
    if answer.is_error:
        raise Unavailable(f"OpenBao refused {method} {path}: {answer.text[:300]}")
    return dict(answer.json()) if answer.content else {}


def _set_up_text(server: Server) -> str:
    """What tells one set-up from another: a later version of the scheduler sets up again."""
    policies = "".join(policy_text(server, name) for name in (POLICY, OPERATOR_POLICY))
    return hashlib.sha256(f"{SET_UP}\n{policies}".encode()).hexdigest()
