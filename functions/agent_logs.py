"""Live logs: an attempt's streams grow chunk by chunk, and go on where they broke off."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, jsonify

from airavata_scheduler.backends import stores
from airavata_scheduler.backends.storage import DigestMismatch, OffsetMismatch, sha256_of
from airavata_scheduler.functions.agent_bodies import body_bytes, content_range, content_sha256
from airavata_scheduler.functions.agent_lease_access import (
    HeldLease,
    LeasePath,
    blueprint,
    held,
)
from airavata_scheduler.models.database import change, retried
from airavata_scheduler.models.errors import BadInput, TooLarge
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.queue import wake

MAX_LOG_BYTES = 1 << 30  # of one stream of one attempt; agents cut the middle out far below it

api = blueprint("agent_logs")


class LogPath(LeasePath):
    """One stream of one attempt."""

    stream: Literal["stdout", "stderr"]


@api.patch("/leases/<lease>/log/<stream>")
def append_log(path: LogPath) -> Response:
    """Append a chunk; 202 with the bytes that are stored, 416 where bytes before it are missing.

    A chunk that was stored before is stored once. The bytes may come packed with gzip; range and
    digest are those of the unpacked ones.
    """
    lease = held(path.lease)
    start, stop = content_range()
    data = _checked_chunk(start, stop)
    try:
        offset = _store(lease, path.stream, start, data)
    except OffsetMismatch as mismatch:
        return _answer(416, {"offset": mismatch.size})
    wake.publish("log", lease.lease.task_id)
    return _answer(202, {"offset": offset})


def _checked_chunk(start: int, stop: int) -> bytes:
    if stop > MAX_LOG_BYTES:
        raise TooLarge(
            f"A log stream may have {MAX_LOG_BYTES} bytes.",
            code="log_too_large",
            hint="Leave out its middle, and say so in it.",
        )
    data = body_bytes()
    if len(data) != stop - start:
        raise BadInput(
            f"The chunk has {len(data)} bytes, its range {stop - start}.",
            code="range_mismatch",
            field="Content-Range",
        )
    if sha256_of(data) != content_sha256():
        raise DigestMismatch(field="Content-Digest")
    return data


def _store(lease: HeldLease, stream: str, start: int, data: bytes) -> int:
    named = lease.lease
    key = stores.log_key(named.task_id, named.attempt, named.lease_id, stream)
    storage_id = lease.storage_id or stores.default_storage_id()
    offset = stores.store(storage_id).append_at(key, start, data)
    _note(lease, stream, key, offset)
    return offset


@retried
def _note(lease: HeldLease, stream: str, key: str, size: int) -> None:
    """Keep the row's size at the largest that was stored: chunks may arrive out of order."""
    named = lease.lease
    insert_rows(
        "logs",
        ("lease_id", "stream", "task_id", "size", "storage_key", "truncated"),
        [(named.lease_id, stream, named.task_id, 0, key, False)],
        on_conflict="nothing",
    )
    change(
        "UPDATE logs SET size = %s, storage_key = %s "
        "WHERE lease_id = %s AND stream = %s AND size < %s",
        (size, key, named.lease_id, stream, size),
    )


def _answer(status: int, document: dict[str, Any]) -> Response:
    response = jsonify(document)
    response.status_code = status
    return response
