"""The one way in which tests wait: for a fact, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.02

_R = TypeVar("_R")


def wait_until(
    predicate: Callable[[], _R], *, timeout_s: float = 20.0, message: str = "the condition"
) -> _R:
    """Poll `predicate` until it returns something true, and return that.

    Raises AssertionError with `message` and the last value after `timeout_s` seconds. An exception
    of the predicate is not swallowed.
    """
    deadline_s = time.monotonic() + timeout_s
    never = threading.Event()
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {message}; last: {value!r}")
        never.wait(POLL_S)
