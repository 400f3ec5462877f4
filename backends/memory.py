"""A storage resource in memory: the twin of the real ones, for unit tests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from airavata_scheduler.backends.storage import (
    CHUNK_BYTES,
    RESERVED,
    Entry,
    OffsetMismatch,
    Opened,
    StorageFull,
    Stored,
    checked_key,
    checked_range,
    missing,
    shown,
    verify,
)
from airavata_scheduler.models.errors import Conflict


class MemoryStorage:
    """A `Storage` that holds `capacity` bytes in a dictionary."""

    def __init__(self, *, capacity: int | None = None) -> None:
        self._objects: dict[str, bytes] = {}
        self._capacity = capacity
        self._lock = threading.Lock()

    def put(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        expect_sha256: str | None = None,
        expect_size: int | None = None,
    ) -> Stored:
        """See `Storage.put`."""
        self._refuse_folder_conflict(key)
        data = b"".join(chunks)
        stored = Stored(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        verify(stored, expect_sha256, expect_size)
        with self._lock:
            self._keep(key, data)
        return stored

    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Opened:
        """See `Storage.open`."""
        checked_key(key)
        data = self._objects.get(key)
        if data is None:
            raise missing(key)
        return _OpenedBytes(data, *checked_range(start, stop, len(data)))

    def append_at(self, key: str, offset: int, data: bytes) -> int:
        """See `Storage.append_at`."""
        self._refuse_folder_conflict(key)
        with self._lock:
            before = self._objects.get(key, b"")
            if offset > len(before):
                raise OffsetMismatch(len(before))
            after = before + data[len(before) - offset :]
            self._keep(key, after)
        return len(after)

    def size(self, key: str) -> int | None:
        """See `Storage.size`."""
        checked_key(key)
        data = self._objects.get(key)
        return None if data is None else len(data)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """See `Storage.list`."""
        if prefix:
            checked_key(prefix)
        # Sorted by the parts, as walking a tree of folders gives them.
        for key in sorted(self._objects, key=lambda key: key.split("/")):
            own = not prefix and key.split("/", maxsplit=1)[0] in RESERVED
            if not own and (not prefix or key.startswith(f"{prefix}/")):
                yield Entry(key=key, size=len(self._objects[key]))

    def delete(self, key: str) -> bool:
        """See `Storage.delete`."""
        checked_key(key)
        with self._lock:
            gone = [name for name in self._objects if name == key or name.startswith(f"{key}/")]
            for name in gone:
                del self._objects[name]
        return bool(gone)

    def _keep(self, key: str, data: bytes) -> None:
        others = sum(len(held) for name, held in self._objects.items() if name != key)
        if self._capacity is not None and others + len(data) > self._capacity:
            raise StorageFull(retry_after_s=60)
        self._objects[key] = data

    def _refuse_folder_conflict(self, key: str) -> None:
        parts = checked_key(key)
        folders = {"/".join(parts[:length]) for length in range(1, len(parts))}
        inside = f"{key}/"
        if any(name in folders or name.startswith(inside) for name in self._objects):
            raise Conflict(f"{shown(key)}: a file and a folder would have one name")


class _OpenedBytes:
    """An `Opened` over bytes."""

    def __init__(self, data: bytes, start: int, stop: int) -> None:
        self._data = data
        self.size, self.start, self.stop = len(data), start, stop

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(self.start, self.stop, CHUNK_BYTES):
            yield self._data[begin : min(begin + CHUNK_BYTES, self.stop)]

    def read(self) -> bytes:
        return self._data[self.start : self.stop]

    def close(self) -> None:
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
