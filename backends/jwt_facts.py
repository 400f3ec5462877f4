"""When a token ends, where it is a JWT and says so. Nothing here proves that a token is genuine."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

LATEST_S = 253_402_300_799  # the end of the year 9999


def expires_at(token: str) -> int | None:
    """The `exp` of a JWT in ms since 1970; None for any other token."""
    parts = token.split(".")
    if len(parts) != 3 or not parts[2] or "alg" not in _object(parts[0]):
        return None
    ends = _object(parts[1]).get("exp")
    if isinstance(ends, bool) or not isinstance(ends, int | float):
        return None
    if not math.isfinite(ends) or not 0 <= ends <= LATEST_S:
        return None
    return int(ends * 1000)


def _object(part: str) -> dict[str, Any]:
    """The JSON object of one part; empty for anything else."""
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
