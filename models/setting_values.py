"""How the text of a setting becomes a value.

Each function takes the text and returns the value, or raises ValueError with the rest of a sentence
that begins with the setting's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
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


def positive_duration(text: str) -> float:
    """Seconds of a duration that is longer than zero."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return seconds


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """A reader of whole numbers from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def boolean(text: str) -> bool:
    """True or false, as people write them."""
    if text.lower() in {"true", "1", "yes", "on"}:
        return True
    if text.lower() in {"false", "0", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def text(text: str) -> str:
    """The text as it is."""
    return text


def groups(text: str) -> tuple[str, ...]:
    """The groups of functions that a server serves, such as `client,agent`."""
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= {"client", "agent"}:
        raise ValueError("must be client, agent or client,agent")
    return names


def outbound_hosts(text: str) -> tuple[str, ...]:
    """Networks, addresses and host names such as `10.1.0.0/16, login.example.org`."""
    entries = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for entry in entries:
        try:
            network = ipaddress.ip_network(entry)
        except ValueError as error:
            if not _HOST_NAME.fullmatch(entry) or not entry.rpartition(".")[2].strip("0123456789"):
                raise ValueError(
                    f"has the entry {entry!r}, which is no network (10.1.0.0/16, without bits "
                    "behind its mask), address or host name"
                ) from error
        else:
            if network.prefixlen == 0:
                raise ValueError("must not name every address there is")
    return entries


def choice(*choices: str) -> Callable[[str], str]:
    """A reader of one of `choices`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def web_address(text: str) -> str:
    """An http or https address without its last slash; empty is allowed."""
    parts = urlsplit(text)
    if text and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("must be an address such as https://scheduler.example.org")
    return text.rstrip("/")


def host_and_port(text: str) -> str:
    """An address such as `localhost:50051`, without a scheme."""
    host, _, port = text.rpartition(":")
    if not host or "/" in text or not port.isascii() or not port.isdigit():
        raise ValueError("must be host:port, such as localhost:50051")
    return text


def redis_address(text: str) -> str:
    """The address of a Redis."""
    if urlsplit(text).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must be an address such as redis://localhost:6379/0")
    return text


def database_address(text: str) -> str:
    """The address of a database in either of the guide's forms; models.database reads it."""
    known = ("postgres://", "postgresql://", "mysql://", "sqlite:///")
    if not text.startswith(known) and "@tcp(" not in text and "@unix(" not in text:
        raise ValueError(
            "must be postgres://user:password@host:5432/name, "
            "user:password@tcp(host:3306)/name or sqlite:///path"
        )
    return text


def path(text: str) -> Path | None:
    """A path with `~` expanded, or None for nothing."""
    return Path(text).expanduser() if text else None
