"""Wrong passwords cost time: after five for one user from one address, each doubles the wait.

Counted in Redis, so that all processes count together; in this process's memory while Redis is
away.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from typing import Final

from airavata_scheduler.models.errors import RateLimited
from airavata_scheduler.queue.connection import RedisAway, guarded

FREE_TRIES: Final = 5
LONGEST_WAIT_S: Final = 300
FORGET_AFTER_S: Final = 900
_MAX_REMEMBERED: Final = 10_000

_lock = threading.Lock()
_failures: dict[str, tuple[int, float]] = {}  # key → (how many, monotonic time of the last)


def wait_s(failures: int) -> float:
    """How long to wait after so many failures in a row, in seconds."""
    if failures < FREE_TRIES:
        return 0.0
    return float(min(LONGEST_WAIT_S, 2 ** min(failures - FREE_TRIES, 20)))


def check(username: str, address: str) -> None:
    """Raise RateLimited while the wait after the last failure is not over."""
    left_s = _left_s(_key(username, address))
    if left_s > 0:
        raise RateLimited(
            f"Too many wrong passwords; the next try is possible in {math.ceil(left_s)} s.",
            code="login_backoff",
            retry_after_s=left_s,
        )


def failed(username: str, address: str) -> None:
    """Count a wrong password."""
    key = _key(username, address)
    _count_here(key)
    try:
        with guarded() as redis:
            failures = int(redis.incr(f"{key}:count"))
            redis.expire(f"{key}:count", FORGET_AFTER_S)
            wait_ms = int(wait_s(failures) * 1000)
            if wait_ms:
                redis.set(f"{key}:wait", "1", px=wait_ms)
    except RedisAway:
        return


def succeeded(username: str, address: str) -> None:
    """Forget the failures."""
    key = _key(username, address)
    with _lock:
        _failures.pop(key, None)
    try:
        with guarded() as redis:
            redis.delete(f"{key}:count", f"{key}:wait")
    except RedisAway:
        return


def _left_s(key: str) -> float:
    try:
        with guarded() as redis:
            return float(redis.pttl(f"{key}:wait")) / 1000
    except RedisAway:
        with _lock:
            failures, last_s = _failures.get(key, (0, 0.0))
        return last_s + wait_s(failures) - time.monotonic()


def _count_here(key: str) -> None:
    with _lock:
        if len(_failures) >= _MAX_REMEMBERED:
            del _failures[next(iter(_failures))]  # the oldest; memory stays bounded
        failures, last_s = _failures.pop(key, (0, 0.0))
        if time.monotonic() - last_s > FORGET_AFTER_S:
            failures = 0
        _failures[key] = (failures + 1, time.monotonic())


def _key(username: str, address: str) -> str:
    """Hashed: a password typed into the field of the name must not be readable in Redis."""
    digest = hashlib.sha256(f"{username}\0{address}".encode(errors="replace")).hexdigest()
    return f"airavata:login:{digest[:32]}"
