"""How long payloads take: it says how many leases may be claimed ahead."""

from __future__ import annotations

import threading
import time
from collections import deque


class Durations:
    """How long payloads of each spec take, smoothed; short ones may be claimed ahead."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=512)

    def saw(self, spec_key: str, seconds: float) -> None:
        """One payload took `seconds`."""
        with self._lock:
            before = self._mean_s.get(spec_key, seconds)
            if len(self._mean_s) > 512 and spec_key not in self._mean_s:
                self._mean_s.clear()
            # A long one counts at once, a short one slowly: batches shrink faster than they grow.
            share = 0.5 if seconds > before else 0.1
            self._mean_s[spec_key] = before + share * (seconds - before)
            self._recent.append((time.monotonic(), seconds))

    def mean_s(self, spec_key: str) -> float | None:
        """The smoothed duration; None when none ended yet."""
        return self._mean_s.get(spec_key)

    def ahead(self, cpu: int, horizon_s: float = 0.5, most: int = 400) -> int:
        """How many leases to hold beyond what runs: what ends in `horizon_s`; 0 if unknown."""
        with self._lock:
            now = time.monotonic()
            recent = [item for item in self._recent if now - item[0] < 5.0][-64:]
        if not recent:
            return 0
        mean = max(sum(seconds for _, seconds in recent) / len(recent), 0.0005)
        return 0 if mean > horizon_s else min(most, int(cpu * horizon_s / mean))
