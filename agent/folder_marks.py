"""What names a folder itself, and none of its copies: how copied state folders are known."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Optional

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_BTIME_AT = 80
_SLACK_NS = 1_000_000_000


def mark_of(folder: Path) -> str:
    """Number and time of birth of a folder: a copy has others, whatever times it was given.

    The number alone comes round again when a folder was removed and brought back from a backup.
    Where the kernel does not tell the birth, the number has to do.
    """
    return f"{folder.stat().st_ino}:{_born(folder)}"


def is_as_written(path: Path) -> bool:
    """Whether a file that is only ever appended to was last changed by a write.

    Whoever brings a file back with its old times changes what no program can set, its `ctime`.
    """
    status = path.stat()
    return abs(status.st_ctime_ns - status.st_mtime_ns) < _SLACK_NS


def _born(path: Path) -> "Optional[str]":
    found = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        failed: int = libc.statx(_AT_FDCWD, bytes(path), 0, _STATX_BTIME, found)
    except (OSError, AttributeError):
        return None
    (known,) = struct.unpack_from("<I", found.raw)
    if failed or not known & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("<qI", found.raw, _BTIME_AT)
    return f"{seconds}.{nanoseconds:09d}"
