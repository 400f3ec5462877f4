"""The configuration: one typed object, read once from the environment and `.env`.

`settings.SETTINGS` lists every variable. A malformed value stops the start with one sentence that
names the variable.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airavata_scheduler.models.dotenv import read_dotenv
from airavata_scheduler.models.errors import AiravataError, ConfigurationError
from airavata_scheduler.models.settings import GUIDE_NAMES_READ_ELSEWHERE, SETTINGS, Setting

SAMPLE_JWT_SECRETS = frozenset(
    {"your-secret-key-change-this-in-production", "change-this-in-production"}
)
MINIMUM_JWT_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key as long as the hash


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Every setting, typed. Durations are float seconds (`…_s`), paths `Path` or None."""

    database_url: str
    server_port: int
    worker_interval_s: float
    jwt_secret_key: str
    jwt_access_token_ttl_s: float
    jwt_refresh_token_ttl_s: float
    rate_limit_enabled: bool
    max_requests_per_minute: int
    require_https: bool
    log_level: str
    spicedb_endpoint: str
    spicedb_token: str
    spicedb_insecure: bool
    openbao_addr: str
    openbao_token: str
    openbao_credentials_path: str
    openbao_transit_path: str
    openbao_transit_key: str
    spicedb_ca_file: Path | None
    openbao_ca_file: Path | None
    openbao_role_id: str
    openbao_secret_id_file: Path | None
    openbao_ssh_path: str
    oidc_issuer: str
    oidc_client_id: str
    oidc_client_secret: str
    oidc_scopes: str
    oidc_create_users: bool
    oidc_ca_file: Path | None
    server_host: str
    public_url: str
    redis_url: str
    storage_path: Path
    history_dir: Path | None
    trusted_proxies: int
    tls_cert_file: Path | None
    tls_key_file: Path | None
    api_groups: tuple[str, ...]
    agent_url: str
    agent_ca_file: Path | None
    agent_cert_file: Path | None
    api_workers: int
    api_threads: int
    api_connections: int
    queue_workers: int
    max_body_bytes: int
    max_upload_bytes: int
    max_experiment_tasks: int
    sweep_window: int
    retention_s: float
    heartbeat_s: float
    suspect_after_s: float
    requeue_after_s: float
    offer_ack_s: float
    outage_grace_s: float
    outbound_allow: tuple[str, ...]
    agent_file: Path | None

    @classmethod
    def read(
        cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")
    ) -> Configuration:
        """The configuration of `environ` (default: the process's), over the lines of `dotenv`.

        Raises ConfigurationError naming the variable, what is wrong and what is right.
        """
        texts = dict(read_dotenv(dotenv)) if dotenv is not None and dotenv.is_file() else {}
        _refuse_misspelt(texts)
        texts.update(os.environ if environ is None else environ)
        values = {setting.attribute: _read(setting, texts) for setting in SETTINGS}
        configuration = cls(**values)
        _check_together(configuration)
        if not configuration.public_url:
            scheme = "https" if configuration.tls_cert_file else "http"
            address = f"{scheme}://localhost:{configuration.server_port}"
            object.__setattr__(configuration, "public_url", address)
        if not configuration.agent_url:
            object.__setattr__(configuration, "agent_url", configuration.public_url)
        return configuration

    def require_jwt_secret(self) -> None:
        """Raise ConfigurationError unless JWT_SECRET_KEY can sign tokens.

        The guide's sample values are public, so they are refused wherever HTTPS is required.
        """
        if not self.jwt_secret_key:
            raise ConfigurationError(
                "JWT_SECRET_KEY is not set.",
                hint="Set it to 32 random bytes or more, for example: openssl rand -hex 32",
            )
        if len(self.jwt_secret_key.encode()) < MINIMUM_JWT_SECRET_BYTES and (
            self.jwt_secret_key not in SAMPLE_JWT_SECRETS
        ):
            raise ConfigurationError(
                f"JWT_SECRET_KEY has fewer than {MINIMUM_JWT_SECRET_BYTES} bytes.",
                hint="Set a longer one, for example: openssl rand -hex 32",
            )
        if self.require_https and self.jwt_secret_key in SAMPLE_JWT_SECRETS:
            raise ConfigurationError(
                "JWT_SECRET_KEY is the deployment guide's sample value, which everybody knows.",
                hint="Set your own, for example: openssl rand -hex 32",
            )

    @property
    def has_sample_jwt_secret(self) -> bool:
        """Whether tokens are signed with a value printed in the guide: worth a warning."""
        return self.jwt_secret_key in SAMPLE_JWT_SECRETS


def _read(setting: Setting, texts: Mapping[str, str]) -> Any:
    text = texts.get(setting.name, "").strip()
    try:
        return setting.parse(text or setting.default)
    except ValueError as error:
        shown = "" if setting.secret else f" is {text!r} and"
        raise ConfigurationError(f"{setting.name}{shown} {error}.") from None
    except AiravataError as error:
        raise ConfigurationError(f"{setting.name}: {error.detail}") from None


def _refuse_misspelt(texts: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a name in `.env` that is nearly one of ours.

    Other programs' variables may stand in the same file, so only near misses are refused.
    """
    known = {setting.name for setting in SETTINGS} | GUIDE_NAMES_READ_ELSEWHERE
    for name in texts.keys() - known:
        nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)
        if nearest:
            raise ConfigurationError(
                f"{name} in .env is not a setting.", hint=f"Did you mean {nearest[0]}?"
            )


def _check_together(configuration: Configuration) -> None:
    if (configuration.tls_cert_file is None) != (configuration.tls_key_file is None):
        raise ConfigurationError("TLS_CERT_FILE and TLS_KEY_FILE must be set together.")
    if configuration.oidc_issuer and not configuration.oidc_client_id:
        raise ConfigurationError("OIDC_ISSUER needs OIDC_CLIENT_ID beside it.")
    if configuration.oidc_issuer and "openid" not in configuration.oidc_scopes.split():
        raise ConfigurationError("OIDC_SCOPES must contain openid.")
    if configuration.agent_ca_file and not configuration.agent_cert_file:
        raise ConfigurationError("AGENT_CA_FILE needs AGENT_CERT_FILE beside it.")
    if configuration.suspect_after_s <= configuration.heartbeat_s:
        raise ConfigurationError("SUSPECT_AFTER must be longer than HEARTBEAT.")
    if configuration.requeue_after_s < configuration.suspect_after_s:
        raise ConfigurationError("REQUEUE_AFTER must not be shorter than SUSPECT_AFTER.")
