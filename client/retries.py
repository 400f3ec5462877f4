"""When a request is sent again, and after how long."""

from __future__ import annotations

from collections.abc import Callable

import httpx

# The sum of all waits of one request; a rolling restart of the API takes seconds.
RETRY_FOR_S = 60.0
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 10.0
_RETRIED_STATUSES = frozenset({429, 502, 503, 504})


def may_retry(outcome: httpx.Response | httpx.TransportError, *, repeatable: bool) -> bool:
    """Whether to send a request again after `outcome`.

    `repeatable` says that doing the work twice does no harm (GET, PUT, or a POST with an
    idempotency key). A request that never left, or that the server turned away unread (429, 503),
    is repeated in any case.
    """
    if isinstance(outcome, httpx.Response):
        if outcome.status_code in (429, 503):
            return True
        return outcome.status_code in _RETRIED_STATUSES and repeatable
    if isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return True
    if isinstance(outcome, httpx.UnsupportedProtocol | httpx.ProxyError):
        return False
    return repeatable


def wait_before(
    attempt: int, outcome: httpx.Response | httpx.TransportError, jitter: Callable[[], float]
) -> float:
    """Seconds to wait before try number `attempt` + 1.

    `Retry-After` where given, else doubling with jitter.
    """
    if isinstance(outcome, httpx.Response):
        asked = outcome.headers.get("Retry-After", "")
        if asked.isdecimal():
            return float(asked)
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempt, 10))
    return longest * (0.5 + 0.5 * jitter())
