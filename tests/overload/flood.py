"""Requests at a fixed rate, whatever the answers: those who ask do not wait for each other."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.overload.wire import Answer

Ask = Callable[[], Awaitable[Answer]]
_MOST_OPEN = 300  # requests under way; a rate that meets more is what the machine takes


@dataclass
class Flood:
    """What came back."""

    sent: int = 0
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)  # (kind, status)
    no_retry_after: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def count(self, status: int, *kinds: str) -> int:
        """How many answers had this status, of these kinds or of all."""
        return sum(
            n
            for (kind, found), n in self.answers.items()
            if found == status and (not kinds or kind in kinds)
        )

    def share_refused(self, kind: str) -> float:
        """Which part of the requests of a kind was refused."""
        refused = self.count(503, kind)
        return refused / max(1, sum(n for (found, _), n in self.answers.items() if found == kind))


async def capacity(ask: Ask, *, seconds: float, askers: int = 12) -> float:
    """Answers a second where each asker waits for its answer."""
    until, answered = time.monotonic() + seconds, 0

    async def one() -> None:
        nonlocal answered
        while time.monotonic() < until:
            answered += (await ask()).status == 200

    await asyncio.gather(*(one() for _ in range(askers)))
    return answered / seconds


async def flood(asks: dict[str, Ask], *, rate: float, seconds: float) -> Flood:
    """Send `rate` requests a second, of each kind in turn, for so long; then let them all end."""
    found = Flood()
    under_way: set[asyncio.Task[None]] = set()

    async def one(kind: str) -> None:
        try:
            answer = await asks[kind]()
        except OSError as error:
            found.unanswered[f"{kind}: {type(error).__name__}"] += 1
            return
        found.answers[kind, answer.status] += 1
        found.no_retry_after += answer.status == 503 and answer.retry_after_s is None

    began = time.monotonic()
    kinds = itertools.cycle(asks)
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * rate)
        while found.sent < due and len(under_way) < _MOST_OPEN:
            task = asyncio.create_task(one(next(kinds)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            found.sent += 1
        await asyncio.sleep(0.005)
    found.seconds = time.monotonic() - began
    await asyncio.gather(*under_way)
    return found
