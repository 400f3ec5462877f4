"""Enrolment tokens: how an agent gets in, once, within fifteen minutes, at one compute resource."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from airavata_scheduler.backends.certificates import public_key_pin
from airavata_scheduler.functions import audit
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.ids import new_secret, secret_digest
from airavata_scheduler.models.tables import EnrolmentToken

PREFIX: Final = "ase_"  # found by secret scanners
TTL_S: Final = 15 * 60


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """An enrolment token; only its hash is stored. `expires_at` in ms since the epoch."""

    token: str
    expires_at: int


def new_enrolment_token(
    compute_id: str, *, created_by: str, agent_name: str | None = None
) -> NewToken:
    """Make a token for one agent of this compute resource, optionally only of this name."""
    token = new_secret(PREFIX)
    with transaction():
        now = now_ms()
        expires_at = now + TTL_S * 1000
        EnrolmentToken.insert(
            token_hash=secret_digest(token),
            compute_id=compute_id,
            agent_name=agent_name,
            created_by=created_by,
            created_at=now,
            expires_at=expires_at,
        ).execute()
        audit.append("enrolment_token", "compute_resource", compute_id, actor_id=created_by)
    return NewToken(token=token, expires_at=expires_at)


def install_line(config: Configuration, resource: str, token: str) -> str:
    """The one line that installs and starts an agent.

    The token goes by the environment of `sh`, never as an argument, which every user of the machine
    could read. Where the server's certificate is from a private CA, curl trusts exactly its key.
    """
    curl = "curl -fsSL"
    if config.agent_ca_file is not None and config.agent_cert_file is not None:
        pin = public_key_pin(config.agent_cert_file.read_bytes())
        curl = f"curl -fsSLk --pinnedpubkey 'sha256//{pin}'"
    address = shlex.quote(config.agent_url.rstrip("/") + "/install.sh")
    return (
        f"{curl} {address} | "
        f"AIRAVATA_ENROLMENT_TOKEN={token} sh -s -- --resource {shlex.quote(resource)}"
    )
