"""What can go wrong with SpiceDB, and what each of its failures means to us."""

from __future__ import annotations

import logging
from typing import Final

import grpc

from airavata_scheduler.models.errors import Unavailable

_AWAY: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)

# What SpiceDB says whose schema or tokens are not ours. Its own faults (INTERNAL, when its database
# is away) say nothing about what it holds: to fill it again then would be wrong.
_NOT_OURS: Final = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
_NUMBERS: Final = {int(code.value[0]): code for code in grpc.StatusCode}

_log = logging.getLogger(__name__)


class PermissionsUnavailable(Unavailable):
    """SpiceDB, which decides who may do what, cannot be asked now."""

    code = "permissions_unavailable"


class Fenced(Exception):
    """A write's precondition did not hold: another relayer wrote, or the store is not ours."""


class StoreForeign(Exception):
    """SpiceDB does not know our schema or our tokens: it is empty, or was filled by others."""


def meaning(code: grpc.StatusCode, details: str | None) -> Exception:
    """What a failure means; its details may name objects and are for the log only."""
    details = details or ""
    if code == grpc.StatusCode.UNAVAILABLE and "handshake" in details.lower():
        return _untrusted(details)
    if code in _AWAY:
        return away()
    if code == grpc.StatusCode.FAILED_PRECONDITION and "precondition" in details:
        return Fenced()
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return PermissionsUnavailable(
            "SpiceDB refuses the scheduler's key.",
            hint="The operator compares SPICEDB_TOKEN with SpiceDB's preshared key.",
            retry_after_s=30.0,
        )
    if code in _NOT_OURS:
        return StoreForeign(f"{code.name}: {details}")
    return _failing(code, details)


def code_of(number: int) -> grpc.StatusCode:
    """The status that stands in an answer as a number."""
    return _NUMBERS.get(number, grpc.StatusCode.UNKNOWN)


def away() -> PermissionsUnavailable:
    """The error for a SpiceDB that does not answer."""
    return PermissionsUnavailable(
        "SpiceDB, which decides who may do what, cannot be reached.",
        hint="Try again in a moment; running tasks go on.",
        retry_after_s=2.0,
    )


def _untrusted(details: str) -> PermissionsUnavailable:
    _log.error("permissions: no TLS with SpiceDB: %s", details)
    return PermissionsUnavailable(
        "SpiceDB's certificate is not one that the scheduler trusts.",
        hint="The operator sets SPICEDB_CA_FILE to the authority that signed it; SPICEDB_INSECURE "
        "is for a SpiceDB without TLS.",
        retry_after_s=30.0,
    )


def _failing(code: grpc.StatusCode, details: str) -> PermissionsUnavailable:
    _log.error("permissions: SpiceDB fails: %s: %s", code.name, details)
    return PermissionsUnavailable(
        "SpiceDB, which decides who may do what, has a fault of its own.",
        hint="The operator reads its log: is its database there, and was it prepared by "
        "spicedb datastore migrate head?",
        retry_after_s=5.0,
    )
