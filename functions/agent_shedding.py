"""What the agents' API gives up when its threads run short, and in which order.

A process has a fixed number of threads. Long-polls may hold a quarter of them: a claim beyond that
is answered at once. Of the others, claims are refused first, then logs, then starts, each with 503
and Retry-After. Heartbeats and reports are never refused: they keep leases and results.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Final, Literal, ParamSpec, TypeVar

from airavata_scheduler.functions import tokens
from airavata_scheduler.models.errors import Unavailable

_P = ParamSpec("_P")
_R = TypeVar("_R")

Call = Literal["claim", "log", "start", "always"]

# The share of the threads that may be at work when such a call is still let in.
_LIMITS: Final[dict[Call, float]] = {"claim": 0.70, "log": 0.80, "start": 0.90, "always": math.inf}
_RETRY_AFTER_S: Final[dict[Call, float]] = {"claim": 5, "log": 3, "start": 2, "always": 1}


class Overloaded(Unavailable):
    """The server has more requests than it can serve now; try again a little later."""

    code = "overloaded"


class Load:
    """How many agents' requests this process works on, and how many merely wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = 0
        self._waiting = 0

    @contextmanager
    def admitted(self, call: Call, threads: int) -> Iterator[None]:
        """Count the block as work. Raises Overloaded where `call` may not be added."""
        with self._lock:
            room = max(1, threads - self._waiting)
            if self._working and (self._working + 1) / room > _LIMITS[call]:
                raise Overloaded(retry_after_s=_RETRY_AFTER_S[call])
            self._working += 1
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1

    @contextmanager
    def waiting(self, threads: int) -> Iterator[bool]:
        """Hold one of the waiting places during the block; whether there was one."""
        with self._lock:
            got = self._waiting < max(1, threads // 4)
            if got:
                self._waiting += 1
                self._working -= 1
        try:
            yield got
        finally:
            if got:
                with self._lock:
                    self._waiting -= 1
                    self._working += 1


load = Load()


def sheds(call: Call) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A view that counts as work, and that an overloaded server refuses by its kind."""

    def around(view: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(view)
        def counted(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with load.admitted(call, _threads()):
                return view(*args, **kwargs)

        return counted

    return around


@contextmanager
def waiting_place() -> Iterator[bool]:
    """Count this request as waiting; False where a quarter of the threads wait already."""
    with load.waiting(_threads()) as got:
        yield got


def _threads() -> int:
    return tokens.configuration().api_threads
