"""The append-only journal: what the agent knows after a `kill -9`.

Segments `00000001.log` … of records (length, CRC-32, JSON). A new segment begins with a checkpoint
of what is open, so a start reads one or two segments; older ones are kept (7 days or 256 MiB)
because acknowledged results are reported again when the server's epoch changes.

`append` is cheap and makes nothing durable; `commit` returns after the fsync. Threads that commit
at the same moment share one fsync: whoever gets the turn writes for all who wait.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from airavata_scheduler.agent.faults import JournalBroken
from airavata_scheduler.agent.folder_marks import is_as_written
from airavata_scheduler.agent.framing import compact, record, sync_folder
from airavata_scheduler.agent.journal_segments import SegmentReader, has_checkpoint, reports
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
        room_comes: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open `folder` and replay it; a torn end and damage before it are passed over.

        `was_torn` says that there was a torn end, `damage` what else is wrong, in sentences. What
        is left may be older than what happened then: see `JournalState.doubts`. `room_comes` waits
        a moment for room on a full disk; False gives up.
        """
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._room_comes = room_comes
        self._lock = threading.Lock()  # guards state and buffer
        self._turn = threading.Lock()  # whoever holds it writes for all
        self._buffer: list[bytes] = []
        self._appended = 0
        self._synced = 0
        self._broken: str | None = None
        self.was_torn = False
        self.damage: list[str] = []
        self.state = JournalState()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd, self._size = self._replay()
        if self.was_torn or self.damage:
            self._leave_torn()
        self.keep_ballast()

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
            for item in reports(path.read_bytes()):
                if item["lease"] not in told:
                    told.add(item["lease"])
                    yield item

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.log"))

    def _replay(self) -> tuple[int, int]:
        paths = self._segments() or [self._folder / "00000001.log"]
        first = len(paths) - 1
        while first > 0 and not has_checkpoint(paths[first]):
            first -= 1
        size = 0
        for path in paths[first:]:
            data = path.read_bytes() if path.exists() else b""
            segment = SegmentReader(data)
            for item in segment:
                self.state.apply(item)
            size = segment.end
            self.was_torn = self.was_torn or size < len(data)
            if segment.damaged:
                self.damage.append(f"{path}: {segment.damaged} bytes are no records")
        if paths[-1].exists() and not is_as_written(paths[-1]):
            self.damage.append(f"{paths[-1]}: was brought back from a copy")
        fd = os.open(
            paths[-1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        os.fsync(fd)
        sync_folder(self._folder)
        return fd, size

    def _leave_torn(self) -> None:
        """Write on in a segment of its own, whose checkpoint has the doubt.

        It must not be gone with the tear if this start dies before it acts on it.
        """
        self.state.doubts()
        if not self._rotate():
            os.ftruncate(self._fd, self._size)

    def _write(self, chunk: bytes) -> None:
        try:
            while not self._put(chunk):
                if not self._release_ballast() and not self._room_comes():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            # After a failed fsync nobody knows what is on the disk: no second try may hide that.
            self._broken = (
                f"The journal {self._folder} cannot be written: {error.strerror}. Free space "
                "there or check the disk, then start again; nothing acknowledged is lost."
            )
            raise JournalBroken(self._broken) from error

    def _put(self, chunk: bytes) -> bool:
        """Append and sync; False, with nothing of it left, where the disk has no room."""
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise
        os.fsync(self._fd)
        self._size += len(chunk)
        return True

    def _rotate(self) -> bool:
        """Begin a new segment; False where the disk refuses that: the present one goes on."""
        path = self._folder / f"{int(self._segments()[-1].stem) + 1:08d}.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        present = self._fd, self._size
        try:
            self._fd, self._size = os.open(path, flags, 0o600), 0
        except OSError:
            return False
        with self._lock:
            # What is appended but not written is in the state, so the checkpoint holds it.
            dump = self.state.dump()
            behind, self._buffer = self._buffer, []
            upto = self._appended
        if not self._begin(dump):
            os.close(self._fd)
            path.unlink()
            self._fd, self._size = present
            with self._lock:
                self._buffer[:0] = behind
            return False
        os.close(present[0])
        sync_folder(self._folder)
        self._synced = upto
        self._forget_old()
        return True

    def _begin(self, dump: list[Record]) -> bool:
        """Write the checkpoint of a new segment; whether it is on the disk."""
        head = [{"t": "checkpoint", "records": len(dump)}, *dump]
        try:
            return self._put(b"".join(record(compact(item)) for item in head))
        except OSError:
            return False

    def _forget_old(self) -> None:
        closed = self._segments()[:-1]
        kept = 0
        for path in reversed(closed):
            status = path.stat()
            kept += status.st_size
            if kept > self._keep_bytes or time.time() - status.st_mtime > self._keep_s:
                path.unlink()

    def keep_ballast(self) -> None:
        """Hold some room back, so that results still reach a disk that somebody else filled."""
        path = self._folder / "ballast"
        if path.exists():
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError:
            self._release_ballast()

    def _release_ballast(self) -> bool:
        try:
            (self._folder / "ballast").unlink()
        except OSError:
            return False
        return True
