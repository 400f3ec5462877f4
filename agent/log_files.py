"""Log files of payloads: bounded on disk, shipped in two parts when they are too long.

A stream keeps its first and its last half; the middle is given back to the disk as it grows (the
payload goes on writing to the same file) and is replaced by one line when it is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from airavata_scheduler.agent.processes import punch_hole

_BLOCK = 4096


def trim_log(path: Path, limit: int) -> None:
    """Free the blocks between the first and the last half of `limit` bytes, if there are any."""
    try:
        size = path.stat().st_size
        if size <= limit + (1 << 20):
            return
        start = _up(limit // 2)
        end = (size - limit // 2) // _BLOCK * _BLOCK
        if end <= start:
            return
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        punch_hole(fd, start, end - start)
    finally:
        os.close(fd)


def _up(number: int) -> int:
    return -(-number // _BLOCK) * _BLOCK


@dataclass(frozen=True)
class LogFile:
    """One stream of one payload, as it is to be shipped.

    While the payload runs (`ended` false) only the first half may be shipped: what the last half is
    nobody knows yet.
    """

    path: Path
    limit: int
    ended: bool

    def pieces(self) -> list[tuple[int, int] | bytes]:
        """What to ship, in order: ranges (start, end) of the file, and the marker's bytes."""
        size = self.size()
        half = self.limit // 2
        if size <= self.limit:
            return [(0, size if self.ended else min(size, half))]
        if not self.ended:
            return [(0, half)]
        tail = size - half
        marker = f"\n[... {tail - half} bytes left out by the agent ...]\n".encode()
        return [(0, half), marker, (tail, size)]

    def size(self) -> int:
        """Bytes that the payload wrote so far; 0 when there is no file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def total(self) -> int:
        """Bytes that `read` can give."""
        return sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self.pieces())

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset` of what is to be shipped."""
        found = bytearray()
        position = 0
        for piece in self.pieces():
            extent = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            skip = max(0, offset - position)
            if skip < extent and len(found) < length:
                found += self._piece(piece, skip, min(extent - skip, length - len(found)))
            position += extent
        return bytes(found)

    def _piece(self, piece: tuple[int, int] | bytes, skip: int, length: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[skip : skip + length]
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return b""
        try:
            return os.pread(fd, length, piece[0] + skip)
        finally:
            os.close(fd)
