"""The configuration: one table of settings, read once from the environment and `.env`.

Every setting of the deployment guide keeps the guide's name; ours stand beside them. `SETTINGS` is
the only list: the attributes of `Configuration`, the docs and the start-up check all follow it. A
malformed value stops the start with one sentence that names the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airavata_scheduler.models.errors import AiravataError, ConfigurationError

SAMPLE_JWT_SECRETS = frozenset(
    {"your-secret-key-change-this-in-production", "change-this-in-production"}
)
MINIMUM_JWT_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key as long as the hash

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_DURATION_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}


def parse_duration(text: str) -> float:
    """Seconds of a Go-style duration such as `30s`, `1h30m` or `168h`.

    Raises ValueError with a sentence where `text` is something else.
    """
    position = 0
    total_s = 0.0
    while position < len(text):
        part = _DURATION_PART.match(text, position)
        if part is None:
            break
        total_s += float(part[1]) * _DURATION_UNITS_S[part[2]]
        position = part.end()
    if not text or position != len(text):
        raise ValueError("must be a duration with a unit, such as 30s, 15m or 168h")
    return total_s


def _positive_duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return seconds


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "1", "yes", "on"}:
        return True
    if text.lower() in {"false", "0", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def _text(text: str) -> str:
    return text


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("must be an address such as https://scheduler.example.org")
    return text.rstrip("/")


def _redis_address(text: str) -> str:
    if urlsplit(text).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must be an address such as redis://localhost:6379/0")
    return text


def _database_address(text: str) -> str:
    known = ("postgres://", "postgresql://", "mysql://", "sqlite:///")
    if not text.startswith(known) and "@tcp(" not in text and "@unix(" not in text:
        raise ValueError(
            "must be postgres://user:password@host:5432/name, "
            "user:password@tcp(host:3306)/name or sqlite:///path"
        )
    return text


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


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
        unit = "_s" if self.parse in (_positive_duration, parse_duration) else ""
        object.__setattr__(self, "attribute", self.name.lower() + unit)


def _setting(
    name: str, parse: Callable[[str], Any], default: str, meaning: str, *, secret: bool = False
) -> Setting:
    return Setting(name=name, parse=parse, default=default, meaning=meaning, secret=secret)


_PORT = _integer(1, 65535)

SETTINGS: tuple[Setting, ...] = (
    # The deployment guide's.
    _setting(
        "DATABASE_URL",
        _database_address,
        "sqlite:///airavata.db",
        "The SQL database, the one truth: PostgreSQL, MySQL/MariaDB or an SQLite file.",
        secret=True,
    ),
    _setting("SERVER_PORT", _PORT, "8080", "Port of the API."),
    _setting("WORKER_INTERVAL", _positive_duration, "30s", "Period of the reconcile loop."),
    _setting(
        "JWT_SECRET_KEY",
        _text,
        "",
        "Signs access tokens: 32 bytes or more, the same on every replica.",
        secret=True,
    ),
    _setting("JWT_ACCESS_TOKEN_TTL", _positive_duration, "1h", "Life of an access token."),
    _setting("JWT_REFRESH_TOKEN_TTL", _positive_duration, "168h", "Life of a login."),
    _setting("RATE_LIMIT_ENABLED", _boolean, "true", "Whether users' requests are limited."),
    _setting(
        "MAX_REQUESTS_PER_MINUTE",
        _integer(1, 10_000_000),
        "100",
        "Requests a minute for each user, or for each address before login.",
    ),
    _setting("REQUIRE_HTTPS", _boolean, "false", "Whether plain HTTP is refused."),
    _setting("LOG_LEVEL", _choice("debug", "info", "warning", "error"), "info", "Least log level."),
    # Ours.
    _setting(
        "SERVER_HOST",
        _text,
        "0.0.0.0",
        "Address that the API binds.",  # noqa: S104 - as the guide
    ),
    _setting(
        "PUBLIC_URL",
        _web_address,
        "",
        "Address that users and agents reach the API at; empty: http://localhost:SERVER_PORT.",
    ),
    _setting(
        "REDIS_URL",
        _redis_address,
        "redis://localhost:6379/0",
        "Redis for wake-ups and background jobs; losing it loses nothing.",
        secret=True,
    ),
    _setting(
        "STORAGE_PATH",
        _path,
        "~/.local/share/airavata-scheduler/storage",
        "Folder of the default storage resource, shared by all replicas: artifacts, logs, blobs.",
    ),
    _setting(
        "TRUSTED_PROXIES",
        _integer(0, 10),
        "0",
        "How many proxies in front set X-Forwarded-For and X-Forwarded-Proto.",
    ),
    _setting("TLS_CERT_FILE", _path, "", "Certificate chain, where the API itself speaks TLS."),
    _setting("TLS_KEY_FILE", _path, "", "Private key of TLS_CERT_FILE."),
    _setting("API_WORKERS", _integer(1, 256), "2", "Processes of the API."),
    _setting("API_THREADS", _integer(4, 1024), "32", "Threads of each API process."),
    _setting("QUEUE_WORKERS", _integer(1, 64), "1", "RQ worker processes of a daemon."),
    _setting("MAX_BODY_BYTES", _integer(65_536, 2**31), "16777216", "Largest JSON body."),
    _setting(
        "MAX_UPLOAD_BYTES",
        _integer(65_536, 2**50),
        "1099511627776",
        "Largest artifact or blob.",
    ),
    _setting(
        "MAX_EXPERIMENT_TASKS",
        _integer(1, 10**15),
        "1000000000000",
        "Largest number of tasks of one experiment.",
    ),
    _setting(
        "SWEEP_WINDOW",
        _integer(10, 100_000),
        "2000",
        "How many instances of one node of an experiment are queued at a time.",
    ),
    _setting("RETENTION", _positive_duration, "168h", "How long ended bookkeeping rows are kept."),
    _setting("HEARTBEAT", _positive_duration, "15s", "Agents' heartbeat period."),
    _setting(
        "SUSPECT_AFTER", _positive_duration, "90s", "Silence after which an agent is unreachable."
    ),
    _setting(
        "REQUEUE_AFTER",
        _positive_duration,
        "15m",
        "Silence after which an agent's tasks are given to another.",
    ),
    _setting(
        "OFFER_ACK", _positive_duration, "60s", "How long an offered task waits for its start."
    ),
    _setting(
        "OUTAGE_GRACE",
        _positive_duration,
        "300s",
        "After an outage of ours, how long no lease expires.",
    ),
    _setting(
        "AGENT_FILE", _path, "", "The agent that /agent/v1/download serves; empty: built at start."
    ),
)

# Variables of the guide that other programs read: the agent's, and those of the stores for secrets
# and permissions. Named here so that a `.env` that holds the guide's whole list is accepted.
GUIDE_NAMES_READ_ELSEWHERE = frozenset(
    {
        "WORKER_ID",
        "COMPUTE_ID",
        "API_URL",
        "OUTPUT_DIR",
        "POLL_INTERVAL",
        "OPENBAO_ADDR",
        "OPENBAO_TOKEN",
        "OPENBAO_CREDENTIALS_PATH",
        "OPENBAO_TRANSIT_PATH",
        "OPENBAO_TRANSIT_KEY",
        "SPICEDB_ENDPOINT",
        "SPICEDB_TOKEN",
        "SPICEDB_INSECURE",
    }
)


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
    server_host: str
    public_url: str
    redis_url: str
    storage_path: Path
    trusted_proxies: int
    tls_cert_file: Path | None
    tls_key_file: Path | None
    api_workers: int
    api_threads: int
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
    agent_file: Path | None

    @classmethod
    def read(
        cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")
    ) -> Configuration:
        """The configuration of `environ` (default: the process's), over the lines of `dotenv`.

        Raises ConfigurationError naming the variable, what is wrong and what is right.
        """
        texts = dict(read_dotenv(dotenv)) if dotenv is not None and dotenv.is_file() else {}
        texts.update(os.environ if environ is None else environ)
        values = {setting.attribute: _read(setting, texts) for setting in SETTINGS}
        configuration = cls(**values)
        _check_together(configuration)
        if not configuration.public_url:
            scheme = "https" if configuration.tls_cert_file else "http"
            address = f"{scheme}://localhost:{configuration.server_port}"
            object.__setattr__(configuration, "public_url", address)
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


def _check_together(configuration: Configuration) -> None:
    if (configuration.tls_cert_file is None) != (configuration.tls_key_file is None):
        raise ConfigurationError("TLS_CERT_FILE and TLS_KEY_FILE must be set together.")
    if configuration.suspect_after_s <= configuration.heartbeat_s:
        raise ConfigurationError("SUSPECT_AFTER must be longer than HEARTBEAT.")
    if configuration.requeue_after_s < configuration.suspect_after_s:
        raise ConfigurationError("REQUEUE_AFTER must not be shorter than SUSPECT_AFTER.")


_DOTENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file: NAME=value, quotes optional, `#` comments.

    Raises ConfigurationError naming the line that is neither.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(stripped)
        if match is None:
            raise ConfigurationError(
                f"{path} line {number} is neither NAME=value nor a comment.",
                hint="Write one NAME=value on each line.",
            )
        variables[match[1]] = _unquoted(match[2])
    return variables


def _unquoted(text: str) -> str:
    if text[:1] in {'"', "'"}:
        end = text.find(text[0], 1)
        if end > 0:
            return text[1:end]
    return re.split(r"\s+#", text, maxsplit=1)[0].strip()
