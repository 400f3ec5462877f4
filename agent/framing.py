"""Small messages over unix sockets, and records in files: both carry their length.

Socket frame: 4 bytes length, then JSON. File record: 4 bytes length, 4 bytes CRC-32, then JSON;
a torn or corrupt record ends the reading, it never raises.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

_LENGTH = struct.Struct("<I")
_RECORD = struct.Struct("<II")
HEADER_BYTES = _RECORD.size  # of a record in a file
MAX_FRAME = 64 << 20


def compact(value: Any) -> bytes:
    """JSON without blanks; NaN is refused by every reader of ours, so it is refused here."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def frame(message: Any) -> bytes:
    """One message for a socket."""
    body = compact(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> "Iterator[dict[str, Any]]":
        """Messages that are whole after `data`; ValueError for a frame that cannot be ours."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes is not one of ours")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield json.loads(body)


def record(body: bytes) -> bytes:
    """One record for a file."""
    return _RECORD.pack(len(body), zlib.crc32(body)) + body


def records(data: bytes, start: int = 0) -> "Iterator[tuple[int, bytes]]":
    """(offset behind it, body) of each whole record from `start`; stops at the first bad one.

    A length of 0 is bad too: zeros are what a power cut leaves at the end of a file, and the
    checksum of nothing is 0.
    """
    position = start
    while position + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, position)
        end = position + _RECORD.size + length
        if not length or end > len(data):
            return
        body = data[position + _RECORD.size : end]
        if zlib.crc32(body) != checksum:
            return
        yield end, body
        position = end


def bind_socket(path: Path) -> socket.socket:
    """A listening unix socket at `path`, 0600; a stale one is replaced.

    Addresses of unix sockets are at most 107 bytes, state folders may be deeper: the folder is
    named by its descriptor.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o177)
    try:
        server.bind(_address(folder, path))
    finally:
        os.umask(mask)
        os.close(folder)
    server.listen(64)
    return server


def connect_socket(path: Path, timeout_s: float = 5.0) -> Optional[socket.socket]:
    """A connection to the unix socket at `path`; None when nobody listens."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    try:
        client.connect(_address(folder, path))
    except OSError:
        client.close()
        return None
    finally:
        os.close(folder)
    return client


def _address(folder: int, path: Path) -> str:
    by_descriptor = f"/proc/self/fd/{folder}/{path.name}"
    return by_descriptor if Path("/proc/self/fd").is_dir() else str(path)


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Write `path` whole or not at all (0600); `durable`: its bytes reach the disk first."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)


def hold_room(path: Path, size: int) -> None:
    """Take `size` bytes of the disk now for a later `replace_file` of `path`.

    As far as the file system can promise that: a payload that fills the disk must not keep the
    record of its own end from being written.
    """
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(path: Path) -> "Optional[dict[str, Any]]":
    """The object in a file of ours; None when it is absent or not whole."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        try:
            value = json.loads(file.read())
        except ValueError:
            return None
    return value if isinstance(value, dict) else None
