"""OpenBao over HTTP: one bounded call, and one meaning for everything that can go wrong.

hvac speaks to OpenBao; its exceptions can carry addresses, bodies and tokens, so they end here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import hvac
import hvac.exceptions
import requests
from requests.adapters import HTTPAdapter

from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import Unavailable

CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 5.0
TRY_FOR_S: Final = 4.0  # while a cluster chooses a leader
PAUSE_S: Final = 0.2
CONNECTIONS: Final = 64  # kept open by one process at most: API_THREADS and some

_R = TypeVar("_R")


class SecretsUnavailable(Unavailable):
    """OpenBao, which keeps the secrets, cannot be asked now."""

    code = "secrets_unavailable"


class SecretsRefused(Unavailable):
    """OpenBao refuses the scheduler's own token, or what it asks for."""

    code = "secrets_refused"


class CheckAndSetFailed(Exception):
    """Another version was written than the one that the caller had seen."""


class NothingThere(Exception):
    """OpenBao has nothing at this path."""


class TokenLost(Exception):
    """403: the token is not valid any more, or its policy does not name the path."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where OpenBao is and what it is called there; no secret in it."""

    address: str
    ca_file: str | None
    credentials: str
    transit: str
    key: str
    ssh: str

    @classmethod
    def of(cls, configuration: Configuration) -> Server:
        """The server that the settings name."""
        ca_file = configuration.openbao_ca_file
        return cls(
            address=configuration.openbao_addr,
            ca_file=str(ca_file) if ca_file is not None else None,
            credentials=configuration.openbao_credentials_path.strip("/"),
            transit=configuration.openbao_transit_path.strip("/"),
            key=configuration.openbao_transit_key,
            ssh=configuration.openbao_ssh_path.strip("/"),
        )

    def client(self, token: str | None) -> hvac.Client:
        """A client with this token, or with none."""
        session = requests.Session()
        session.trust_env = False  # no proxy and no .netrc between us and the secrets
        session.verify = self.ca_file or True
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
        if self.address.startswith("https:"):
            # A standby may send us to the leader, with our token: never to one without TLS.
            del session.adapters["http://"]
        return hvac.Client(
            url=self.address,
            # With None hvac takes whatever lies in VAULT_TOKEN or ~/.vault-token.
            token=token or "",
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),  # type: ignore[arg-type] # as requests has it
            session=session,
            allow_redirects=True,
        )


def call(work: Callable[[], _R], *, repeat: bool = True) -> _R:
    """Run one call of hvac's; with `repeat`, again for a few seconds while a leader is chosen.

    Raises SecretsUnavailable, SecretsRefused, TokenLost, CheckAndSetFailed, NothingThere.
    """
    deadline = time.monotonic() + TRY_FOR_S
    while True:
        try:
            return work()
        except (hvac.exceptions.VaultError, requests.RequestException, OSError) as error:
            passing = repeat and _is_passing(error)
            if not passing or time.monotonic() + PAUSE_S > deadline:
                raise _meaning(error) from None
        time.sleep(PAUSE_S)


def _is_passing(error: Exception) -> bool:
    """The one predicate of what is tried again: a lost connection, or a cluster without leader."""
    if isinstance(error, requests.ConnectionError):
        return not isinstance(error, requests.exceptions.SSLError)
    if isinstance(error, hvac.exceptions.VaultDown):
        return not _is_sealed(error)
    if isinstance(error, hvac.exceptions.InvalidRequest):
        # A KV engine that was just made says so for half a second.
        return "upgrading from non-versioned" in _said(error)
    # "active cluster node not found" and its like are 500.
    return isinstance(error, hvac.exceptions.InternalServerError | hvac.exceptions.BadGateway)


def _is_sealed(error: hvac.exceptions.VaultError) -> bool:
    return "sealed" in _said(error)


def _said(error: hvac.exceptions.VaultError) -> str:
    """What OpenBao said, in lower case; read here and shown nowhere."""
    return " ".join(map(str, error.errors or ())).lower()


