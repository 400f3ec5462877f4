"""The agent's settings, read once from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from airavata_scheduler.agent.faults import BadSetting

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """One typed object; nothing else in the agent reads the environment.

    `token` is the enrolment token where the environment or a file holds one; it is never printed.
    """

    home: Path
    work_root: Path
    policy_file: Path
    api_url: str
    name: str
    compute: Optional[str]
    poll_interval_s: float
    log_level: str
    ca_bundle: Optional[Path]
    history_dir: Optional[Path]
    token: Optional[str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)  # ours; payloads get what the policy passes


def duration_s(text: str, name: str) -> float:
    """Seconds of a Go-style duration such as `30s` or `1m30s`; a bare number is seconds."""
    cleaned = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", cleaned, re.ASCII):
        return float(cleaned)
    parts = _DURATION.findall(cleaned)
    if not parts or "".join(number + unit for number, unit in parts) != cleaned:
        raise BadSetting(f"{name}={text!r} is not a duration; write for example 30s or 5m.")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def _default_home(environ: Mapping[str, str]) -> Path:
    explicit = environ.get("AIRAVATA_AGENT_HOME")
    if explicit:
        return Path(explicit).expanduser().absolute()
    output = environ.get("OUTPUT_DIR")
    if output and environ.get("WORKER_ID"):
        # In a container only OUTPUT_DIR is a volume; two workers may share one.
        return Path(output).expanduser().absolute() / f".airavata-agent-{_safe(_worker(environ))}"
    return Path("~/.airavata-agent").expanduser().absolute()


def _own_authority(home: Path) -> Optional[Path]:
    """The authority that install.sh left in the state folder, so that typed verbs trust it too."""
    kept = home / "ca.pem"
    return kept if kept.is_file() else None


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _worker(environ: Mapping[str, str]) -> str:
    # Environment files are not shells: the guide's `worker-$(hostname)` reaches us unexpanded.
    name = environ.get("WORKER_ID") or os.uname().nodename
    return name.replace("$(hostname)", os.uname().nodename).replace(
        "${HOSTNAME}", os.uname().nodename
    )


def _token(environ: Mapping[str, str]) -> Optional[str]:
    if environ.get("AIRAVATA_ENROLMENT_TOKEN"):
        return environ["AIRAVATA_ENROLMENT_TOKEN"].strip()
    name = environ.get("AIRAVATA_ENROLMENT_TOKEN_FILE")
    if not name:
        return None
    try:
        return Path(name).read_text(encoding="utf-8").strip() or None
    except OSError as error:
        raise BadSetting(
            f"AIRAVATA_ENROLMENT_TOKEN_FILE={name!r} cannot be read: {error.strerror}."
        ) from error


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment:
        raise BadSetting(f"API_URL={text!r} is not an address; write https://host[:port].")
    return text.rstrip("/")


def read_settings(environ: Mapping[str, str], *, api_url: Optional[str] = None) -> Settings:
    """Settings from `environ`; `api_url` (a flag, or the enrolled identity) wins over API_URL.

    Raises BadSetting with one sentence for a malformed value. An absent API_URL is allowed here
    (empty text): verbs that need no network work without it.
    """
    home = _default_home(environ)
    output = environ.get("OUTPUT_DIR")
    level = environ.get("LOG_LEVEL", "info").strip().lower().replace("warn", "warning")
    level = level.replace("warninging", "warning")
    if level not in LEVELS:
        raise BadSetting(f"LOG_LEVEL={level!r} is not one of {', '.join(LEVELS)}.")
    address = api_url or environ.get("API_URL", "")
    bundle = environ.get("AIRAVATA_CA_BUNDLE")
    policy = environ.get("AIRAVATA_AGENT_POLICY")
    history = environ.get("HISTORY_DIR")
    return Settings(
        home=home,
        work_root=Path(output).expanduser().absolute() if output else home / "work",
        policy_file=Path(policy).expanduser().absolute() if policy else home / "policy.ini",
        api_url=_url(address) if address else "",
        name=_worker(environ),
        compute=environ.get("COMPUTE_ID") or None,
        poll_interval_s=max(1.0, duration_s(environ.get("POLL_INTERVAL", "30s"), "POLL_INTERVAL")),
        log_level=level,
        ca_bundle=Path(bundle).expanduser() if bundle else _own_authority(home),
        history_dir=Path(history).expanduser().absolute() if history else None,
        token=_token(environ),
        environment=dict(environ),
    )
