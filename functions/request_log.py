"""One JSON line for each request: who, which route, how it ended, how long it took.

The route is logged as its pattern and a query never, since both may carry a token. JSON escapes
control characters, so that nobody can forge a line or colour a terminal.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from flask import Flask, Response, g, request

from airavata_scheduler.functions import metrics, principals

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)
_QUIET: Final = frozenset(
    {"/api/v1/health", "/api/v1/health/db", "/api/v1/health/ready", "/metrics"}
)
_SECRET_NAMES = re.compile(r"token|secret|password|authorization|cookie|refresh", re.IGNORECASE)

# Without the local variables that structlog shows by itself: any of them may hold a secret.
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)

_log = structlog.get_logger("airavata_scheduler.request")


def configure(level: str, *, redirect: bool = True) -> None:
    """Send every log line of this process to standard error as JSON; `level` is LOG_LEVEL.

    With `redirect` the lines of the standard library too.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _TRACEBACKS,
            hide_secrets,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    if redirect:
        logging.basicConfig(level=number, handlers=[_ToStructlog()], force=True)


class _ToStructlog(logging.Handler):
    """The standard library's records as lines of the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. Its message is a sentence and goes out as `event`."""
        structlog.get_logger(record.name).log(
            record.levelno,
            record.getMessage(),
            logger=record.name,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


def hide_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace the values of members whose name says that they are secret."""
    for name in event:
        if _SECRET_NAMES.search(name):
            event[name] = "[hidden]"
    return event


def register(app: Flask) -> None:
    """Give each request an id and a clock, and write its line when it is answered."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    g.started_s = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "(none)"
    seconds = time.perf_counter() - g.get("started_s", time.perf_counter())
    if g.get("idempotency_replayed"):
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["X-Request-Id"] = g.get("request_id", "")
    metrics.count_request(request.method, route, response.status_code, seconds)
    principal = principals.current_or_none()
    write = _log.debug if route in _QUIET else _log.info
    write(
        "request",
        method=request.method[:16],
        route=route,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
        address=request.remote_addr,
        user=principal.id if principal else None,
        agent=g.get("agent_id"),
        code=g.get("problem_code"),
    )
    return response
