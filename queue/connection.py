"""The one way to Redis: short time-outs, and a breaker so that an outage costs one thread one try.

Redis holds wake-ups and hints only. Whoever uses it asks `guarded()` and goes on without it: the
reconciler re-derives from SQL whatever was lost.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_TIMEOUT_S = 1.0
# Above the RQ worker's heartbeat, below anything that a request would wait for.
SOCKET_TIMEOUT_S = 2.0
REST_AFTER_FAILURE_S = 1.0
DEFAULT_URL = "redis://localhost:6379/0"


class _Link:
    """This process's address, shared client and breaker."""

    def __init__(self, url: str) -> None:
        self.lock = threading.Lock()
        self.url = url
        self.client: redis.Redis | None = None
        self.client_pid = 0
        self.resting_until = 0.0  # monotonic seconds; nothing is tried before


_link = _Link(DEFAULT_URL)

RedisAway = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)


class Resting(redis.exceptions.ConnectionError):
    """Redis failed a moment ago, so this call was not tried."""


def configure(address: str) -> None:
    """Set the address for this process (`REDIS_URL`); the next call connects there."""
    with _link.lock:
        _link.url, _link.client, _link.resting_until = address, None, 0.0


def url() -> str:
    """The address in use."""
    return _link.url


def connect(socket_timeout_s: float | None = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A new client of its own; `None` as time-out is for blocking pops and subscriptions."""
    return redis.Redis.from_url(
        _link.url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=socket_timeout_s,
        # One more try at once, and no waiting: a pooled connection from before a restart of Redis
        # fails on its first use, and that is no outage.
        retry=Retry(NoBackoff(), 1),
    )


def client() -> redis.Redis:
    """This process's shared client; made anew after a fork (gunicorn, RQ)."""
    with _link.lock:
        if _link.client is None or _link.client_pid != os.getpid():
            _link.client, _link.client_pid = connect(), os.getpid()
        return _link.client


@contextmanager
def guarded() -> Iterator[redis.Redis]:
    """The shared client behind the breaker.

    Raises one of `RedisAway`; for `REST_AFTER_FAILURE_S` after a failure it raises `Resting`
    without trying, so that a black-holed Redis does not hold every request for a time-out.
    """
    if time.monotonic() < _link.resting_until:
        raise Resting("Redis failed a moment ago; it is tried again in a second")
    try:
        yield client()
    except RedisAway:
        _link.resting_until = time.monotonic() + REST_AFTER_FAILURE_S
        raise


def is_up() -> bool:
    """Whether Redis answers now (asks it, behind the breaker)."""
    try:
        with guarded() as connection:
            return bool(connection.ping())
    except RedisAway:
        return False
