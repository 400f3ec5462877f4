"""What a wrapper wrote into its lease folder: `payload.json` at the start, `exit.json` at the end.

The payload runs as the same user and can write there too. A file that is not as a wrapper writes it
counts as absent, so that one payload's scribbling never stops the agent from following others.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Optional

from airavata_scheduler.agent.framing import read_json

Json = dict[str, Any]


def read_payload(folder: Path) -> Optional[Json]:
    """Who runs the payload (wrapper, wrapper_ticks, boot_id, started_at, gpus); or None."""
    found = read_json(folder / "payload.json")
    if found is None:
        return None
    is_whole = (
        _is_whole_number(found.get("wrapper"))
        and (found.get("wrapper_ticks") is None or _is_whole_number(found["wrapper_ticks"]))
        and isinstance(found.get("boot_id"), str)
        and _is_time(found.get("started_at"))
        and isinstance(found.get("gpus"), list)
    )
    return found if is_whole else None


def read_exit(folder: Path) -> Optional[Json]:
    """How the payload ended, as `wrapper.py` says it; None while it has not."""
    found = read_json(folder / "exit.json")
    if found is None:
        return None
    is_whole = (
        all(_is_time(found.get(name)) for name in ("started_at", "ended_at", "ended_wall"))
        and all(
            found.get(name) is None or _is_whole_number(found[name])
            for name in ("exit_code", "signal")
        )
        and all(_is_time(found.get(name, 0)) for name in ("cpu_s", "max_rss_kb"))
    )
    return found if is_whole else None


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
