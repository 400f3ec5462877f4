"""Shipping one stream of one lease, with resume: the server says where it stands."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.api import content_digest
from airavata_scheduler.agent.lease_book import Held
from airavata_scheduler.agent.log_files import LogFile

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
STREAMS = ("stdout", "stderr")
INLINE_BYTES = 8192
_PIECE = 1 << 20
_MARK = "streamed"


def log_file(runtime: Runtime, held: Held, stream: str, *, ended: bool) -> LogFile:
    """The stream of a lease as it is to be shipped."""
    path = runtime.places.of(held.lease) / stream
    return LogFile(path, runtime.policy.max_log_mb << 20, ended)


def ship(runtime: Runtime, held: Held, stream: str, *, ended: bool, patient: bool) -> None:
    """Send what is new of a stream; `patient` tries until it is done (the payload has ended)."""
    with held.log_lock:
        source = log_file(runtime, held, stream, ended=ended)
        position = held.streamed.get(stream, 0)
        total = source.total()
        if position >= total:
            return
        # From here on the report must not carry the text itself, also after a restart.
        if not _mark(runtime.places.of(held.lease), stream) and not ended:
            return  # the disk is full; after the end what is too long for the report goes anyway
        stuck = 0
        while position < total and stuck < 3:
            data = source.read(position, min(_PIECE, total - position))
            if not data:
                return
            found = _patch(runtime, held, stream, position, data, patient=patient)
            stuck = 0 if found > position else stuck + 1
            position = found
            held.streamed[stream] = position


def was_streamed(runtime: Runtime, held: Held, stream: str) -> bool:
    """Whether any part of it went out, in this life of the agent or an earlier one."""
    if stream in held.streamed:
        return True
    return (runtime.places.of(held.lease) / f"{stream}.{_MARK}").exists()


def final_logs(runtime: Runtime, held: Held) -> Json:
    """The report's `logs`; long or streamed ones are shipped to their end first."""
    found: Json = {}
    for stream in STREAMS:
        source = log_file(runtime, held, stream, ended=True)
        total = source.total()
        if not total:
            continue
        if total <= INLINE_BYTES and not was_streamed(runtime, held, stream):
            data = b64encode(source.read(0, total)).decode()
            found[stream] = {"size": total, "data": data}
            continue
        ship(runtime, held, stream, ended=True, patient=True)
        found[stream] = {"size": total}
    return found


def needs_shipping(runtime: Runtime, held: Held) -> bool:
    """Whether `final_logs` needs the network."""
    for stream in STREAMS:
        total = log_file(runtime, held, stream, ended=True).total()
        if total and (total > INLINE_BYTES or was_streamed(runtime, held, stream)):
            return True
    return False


def _mark(folder: Path, stream: str) -> bool:
    """Note durably enough that some of the stream went out; False where the disk refuses that."""
    path = folder / f"{stream}.{_MARK}"
    try:
        path.touch(mode=0o600)
    except OSError:
        return False
    return True


def _patch(
    runtime: Runtime, held: Held, stream: str, position: int, data: bytes, *, patient: bool
) -> int:
    answer = runtime.api.call(
        "PATCH",
        f"/leases/{held.lease}/log/{stream}",
        body=data,
        headers={
            "Content-Range": f"bytes {position}-{position + len(data) - 1}/*",
            "Content-Digest": content_digest(data),
        },
        timeout_s=60.0,
        tries=0 if patient else 1,
        patience_s=86400.0,
        accept=(416,),
    )
    offset = answer.json().get("offset")
    return int(offset) if isinstance(offset, int) else position + len(data)
