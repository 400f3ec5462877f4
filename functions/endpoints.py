"""The address of a compute resource: where the scheduler would reach it, by SSH or HTTPS."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from airavata_scheduler.models.errors import BadInput

MAX_CHARS: Final = 1024

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")
_TEXT: Final = re.compile(r"[!-~]+")


def check_endpoint(text: str) -> None:
    """Return for `ssh://host[:port]`, `https://host[:port][/path]` or nothing. Raises BadInput.

    No user name or password: those are a credential's. Whether the host may be reached is asked
    when somebody connects to it.
    """
    if text == "":
        return
    fault = _fault(text)
    if fault is not None:
        raise BadInput(
            f"The endpoint {fault}.",
            code="invalid_endpoint",
            field="endpoint",
            hint="Write ssh://HOST:PORT or https://HOST:PORT/PATH.",
        )


def _fault(text: str) -> str | None:
    if len(text) > MAX_CHARS or not _TEXT.fullmatch(text):
        return f"must be at most {MAX_CHARS} printable ASCII characters without blanks"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "is no address"
    if parts.scheme not in ("ssh", "https"):
        return "must begin with ssh:// or https://"
    if "@" in parts.netloc:
        return "must not name a user; that belongs to the credential"
    if not _HOST.fullmatch(parts.hostname or "") or port == 0 or parts.netloc.endswith(":"):
        return "needs a host, and a port between 1 and 65535 if any"
    return _fault_behind(parts)


def _fault_behind(parts: SplitResult) -> str | None:
    if parts.query or parts.fragment:
        return "must not have a query or a fragment"
    if parts.scheme == "ssh" and parts.path not in ("", "/"):
        return "by SSH has no path"
    return None
