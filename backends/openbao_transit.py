"""OpenBao's transit key: it wraps, and never leaves OpenBao."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.backends.openbao_http import SecretsRefused, Server
from airavata_scheduler.backends.openbao_login import LoggedIn
from airavata_scheduler.models.fields import canonical_json


@dataclass(kw_only=True)
class Transit:
    """Wrapping and unwrapping by the key of OPENBAO_TRANSIT_KEY."""

    server: Server
    session: LoggedIn = field(repr=False)

    def wrap(self, plain: bytes, context: str) -> str:
        """`plain` encrypted by the transit key, good for `context` only: it may lie anywhere."""
        envelope = canonical_json({"context": context, "plain": _base64(plain)})
        return self.encrypted(envelope)

    def unwrap(self, text: str, context: str) -> bytes:
        """What `wrap` was given. Raises SecretsRefused for other text or another context."""
        envelope = json.loads(self.decrypted(text))
        if envelope.get("context") != context:
            raise SecretsRefused
        return base64.b64decode(envelope["plain"])

    def rewrap_text(self, text: str) -> str:
        """The same, encrypted by the newest version of the transit key."""
        return str(self._transit("rewrap", ciphertext=text)["ciphertext"])

    def encrypted(self, plain: str) -> str:
        """`plain` as ciphertext of the newest version of the key."""
        made = self._transit("encrypt", plaintext=_base64(plain.encode()))
        return str(made["ciphertext"])

    def decrypted(self, text: str) -> bytes:
        """What is in a ciphertext. Raises SecretsRefused where the key does not open it."""
        return base64.b64decode(self._transit("decrypt", ciphertext=text)["plaintext"])

    def _transit(self, deed: str, **fields: str) -> dict[str, Any]:
        path = f"/v1/{self.server.transit}/{deed}/{self.server.key}"
        made: dict[str, Any] = self.session.do(
            lambda client: client.adapter.post(path, json=fields)
        )
        data: dict[str, Any] = made["data"]
        return data


def key_version_of(wrapped: str) -> int:
    """Which version of the transit key made this ciphertext: `vault:v3:…`."""
    return int(wrapped.split(":", 2)[1].removeprefix("v"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
