"""A storage resource that is a mounted directory (kind NFS; a local disk is the same thing).

Every path is walked folder by folder with `openat` and O_NOFOLLOW from a descriptor of the root,
so neither `..` nor a link that somebody swaps in between check and use leads outside. What is no
regular file (FIFO, device, socket) is opened without blocking, recognised and refused.

An object appears whole: it is written to `.incoming/`, fsynced, renamed into place, and the folder
is fsynced. `.incoming/` and the objects share one file system, the one that the root is on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from airavata_scheduler.backends.storage import (
    CHUNK_BYTES,
    RESERVED,
    Entry,
    LinkRefused,
    OffsetMismatch,
    Opened,
    StorageFull,
    StorageUnavailable,
    Stored,
    checked_key,
    checked_range,
    missing,
    shown,
    verify,
)
from airavata_scheduler.models.errors import AiravataError, Conflict

INCOMING = ".incoming"
STALE_INCOMING_S = 24 * 3600
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GROW = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class PosixStorage:
    """A `Storage` below the folder `root`, which is made (0700) when its parent exists."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (root / INCOMING).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageUnavailable(
                f"the storage folder {root} cannot be made: {error.strerror}",
                hint="check that it is mounted and that this user may write there",
                retry_after_s=30,
            ) from error
        self._sweep_incoming()

    def put(
        self,
        key: str,
        chunks: Iterable[bytes],
        *,
        expect_sha256: str | None = None,
        expect_size: int | None = None,
    ) -> Stored:
        """See `Storage.put`."""
        parts = checked_key(key)
        with _named_errors(key), self._folder((INCOMING,)) as incoming:
            name = secrets.token_hex(16)
            try:
                stored = _write(incoming, name, chunks)
                verify(stored, expect_sha256, expect_size)
                with self._folder(parts[:-1], make=True) as folder:
                    os.rename(name, parts[-1], src_dir_fd=incoming, dst_dir_fd=folder)
                    os.fsync(folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=incoming)
                raise
        return stored

    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Opened:
        """See `Storage.open`."""
        parts = checked_key(key)
        with _named_errors(key), self._folder(parts[:-1]) as folder:
            descriptor = os.open(parts[-1], _READ, dir_fd=folder)
            try:
                size = _regular_size(descriptor, key)
            except BaseException:
                os.close(descriptor)
                raise
        return _OpenedFile(descriptor, size, *checked_range(start, stop, size))

    def append_at(self, key: str, offset: int, data: bytes) -> int:
        """See `Storage.append_at`."""
        parts = checked_key(key)
        with _named_errors(key), self._folder(parts[:-1], make=True) as folder:
            descriptor = os.open(parts[-1], _GROW, 0o600, dir_fd=folder)
            try:
                _regular_size(descriptor, key)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                return _grow(descriptor, folder, offset, data)
            finally:
                os.close(descriptor)

    def size(self, key: str) -> int | None:
        """See `Storage.size`."""
        parts = checked_key(key)
        try:
            with _named_errors(key), self._folder(parts[:-1]) as folder:
                status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        except AiravataError as error:
            if error.code == "object_missing":
                return None
            raise
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """See `Storage.list`."""
        parts = checked_key(prefix) if prefix else ()
        try:
            with _named_errors(prefix), self._folder(parts) as folder:
                yield from _walk(folder, parts)
        except AiravataError as error:
            if error.code != "object_missing":
                raise

    def delete(self, key: str) -> bool:
        """See `Storage.delete`."""
        parts = checked_key(key)
        try:
            with _named_errors(key), self._folder(parts[:-1]) as folder:
                _remove(folder, parts[-1])
        except AiravataError as error:
            if error.code == "object_missing":
                return False
            raise
        return True

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder `parts` below the root, reached without following a link."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=descriptor)
                        os.fsync(descriptor)
                child = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = child
            yield descriptor
        finally:
            os.close(descriptor)

    def _sweep_incoming(self) -> None:
        """Remove what writers that were killed left behind."""
        oldest = time.time() - STALE_INCOMING_S
        for path in (self.root / INCOMING).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()


class _OpenedFile:
    """An `Opened` over a descriptor."""

    def __init__(self, descriptor: int, size: int, start: int, stop: int) -> None:
        self._descriptor: int | None = descriptor
        self.size, self.start, self.stop = size, start, stop

    def __iter__(self) -> Iterator[bytes]:
        position = self.start
        while position < self.stop and self._descriptor is not None:
            chunk = os.pread(self._descriptor, min(CHUNK_BYTES, self.stop - position), position)
            if not chunk:
                # The file shrank: ending early would pass for the whole, so say it.
                raise StorageUnavailable("a stored file became shorter while it was read")
            position += len(chunk)
            yield chunk

    def read(self) -> bytes:
        return b"".join(self)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _write(folder: int, name: str, chunks: Iterable[bytes]) -> Stored:
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for chunk in chunks:
            _write_all(descriptor, chunk)
            digest.update(chunk)
            size += len(chunk)
        os.fsync(file.fileno())
    return Stored(size=size, sha256=digest.hexdigest())


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _grow(descriptor: int, folder: int, offset: int, data: bytes) -> int:
    """Append what of `data` is new; back to the old size when the disk fills up half-way."""
    before = os.fstat(descriptor).st_size
    if offset > before:
        raise OffsetMismatch(before)
    fresh = data[before - offset :]
    if fresh:
        os.lseek(descriptor, before, os.SEEK_SET)
        try:
            _write_all(descriptor, fresh)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
        os.fdatasync(descriptor)
    if before == 0:
        os.fsync(folder)
    return before + len(fresh)


def _regular_size(descriptor: int, key: str) -> int:
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise LinkRefused(f"{shown(key)} is no regular file; only files can be read")
    return status.st_size


def _walk(folder: int, parts: tuple[str, ...]) -> Iterator[Entry]:
    """The regular files below a folder. Depth is bounded by the length of a key."""
    with os.scandir(folder) as entries:
        found = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
            for entry in entries
        )
    for name, is_folder, is_file in found:
        if not parts and name in RESERVED:
            continue
        path = (*parts, name)
        if is_folder:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                child = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    yield from _walk(child, path)
                finally:
                    os.close(child)
        elif is_file:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield Entry(key="/".join(path), size=status.st_size)


def _remove(folder: int, name: str) -> None:
    """Unlink a file or, from the leaves up, a folder; links are unlinked, never followed."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=folder)
        return
    child = os.open(name, _FOLDER, dir_fd=folder)
    try:
        with os.scandir(child) as entries:
            names = [entry.name for entry in entries]
        for inner in names:
            with contextlib.suppress(FileNotFoundError):
                _remove(child, inner)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=folder)


@contextlib.contextmanager
def _named_errors(key: str) -> Iterator[None]:
    """Turn the operating system's errors into ours, each with its cause and next step."""
    try:
        yield
    except OSError as error:
        raise _named(error, key) from error


def _named(error: OSError, key: str) -> AiravataError:
    if error.errno == errno.ENOENT:
        return missing(key)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(retry_after_s=60)
    if error.errno == errno.ELOOP:
        return LinkRefused()
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
        # O_DIRECTORY with O_NOFOLLOW says ENOTDIR for a link as well.
        return Conflict(
            f"{shown(key)}: a file, a folder or a link of that name is in the way",
            code="path_conflict",
        )
    return StorageUnavailable(
        f"{shown(key)} cannot be read or written: {error.strerror}", retry_after_s=30
    )
