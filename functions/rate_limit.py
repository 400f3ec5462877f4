"""Requests per minute and principal, counted in Redis; in this process's memory while Redis is
away.

The key is the user of a well-signed or known token, else the address. Agents are never limited
here: their calls are paced by the server's own timers. Login has its own back-off in
`login_backoff.py`.
"""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress

from flask import Flask, Response, request
from flask_limiter import ApplicationLimit, Limiter

from airavata_scheduler.functions import principals
from airavata_scheduler.functions.https_only import PROBES
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.queue.connection import CONNECT_TIMEOUT_S, RedisAway

WINDOW_S = 60


def register(app: Flask, config: Configuration) -> None:
    """Limit the client group to MAX_REQUESTS_PER_MINUTE, if RATE_LIMIT_ENABLED."""
    if not config.rate_limit_enabled:
        return
    # One bucket for all routes: plain limits, those of the fallback too, count each route apart.
    per_minute = f"{config.max_requests_per_minute} per {WINDOW_S} seconds"
    shared, fallback = ApplicationLimit(per_minute), ApplicationLimit(per_minute)
    limiter = Limiter(
        _key,
        application_limits=[shared],
        # The limits package spells a socket's address in its own way.
        storage_uri=re.sub(r"^unix://", "redis+unix://", config.redis_url),
        storage_options={
            "socket_connect_timeout": CONNECT_TIMEOUT_S,  # type: ignore[dict-item]
            "socket_timeout": CONNECT_TIMEOUT_S,  # type: ignore[dict-item]
        },
        in_memory_fallback=[fallback],  # type: ignore[list-item]  # it takes both
        key_prefix="airavata",
        # Its own headers put Retry-After on every answer, and overwrite that of a 503.
        headers_enabled=False,
    )
    fallback.bind(limiter)
    limiter.init_app(app)
    limiter.request_filter(_is_exempt)

    @app.after_request
    def show(response: Response) -> Response:
        limit = limiter.current_limit
        if limit is None:
            return response
        with suppress(*RedisAway):  # lost between the check and here: the headers are a courtesy
            remaining, reset_at = limit.remaining, limit.reset_at
            response.headers["X-RateLimit-Limit"] = str(limit.limit.amount)
            response.headers["X-RateLimit-Remaining"] = str(max(0, remaining))
            response.headers["X-RateLimit-Reset"] = str(int(reset_at))
            if response.status_code == 429 and "Retry-After" not in response.headers:
                wait_s = max(1, math.ceil(reset_at - time.time()))
                response.headers["Retry-After"] = str(wait_s)
        return response


def _is_exempt() -> bool:
    path = request.path
    return path.startswith("/agent/v1/") or path in PROBES or path == "/metrics"


def _key() -> str:
    """Who is counted. The token is only read here: a revoked one still counts for its user."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    user_id = principals.counted_user(token.strip()) if scheme.lower() == "bearer" else None
    return f"user:{user_id}" if user_id else f"address:{request.remote_addr}"
