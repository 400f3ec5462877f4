"""What is tried again, and when: one predicate, one rhythm."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime

FIRST_S = 1.0
CEILING_S = 60.0


def may_retry(status: int) -> bool:
    """Whether a later try of the same request can succeed. Every write carries its own key."""
    return status in (408, 425, 429) or status >= 500


def retry_after_s(text: str | None, now_s: float) -> float | None:
    """Seconds of a Retry-After header (seconds, or an HTTP date); None when absent or malformed."""
    if not text:
        return None
    if text.strip().isdigit() and text.isascii():
        return min(float(text), 3600.0)
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - now_s), 3600.0)
    except (TypeError, ValueError, OverflowError):
        return None


class BackOff:
    """Full jitter: each wait is uniform below a bound that doubles from 1 s to 60 s."""

    def __init__(self, dice: random.Random | None = None) -> None:
        self._dice = dice or random.Random()  # noqa: S311  only spreads load
        self._bound_s = FIRST_S

    def next_s(self, asked_s: float | None = None) -> float:
        """The next wait; never less than what the server asked for."""
        wait = self._dice.uniform(0.05, self._bound_s)
        self._bound_s = min(CEILING_S, self._bound_s * 2)
        return wait if asked_s is None else asked_s + self._dice.uniform(0.0, FIRST_S)

    def reset(self) -> None:
        """A call succeeded."""
        self._bound_s = FIRST_S
