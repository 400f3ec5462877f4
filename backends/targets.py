"""Addresses as users write them: `ssh://jane@host:22`, `https://host:443/path`, `s3://host/bucket`.

A host has one spelling here. The system's resolver also takes `0x7f.1`, `2130706433` and full-width
digits; whoever writes such a thing is told the plain form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown

MAX_TARGET_CHARS = 1024
PORTS = {"ssh": 22, "https": 443, "s3": 443}
FORMS = {
    "ssh": "ssh://user@host:22",
    "https": "https://host:443/path",
    "s3": "s3://host:443/bucket",
}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NOT_IN_ADDRESSES = frozenset("\\<>`#")

_Fault = Callable[[str], BadInput]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a user named: an address of one scheme, in its parts; `host` in lower case."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    path: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def option(self, name: str) -> str | None:
        """The value of `?name=…`."""
        return dict(self.options).get(name)


def parse(
    text: str, schemes: Sequence[str], *, field: str = "target", options: Sequence[str] = ()
) -> Target:
    """The target that `text` names. Raises BadInput (`target_invalid`) with fault and right form.

    `options` are the names that may stand behind `?`.
    """

    def bad(fault: str) -> BadInput:
        # What stands before an @ or behind a ? may be a secret.
        said = shown(re.sub(r"//.*@", "//…@", text.partition("?")[0]))
        forms = " or ".join(FORMS[scheme] for scheme in schemes)
        hint = f"Write it as {forms}."
        return BadInput(f"{said} {fault}.", code="target_invalid", field=field, hint=hint)

    if len(text) > MAX_TARGET_CHARS:
        raise bad("is too long")
    if not all("!" <= c <= "~" and c not in _NOT_IN_ADDRESSES for c in text):
        raise bad("has a blank or a character that an address cannot have")
    try:
        parts = urlsplit(text)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        raise bad("is no address") from None
    if parts.scheme not in schemes:
        raise bad("has another scheme")
    if port == 0 or parts.netloc.endswith(":"):
        raise bad("has no port behind its colon")
    return Target(
        scheme=parts.scheme,
        host=_host(parts.hostname or "", "[" in parts.netloc, bad),
        port=port,
        user=_user(parts.netloc, parts.scheme, bad),
        path=_path(parts.path, parts.scheme, bad),
        options=_options(parts.query, options, bad),
    )


def _user(netloc: str, scheme: str, bad: _Fault) -> str | None:
    before, at, _ = netloc.rpartition("@")
    if not at:
        return None
    if scheme != "ssh":
        raise bad("has a user name in it, which is the credential's to say")
    if not _USER.fullmatch(before):
        raise bad("has a password or an odd user name in it")
    return before


def _path(path: str, scheme: str, bad: _Fault) -> str:
    if scheme == "ssh" and path.strip("/"):
        raise bad("has a path")
    plain = unquote(path)
    if ".." in plain.split("/") or not plain.isprintable():
        raise bad("has a path with .. or a control character in it")
    return path


def _options(query: str, known: Sequence[str], bad: _Fault) -> tuple[tuple[str, str], ...]:
    asked = tuple(parse_qsl(query, keep_blank_values=True))
    names = [name for name, _ in asked]
    if len(set(names)) != len(names) or not set(names) <= set(known):
        options = f"; known are {', '.join(known)}" if known else ""
        raise bad(f"has options that are not known, or one twice{options}")
    return asked


def _host(host: str, in_brackets: bool, bad: _Fault) -> str:
    """The name or address in its one spelling."""
    host = host.removesuffix(".")
    if in_brackets or ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise bad("has no IPv6 address between its brackets") from None
        if address.scope_id is not None:
            raise bad("has an address that holds on one link only")
        return address.compressed
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise bad("has no name of a host")
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return host
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise bad("has an IPv4 address in another form than four decimal numbers") from None
