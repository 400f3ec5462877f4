"""OpenBao: wraps small values with its transit key, so that SQL holds ciphertext alone."""

from __future__ import annotations

import base64
from typing import Any

import hvac
import hvac.exceptions
import requests

from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import Unavailable

_ANSWERS_WITHIN_S = 5.0


class Secrets:
    """The transit engine of one OpenBao, by a token."""

    def __init__(self, config: Configuration) -> None:
        self._path = config.openbao_transit_path
        self._key = config.openbao_transit_key
        self._client = hvac.Client(
            url=config.openbao_addr,
            token=config.openbao_token,
            verify=str(config.openbao_ca_file) if config.openbao_ca_file else True,
            timeout=_ANSWERS_WITHIN_S,
        )

    def wrap(self, plain: bytes, context: str) -> str:
        """The ciphertext of `plain`, bound to `context`. Raises Unavailable."""
        answer = self._ask("encrypt", plaintext=_text(plain), associated_data=_text(context))
        return str(answer["ciphertext"])

    def unwrap(self, wrapped: str, context: str) -> bytes:
        """The plain value of `wrap`, with the same `context`. Raises Unavailable."""
        answer = self._ask("decrypt", ciphertext=wrapped, associated_data=_text(context))
        return base64.b64decode(answer["plaintext"])

    def _ask(self, verb: str, **body: str) -> dict[str, Any]:
        try:
            answer = self._client.write_data(f"{self._path}/{verb}/{self._key}", data=body)
        except (hvac.exceptions.VaultError, requests.RequestException):
            raise Unavailable(
                "The secret store cannot be asked now.",
                code="secrets_unavailable",
                hint="Operators: airavata-scheduler doctor",
                retry_after_s=5.0,
            ) from None
        found: dict[str, Any] = answer["data"]
        return found


def _text(value: str | bytes) -> str:
    plain = value if isinstance(value, bytes) else value.encode()
    return base64.b64encode(plain).decode("ascii")


_here: list[Secrets] = []


def configure(config: Configuration) -> None:
    """Set which OpenBao this process asks."""
    _here[:] = [Secrets(config)]


def secrets() -> Secrets:
    """The OpenBao of this process."""
    return _here[0]
