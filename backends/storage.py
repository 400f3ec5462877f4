"""The seam to every storage resource: named byte strings below one root.

A *key* is a relative path such as `artifacts/<experiment>/<node>/0/1-<lease>/result.csv`. The
same rules hold for every kind of store, so that a key that one store takes is good for all of
them: `checked_key` has them. The scheduler keeps its own objects below `RESERVED`; a path that a
user names goes through `user_key`, which refuses these, so nobody reads another project's files by
staging them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from airavata_scheduler.models.errors import (
    BadInput,
    Conflict,
    Forbidden,
    NotFound,
    Unavailable,
)

CHUNK_BYTES = 1 << 18
MAX_KEY_BYTES = 3000  # PATH_MAX is 4,096 on Linux; the root needs room in front
MAX_PART_BYTES = 255  # NAME_MAX on every file system in use
RESERVED = ("artifacts", "logs", "blobs", ".incoming")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a `put` wrote: the number of bytes, and their SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One object in a listing."""

    key: str
    size: int


class Opened(Protocol):
    """An object opened for reading: iterate its bytes, then close it.

    `size` is the whole object's; `start` and `stop` are the range that iterating yields. The
    content is what it was at `open`, also when the key is replaced or deleted meanwhile.
    """

    size: int
    start: int
    stop: int

    def __iter__(self) -> Iterator[bytes]: ...
    def read(self) -> bytes:
        """The whole range at once; only for what is known to be small."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Storage(Protocol):
    """One storage resource.

    Every method takes a key and raises `BadInput` for one that is malformed, `StorageFull` when
    there is no space, `StorageUnavailable` when the store cannot be reached.
    """

    def put(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        expect_sha256: str | None = None,
        expect_size: int | None = None,
    ) -> Stored:
        """Write an object whole or not at all, replacing an older one; durable on return.

        Raises `DigestMismatch` (and keeps nothing) when the bytes are not the expected ones, and
        `Conflict` when the key is a folder or has a file as one of its folders.
        """
        ...

    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Opened:
        """Open the bytes `start` ≤ i < `stop` (clipped to the object's end). Raises `NotFound`."""
        ...

    def append_at(self, key: str, offset: int, data: bytes) -> int:
        """Put `data` at `offset` of a growing object; the size after it, durable on return.

        What is there already is left as it is, so the same chunk twice is harmless. Raises
        `OffsetMismatch`, which has the present size, when `offset` is behind the end.
        """
        ...

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None when there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every object whose key lies below the folder `prefix`, in the order of the names.

        The scheduler's own objects are left out unless the prefix names them. Links are left out.
        """
        ...

    def delete(self, key: str) -> bool:
        """Remove one object, or a folder with all that is in it; whether there was anything."""
        ...


class StorageFull(Unavailable):
    """The storage resource has no space left; free some, or choose another one with `storage`."""

    code = "storage_full"


class StorageUnavailable(Unavailable):
    """The storage resource cannot be read or written now; its administrator can say why."""

    code = "storage_unavailable"


class DigestMismatch(BadInput):
    """The bytes that arrived are not the ones that were announced; send them again."""

    code = "digest_mismatch"


class LinkRefused(Forbidden):
    """The path leads through a link or to something that is no regular file; both are refused."""

    code = "link_refused"


class OffsetMismatch(Conflict):
    """The chunk does not begin where the stored bytes end; go on from `size`."""

    status = 416
    code = "offset_mismatch"

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"{size} bytes are stored; send the bytes from offset {size} on")


def checked_key(key: str) -> tuple[str, ...]:
    """The parts of a key that is safe on every store. Raises `BadInput` with the fault."""
    if not key:
        raise BadInput("the path is empty; name a file", code="path_invalid", field="path")
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise _path_invalid(key, "has a character that is no Unicode text") from error
    if len(encoded) > MAX_KEY_BYTES:
        raise _path_invalid(key, f"is longer than {MAX_KEY_BYTES} bytes")
    parts = tuple(key.split("/"))
    for part in parts:
        fault = _fault_in_part(part)
        if fault:
            raise _path_invalid(key, fault)
    return parts


def user_key(path: str) -> str:
    """The key for a path that a user wrote (`/code/run.py`, `./code/run.py`, `code/`, `/`).

    The root itself is "". Raises `BadInput` for a malformed one and for the scheduler's folders.
    """
    key = "/".join(part for part in path.split("/") if part not in ("", "."))
    if not key:
        return ""
    if checked_key(key)[0] in RESERVED:
        raise BadInput(
            f"{shown(path)}: the folder {key.split('/', maxsplit=1)[0]!r} of a storage resource "
            "belongs to the scheduler; put your files into another one",
            code="path_reserved",
            field="path",
        )
    return key


def shown(text: str) -> str:
    """A path as it may stand in a message or a log: quoted, control characters escaped, ≤ 120."""
    return ascii(text if len(text) <= 120 else text[:117] + "...")


def missing(key: str) -> NotFound:
    """The error for a key without an object."""
    return NotFound(f"{shown(key)} is not in the storage resource", code="object_missing")


def checked_range(start: int, stop: int | None, size: int) -> tuple[int, int]:
    """The range clipped to the object, never negative."""
    begin = min(max(start, 0), size)
    return begin, max(begin, size if stop is None else min(stop, size))


def verify(stored: Stored, expect_sha256: str | None, expect_size: int | None) -> None:
    """Raise `DigestMismatch` unless the stored bytes are the expected ones."""
    if expect_size is not None and stored.size != expect_size:
        raise DigestMismatch(
            f"{stored.size} bytes arrived where {expect_size} were announced; send them again"
        )
    if expect_sha256 is not None and stored.sha256 != expect_sha256.lower():
        raise DigestMismatch(
            f"the bytes have SHA-256 {stored.sha256}, announced was {expect_sha256.lower()}; "
            "send them again",
            hint="The SHA-256 is that of the bytes as they are sent.",
        )


def sha256_of(data: bytes) -> str:
    """The SHA-256 of some bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def _fault_in_part(part: str) -> str | None:
    if part == "":
        return "has an empty part; write it relative, without a leading, double or trailing /"
    if part in (".", ".."):
        return f"has a part {part!r}; write it without"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"has a name longer than {MAX_PART_BYTES} bytes"
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in part):
        return "has a control character"
    # Compatibility forms (full-width / and dots) turn into the real ones where a system normalises.
    plain = unicodedata.normalize("NFKC", part)
    if plain in (".", "..") or ("/" in plain):
        return "has a character that other systems read as / or .."
    return None


def _path_invalid(key: str, fault: str) -> BadInput:
    return BadInput(f"the path {shown(key)} {fault}", code="path_invalid", field="path")
