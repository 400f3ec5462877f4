"""A tar.gz of many stored files, made while it is sent: its memory does not grow with its size.

Entries are regular files only, with fixed mode and owner. Each has its SHA-256 as PAX header
`AIRAVATA.sha256`, so that a client checks every file on arrival without asking again. When a stored
file is missing or not what its row says, the stream breaks off in the middle of the gzip: a damaged
archive never looks whole.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airavata_scheduler.backends.storage import Opened, StorageUnavailable, shown

SHA256_HEADER = "AIRAVATA.sha256"
LEVEL = 1  # outputs are often compressed already; more costs the API's processors
_SEND_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of the archive; `opened` is closed when it has been sent."""

    name: str
    size: int
    sha256: str
    mtime_s: int
    opened: Opened


def tar_gz(members: Iterable[Member]) -> Iterator[bytes]:
    """The bytes of the archive. Raises `StorageUnavailable` when a file has another size."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    waiting = bytearray()
    for piece in _tar(members):
        waiting += packer.compress(piece)
        if len(waiting) >= _SEND_BYTES:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting) + packer.flush()


def _tar(members: Iterable[Member]) -> Iterator[bytes]:
    for member in members:
        with member.opened as opened:
            if opened.size != member.size:
                raise StorageUnavailable(
                    f"{shown(member.name)} has {opened.size} bytes in the store, "
                    f"its record says {member.size}"
                )
            yield _header(member)
            yield from opened
        yield b"\0" * (-member.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size = member.size
    info.mtime = member.mtime_s
    info.mode = 0o644
    info.pax_headers = {SHA256_HEADER: member.sha256}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