def _meaning(error: Exception) -> Exception:
    """What a failure of hvac's or of the connection means for us."""
    if isinstance(error, requests.exceptions.SSLError):
        return unverified()
    if not isinstance(error, hvac.exceptions.VaultError):
        return away()
    if isinstance(error, hvac.exceptions.InvalidPath | hvac.exceptions.InvalidRequest):
        return _meaning_of_request(error)
    if isinstance(error, hvac.exceptions.Forbidden | hvac.exceptions.Unauthorized):
        return TokenLost()
    is_sealed = isinstance(error, hvac.exceptions.VaultDown) and _is_sealed(error)
    return sealed() if is_sealed else failing()


def _meaning_of_request(error: hvac.exceptions.VaultError) -> Exception:
    if "check-and-set" in _said(error):
        return CheckAndSetFailed()
    # An engine that is not mounted is no empty path.
    nothing = isinstance(error, hvac.exceptions.InvalidPath) and "no handler" not in _said(error)
    return NothingThere() if nothing else request_refused()


def sealed() -> SecretsUnavailable:
    """The error for an OpenBao that is there and cannot open its own store."""
    return SecretsUnavailable(
        "OpenBao, which keeps the secrets, is sealed.",
        hint="The operator unseals it; what needs no secret goes on.",
        retry_after_s=10.0,
    )


def not_initialised() -> SecretsUnavailable:
    """The error for an OpenBao that was started and never initialised."""
    return SecretsUnavailable(
        "OpenBao, which keeps the secrets, is not initialised.",
        hint="The operator initialises it: bao operator init (docs/operations.md).",
        retry_after_s=30.0,
    )


def unverified() -> SecretsUnavailable:
    """The error for a server whose certificate no authority of ours signed."""
    return SecretsUnavailable(
        "OpenBao's certificate cannot be verified.",
        hint="The operator sets OPENBAO_CA_FILE to the authority that signed it.",
        retry_after_s=30.0,
    )


def away() -> SecretsUnavailable:
    """The error where nothing answers, or not in time."""
    return SecretsUnavailable(
        "OpenBao, which keeps the secrets, cannot be reached.",
        hint="Try again in a moment; what needs no secret goes on.",
        retry_after_s=3.0,
    )


def failing() -> SecretsUnavailable:
    """The error for a cluster without leader, or a server that answers 5xx."""
    return SecretsUnavailable(
        "OpenBao, which keeps the secrets, has no leader or fails to answer.",
        hint="Try again in a moment; if it lasts, OpenBao's own log says why.",
        retry_after_s=3.0,
    )


def request_refused() -> SecretsRefused:
    """The error for a request that OpenBao does not understand or cannot fulfil."""
    return SecretsRefused(
        "OpenBao refuses a request of the scheduler's.",
        hint="The operator looks into it: airavata-scheduler secrets check",
        retry_after_s=30.0,
    )


def token_refused() -> SecretsRefused:
    """The error for a token that OpenBao takes no more, where no other can be had."""
    return SecretsRefused(
        "OpenBao refuses the scheduler's token: it has ended or was revoked.",
        hint="The operator sets a new OPENBAO_TOKEN, or OPENBAO_ROLE_ID, and starts again.",
        retry_after_s=30.0,
    )


def role_refused() -> SecretsRefused:
    """The error for an AppRole login that is refused."""
    return SecretsRefused(
        "OpenBao refuses the scheduler's AppRole.",
        hint="The operator makes a new wrapped secret id for OPENBAO_SECRET_ID_FILE.",
        retry_after_s=30.0,
    )


def policy_lacks() -> SecretsRefused:
    """The error for a token that is good, and may not do this."""
    return SecretsRefused(
        "OpenBao takes the scheduler's token, but its policy does not allow this.",
        hint="The operator compares: airavata-scheduler secrets check",
        retry_after_s=30.0,
    )
