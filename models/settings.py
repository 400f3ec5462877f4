"""The table of settings: every environment variable that the scheduler reads.

Every setting of the deployment guide keeps the guide's name; ours stand beside them. The attributes
of `Configuration`, the page docs/configuration.md and the start-up check all follow this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.models.setting_values import (
    boolean,
    choice,
    database_address,
    groups,
    host_and_port,
    integer,
    outbound_hosts,
    path,
    positive_duration,
    redis_address,
    text,
    web_address,
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One environment variable: its name, how its text is read, what it means.

    `attribute` is the name on `Configuration`: lower-case, with `_s` behind a duration.
    """

    name: str
    parse: Callable[[str], Any]
    default: str
    meaning: str
    secret: bool = False
    attribute: str = field(init=False)

    def __post_init__(self) -> None:
        unit = "_s" if self.parse is positive_duration else ""
        object.__setattr__(self, "attribute", self.name.lower() + unit)


def _setting(
    name: str, parse: Callable[[str], Any], default: str, meaning: str, *, secret: bool = False
) -> Setting:
    return Setting(name=name, parse=parse, default=default, meaning=meaning, secret=secret)


_PORT = integer(1, 65535)

SETTINGS: tuple[Setting, ...] = (
    # The deployment guide's.
    _setting(
        "DATABASE_URL",
        database_address,
        "sqlite:///airavata.db",
        "The SQL database, the one truth: PostgreSQL, MySQL/MariaDB or an SQLite file.",
        secret=True,
    ),
    _setting("SERVER_PORT", _PORT, "8080", "Port of the API."),
    _setting("WORKER_INTERVAL", positive_duration, "30s", "Period of the reconcile loop."),
    _setting(
        "JWT_SECRET_KEY",
        text,
        "",
        "Signs access tokens: 32 bytes or more, the same on every replica.",
        secret=True,
    ),
    _setting("JWT_ACCESS_TOKEN_TTL", positive_duration, "1h", "Life of an access token."),
    _setting("JWT_REFRESH_TOKEN_TTL", positive_duration, "168h", "Life of a login."),
    _setting("RATE_LIMIT_ENABLED", boolean, "true", "Whether users' requests are limited."),
    _setting(
        "MAX_REQUESTS_PER_MINUTE",
        integer(1, 10_000_000),
        "100",
        "Requests a minute for each user, or for each address before login.",
    ),
    _setting("REQUIRE_HTTPS", boolean, "false", "Whether plain HTTP is refused."),
    _setting("LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", "Least log level."),
    _setting(
        "SPICEDB_ENDPOINT",
        host_and_port,
        "localhost:50051",
        "SpiceDB, which decides who may do what: host:port of its gRPC.",
    ),
    _setting("SPICEDB_TOKEN", text, "", "SpiceDB's preshared key.", secret=True),
    _setting("SPICEDB_INSECURE", boolean, "false", "Whether SpiceDB is spoken to without TLS."),
    _setting(
        "OPENBAO_ADDR", web_address, "http://localhost:8200", "OpenBao, which keeps the secrets."
    ),
    _setting(
        "OPENBAO_TOKEN",
        text,
        "",
        "A token of OpenBao's; empty where OPENBAO_ROLE_ID is set.",
        secret=True,
    ),
    _setting(
        "OPENBAO_CREDENTIALS_PATH", text, "credentials", "Mount of the KV v2 engine for secrets."
    ),
    _setting("OPENBAO_TRANSIT_PATH", text, "transit", "Mount of the transit engine."),
    _setting("OPENBAO_TRANSIT_KEY", text, "credentials", "Transit key that wraps every secret."),
    # Ours.
    _setting(
        "SPICEDB_CA_FILE",
        path,
        "",
        "The authority that signed SpiceDB's certificate, where it is a private one.",
    ),
    _setting(
        "OPENBAO_CA_FILE",
        path,
        "",
        "The authority that signed OpenBao's certificate, where it is a private one.",
    ),
    _setting("OPENBAO_ROLE_ID", text, "", "The AppRole by which the scheduler logs in."),
    _setting(
        "OPENBAO_SECRET_ID_FILE",
        path,
        "",
        "File with the AppRole's secret id, or with the token that it is wrapped in.",
    ),
    _setting("OPENBAO_SSH_PATH", text, "ssh", "Mount of the SSH engine that signs certificates."),
    _setting(
        "OIDC_ISSUER",
        web_address,
        "",
        "OpenID provider for logins: the address that its discovery document stands below.",
    ),
    _setting("OIDC_CLIENT_ID", text, "", "Our name at the OpenID provider."),
    _setting(
        "OIDC_CLIENT_SECRET",
        text,
        "",
        "Our secret at the OpenID provider; empty for a public client.",
        secret=True,
    ),
    _setting("OIDC_SCOPES", text, "openid email profile", "What we ask the OpenID provider for."),
    _setting(
        "OIDC_CREATE_USERS",
        boolean,
        "false",
        "Whether whoever logs in at the OpenID provider becomes a user; else they must be linked.",
    ),
    _setting(
        "OIDC_CA_FILE",
        path,
        "",
        "The authority that signed the OpenID provider's certificate, where it is a private one.",
    ),
    _setting(
        "SERVER_HOST",
        text,
        "0.0.0.0",  # noqa: S104 - as in the guide; a firewall or proxy stands in front
        "Address that the API binds.",
    ),
    _setting(
        "PUBLIC_URL",
        web_address,
        "",
        "Address that users and agents reach the API at; empty: http://localhost:SERVER_PORT.",
    ),
    _setting(
        "REDIS_URL",
        redis_address,
        "redis://localhost:6379/0",
        "Redis for wake-ups and background jobs; losing it loses nothing.",
        secret=True,
    ),
    _setting(
        "STORAGE_PATH",
        path,
        "~/.local/share/airavata-scheduler/storage",
        "Folder of the default storage resource, shared by all replicas: artifacts, logs, blobs.",
    ),
    _setting(
        "HISTORY_DIR",
        path,
        "",
        "Folder for the histories that campaigns check (docs/proof.md); empty: none is kept.",
    ),
    _setting(
        "TRUSTED_PROXIES",
        integer(0, 10),
        "0",
        "How many proxies in front set X-Forwarded-For and X-Forwarded-Proto.",
    ),
    _setting("TLS_CERT_FILE", path, "", "Certificate chain, where the API itself speaks TLS."),
    _setting("TLS_KEY_FILE", path, "", "Private key of TLS_CERT_FILE."),
    _setting(
        "API_GROUPS",
        groups,
        "client,agent",
        "Which functions this server serves: the users' (client), the agents' (agent), or both.",
    ),
    _setting(
        "AGENT_URL", web_address, "", "Address that agents reach the API at; empty: PUBLIC_URL."
    ),
    _setting(
        "AGENT_CA_FILE",
        path,
        "",
        "The authority that agents must trust, where AGENT_URL has a certificate of a private one.",
    ),
    _setting(
        "AGENT_CERT_FILE",
        path,
        "",
        "The certificate at AGENT_URL, pinned by the install line where AGENT_CA_FILE is set.",
    ),
    _setting("API_WORKERS", integer(1, 256), "2", "Processes of the API."),
    _setting("API_THREADS", integer(4, 1024), "32", "Threads of each API process."),
    _setting(
        "API_CONNECTIONS",
        integer(64, 65_536),
        "8192",
        "Open connections of each API process, at most; each agent keeps one or two.",
    ),
    _setting("QUEUE_WORKERS", integer(1, 64), "1", "RQ worker processes of a daemon."),
    _setting("MAX_BODY_BYTES", integer(65_536, 2**31), "16777216", "Largest JSON body."),
    _setting(
        "MAX_UPLOAD_BYTES",
        integer(65_536, 2**50),
        "1099511627776",
        "Largest artifact or blob.",
    ),
    _setting(
        "MAX_EXPERIMENT_TASKS",
        integer(1, 10**15),
        "1000000000000",
        "Largest number of tasks of one experiment.",
    ),
    _setting(
        "SWEEP_WINDOW",
        integer(10, 100_000),
        "2000",
        "How many instances of one node of an experiment are queued at a time.",
    ),
    _setting("RETENTION", positive_duration, "168h", "How long ended bookkeeping rows are kept."),
    _setting("HEARTBEAT", positive_duration, "15s", "Agents' heartbeat period."),
    _setting(
        "SUSPECT_AFTER", positive_duration, "90s", "Silence after which an agent is unreachable."
    ),
    _setting(
        "REQUEUE_AFTER",
        positive_duration,
        "15m",
        "Silence after which an agent's tasks are given to another.",
    ),
    _setting(
        "OFFER_ACK", positive_duration, "60s", "How long an offered task waits for its start."
    ),
    _setting(
        "OUTAGE_GRACE",
        positive_duration,
        "300s",
        "After an outage of ours, how long no lease expires.",
    ),
    _setting(
        "OUTBOUND_ALLOW",
        outbound_hosts,
        "",
        "Private hosts that users' addresses may name: CIDRs, addresses and host names, by commas.",
    ),
    _setting(
        "AGENT_FILE", path, "", "The agent that /agent/v1/download serves; empty: built at start."
    ),
)

# Variables of the guide that the agent reads. Named here so that a `.env` that holds the guide's
# whole list is accepted.
GUIDE_NAMES_READ_ELSEWHERE = frozenset(
    {
        "WORKER_ID",
        "COMPUTE_ID",
        "API_URL",
        "OUTPUT_DIR",
        "POLL_INTERVAL",
    }
)
