"""Wrong passwords and codes cost time, in a way that nobody can lock somebody else out with.

Three counts, each with free tries, then doubling waits up to five minutes:

- of a user at an address: after five. It holds for everybody.
- of a user at all addresses where they never logged in: after twenty. It bounds what many addresses
  can guess together. An address where the user has logged in is not held up by it.
- of an address over all users: after fifty. It bounds trying one password on many users. It does
  not hold up a user who has logged in from there, so that one person in a shared network cannot
  lock out the others.

Counted in Redis, so that all processes count together; in this process's memory while Redis is
away.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from dataclasses import dataclass
from typing import Final

from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import RateLimited
from airavata_scheduler.queue.connection import RedisAway, guarded

FREE_TRIES: Final = 5
FREE_TRIES_OF_USER: Final = 20
FREE_TRIES_OF_ADDRESS: Final = 50
LONGEST_WAIT_S: Final = 300
FORGET_AFTER_S: Final = 900
_MAX_REMEMBERED: Final = 10_000

# One look whether the name is somebody's or nobody's, so that the time tells nothing.
_KNOWN: Final = """
SELECT 1 FROM users JOIN logins ON logins.user_id = users.id
WHERE users.name = %s AND logins.address = %s LIMIT 1
"""

_lock = threading.Lock()
_failures: dict[str, tuple[int, float]] = {}  # key → (how many, monotonic time of the last)


@dataclass(frozen=True, kw_only=True)
class _Count:
    """What is counted under `key`, and how many failures cost nothing."""

    key: str
    free: int


def wait_s(failures: int, free: int = FREE_TRIES) -> float:
    """How long to wait after so many failures in a row, in seconds."""
    if failures < free:
        return 0.0
    return float(min(LONGEST_WAIT_S, 2 ** min(failures - free, 20)))


def check(username: str, address: str) -> None:
    """Raise RateLimited while the wait after the last failure is not over."""
    left_s = max(_left_s(count) for count in _counts(username, address))
    if left_s > 0:
        raise RateLimited(
            f"Too many wrong passwords; the next try is possible in {math.ceil(left_s)} s.",
            code="login_backoff",
            hint="From an address where you logged in before, others' tries do not hold you up.",
            retry_after_s=left_s,
        )


def failed(username: str, address: str) -> None:
    """Count a wrong password or code."""
    for count in _counts(username, address):
        _count_here(count.key)
        try:
            with guarded() as redis:
                failures = int(redis.incr(f"{count.key}:count"))
                redis.expire(f"{count.key}:count", FORGET_AFTER_S)
                wait_ms = int(wait_s(failures, count.free) * 1000)
                if wait_ms:
                    redis.set(f"{count.key}:wait", "1", px=wait_ms)
        except RedisAway:
            continue


def succeeded(username: str, address: str) -> None:
    """Forget the failures of this user at this address.

    The other counts stay: whoever guesses passwords of others may well have an account too.
    """
    key = _of_pair(username, address).key
    with _lock:
        _failures.pop(key, None)
    try:
        with guarded() as redis:
            redis.delete(f"{key}:count", f"{key}:wait")
    except RedisAway:
        return


def _counts(username: str, address: str) -> list[_Count]:
    """What holds up, and is counted for, this user at this address."""
    pair = _of_pair(username, address)
    if execute(_KNOWN, (username, address)):
        return [pair]
    return [
        pair,
        _Count(key=_key("user", username), free=FREE_TRIES_OF_USER),
        _Count(key=_key("address", address), free=FREE_TRIES_OF_ADDRESS),
    ]


def _of_pair(username: str, address: str) -> _Count:
    return _Count(key=_key("pair", username, address), free=FREE_TRIES)


def _left_s(count: _Count) -> float:
    try:
        with guarded() as redis:
            return float(redis.pttl(f"{count.key}:wait")) / 1000
    except RedisAway:
        with _lock:
            failures, last_s = _failures.get(count.key, (0, 0.0))
        return last_s + wait_s(failures, count.free) - time.monotonic()


def _count_here(key: str) -> None:
    with _lock:
        if key not in _failures and len(_failures) >= _MAX_REMEMBERED:
            del _failures[next(iter(_failures))]  # the oldest; memory stays bounded
        failures, last_s = _failures.pop(key, (0, 0.0))
        if time.monotonic() - last_s > FORGET_AFTER_S:
            failures = 0
        _failures[key] = (failures + 1, time.monotonic())


def _key(*parts: str) -> str:
    """Hashed: a password typed into the field of the name must not be readable in Redis."""
    digest = hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()
    return f"airavata:login:{digest[:32]}"
