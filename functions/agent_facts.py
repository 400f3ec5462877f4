"""What an agent says of its machine, kept within what planning and every page about it can read.

The planner reckons with these numbers for everybody who may use the resource: a word where a number
belongs would stop it for all of them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from airavata_scheduler.functions.agent_lease_access import AgentBody
from airavata_scheduler.models.fields import canonical_json

MAX_WORDS: Final = 200
MAX_POLICY_BYTES: Final = 16_384
MOST: Final = 2**53  # beyond it not every reader of JSON has the same number
_MAX_NUMBERS: Final = 32
_MAX_NAME_CHARS: Final = 64


def _clipped(value: int) -> int:
    return min(max(0, value), MOST)


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if len(canonical_json(value)) > MAX_POLICY_BYTES:
        raise ValueError(f"must be at most {MAX_POLICY_BYTES} bytes of JSON")
    return value


Size = Annotated[int, AfterValidator(_clipped)]
Word = Annotated[str, Field(max_length=128)]
Policy = Annotated[dict[str, Any], AfterValidator(_small)]


class Capabilities(AgentBody):
    """What the agent can run: cores, MiB, GPUs, and what else a task may ask for."""

    cpu: Size | None = None
    ram_mb: Size | None = None
    gpu: Size | None = None
    disk_mb: Size | None = None
    python: str | None = Field(None, max_length=64)
    executors: list[Word] | None = Field(None, max_length=MAX_WORDS)
    features: list[Word] | None = Field(None, max_length=MAX_WORDS)


def numbers(said: Any) -> dict[str, float]:
    """The numbers of a heartbeat's `free`, `disk` or `spool`; what is none is passed over.

    Nothing that stands beside a heartbeat may cost it: then its leases would end.
    """
    if not isinstance(said, dict):
        return {}
    found = {
        name[:_MAX_NAME_CHARS]: min(max(0, value), MOST)
        for name, value in said.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return dict(list(found.items())[:_MAX_NUMBERS])
