"""The append-only journal: what the agent knows after a `kill -9`.

Segments `00000001.log` … of records (length, CRC-32, JSON). A new segment begins with a checkpoint
of what is open, so a start reads one or two segments; older ones are kept (7 days or 256 MiB)
because acknowledged results are reported again when the server's epoch changes.

`append` is cheap and makes nothing durable; `commit` returns after the fsync. Threads that commit
at the same moment share one fsync: whoever gets the turn writes for all who wait.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from airavata_scheduler.agent.faults import JournalBroken
from airavata_scheduler.agent.framing import compact, record, records, sync_folder
from airavata_scheduler.agent.journal_state import JournalState, Record

SEGMENT_BYTES = 16 << 20
KEEP_S = 7 * 86400.0
KEEP_BYTES = 256 << 20
BALLAST_BYTES = 4 << 20


class Journal:
    """One folder of segments, one writer. `state` is what the records add up to."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        keep_s: float = KEEP_S,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        """Open `folder` and replay it; a torn tail is cut off. `was_torn` says that it happened."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()  # guards state and buffer
        self._turn = threading.Lock()  # whoever holds it writes for all
        self._buffer: list[bytes] = []
        self._appended = 0
        self._synced = 0
        self._broken: str | None = None
        self.was_torn = False
        self.state = JournalState()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd, self._size = self._replay()
        self._keep_ballast()

    def append(self, *items: Record) -> int:
        """Take records in, in order; durable with the next commit. Returns a ticket for `sync`."""
        data = b"".join(record(compact(item)) for item in items)
        with self._lock:
            for item in items:
                self.state.apply(item)
            self._buffer.append(data)
            self._appended += 1
            return self._appended

    def commit(self, *items: Record) -> None:
        """Take records in and return when they, and all before them, are on the disk.

        Raises JournalBroken when the disk refuses: nothing may be started or acknowledged then.
        """
        self.sync(self.append(*items))

    def sync(self, ticket: int | None = None) -> None:
        """Return when everything up to `ticket` (default: all) is on the disk."""
        wanted = self._appended if ticket is None else ticket
        with self._turn:
            if self._synced >= wanted:
                return
            if self._broken is not None:
                raise JournalBroken(self._broken)
            with self._lock:
                chunk, upto = b"".join(self._buffer), self._appended
                self._buffer.clear()
            self._write(chunk)
            self._synced = upto
            if self._size >= self._segment_bytes:
                self._rotate()

    def close(self) -> None:
        """Write what is left and close the file."""
        self.sync()
        os.close(self._fd)

    def history(self) -> Iterator[Record]:
        """Reports of acknowledged leases that are still kept, oldest first, each once."""
        told = set(self.state.entries)
        for path in self._segments():
            for item in _reports(path.read_bytes()):
                if item["lease"] not in told:
                    told.add(item["lease"])
                    yield item

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.log"))

    def _replay(self) -> tuple[int, int]:
        paths = self._segments() or [self._folder / "00000001.log"]
        first = len(paths) - 1
        while first > 0 and not _has_checkpoint(paths[first]):
            first -= 1
        size = 0
        for path in paths[first:]:
            data = path.read_bytes() if path.exists() else b""
            size = 0
            for end, body in records(data):
                self.state.apply(json.loads(body))
                size = end
            self.was_torn = self.was_torn or size < len(data)
        fd = os.open(
            paths[-1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        os.ftruncate(fd, size)
        os.fsync(fd)
        sync_folder(self._folder)
        return fd, size

    def _write(self, chunk: bytes) -> None:
        try:
            self._put(chunk)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._release_ballast():
                with contextlib.suppress(OSError):
                    self._put(chunk)
                    return
            # After a failed fsync nobody knows what is on the disk: no second try may hide that.
            self._broken = (
                f"The journal {self._folder} cannot be written: {error.strerror}. Free space "
                "there or check the disk, then start again; nothing acknowledged is lost."
            )
            raise JournalBroken(self._broken) from error

    def _put(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(chunk)

    def _rotate(self) -> None:
        number = int(self._segments()[-1].stem) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            fresh = os.open(self._folder / f"{number:08d}.log", flags, 0o600)
        except OSError:
            return  # no room for another file: the present one goes on, and this is tried again
        with self._lock:
            # What is appended but not written is in the state, so the checkpoint holds it.
            dump = self.state.dump()
            head = [{"t": "checkpoint", "records": len(dump)}, *dump]
            data = b"".join(record(compact(item)) for item in head)
            self._buffer.clear()
            upto = self._appended
        os.close(self._fd)
        self._fd, self._size = fresh, 0
        self._write(data)
        sync_folder(self._folder)
        self._synced = upto
        self._forget_old()

    def _forget_old(self) -> None:
        closed = self._segments()[:-1]
        kept = 0
        for path in reversed(closed):
            status = path.stat()
            kept += status.st_size
            if kept > self._keep_bytes or time.time() - status.st_mtime > self._keep_s:
                path.unlink()

    def _keep_ballast(self) -> None:
        """Hold some room back, so that results still reach a disk that somebody else filled."""
        path = self._folder / "ballast"
        if path.exists():
            return
        with contextlib.suppress(OSError), path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)

    def _release_ballast(self) -> bool:
        try:
            (self._folder / "ballast").unlink()
        except OSError:
            return False
        return True


def _has_checkpoint(path: Path) -> bool:
    """Whether the segment begins with a checkpoint that was written to its end."""
    wanted = -1
    found = 0
    for _, body in records(path.read_bytes()):
        if wanted < 0:
            head = json.loads(body)
            if head.get("t") != "checkpoint":
                return False
            wanted = head["records"]
        else:
            found += 1
        if found >= wanted >= 0:
            return True
    return False


def _reports(data: bytes) -> Iterator[Record]:
    for _, body in records(data):
        item = json.loads(body)
        if item.get("t") == "report":
            yield from item["items"]
