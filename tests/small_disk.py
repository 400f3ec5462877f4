"""A small disk of its own for a test: it can be filled to the last byte, and emptied again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.programs import missing, program

_SIZES = (64 << 20, 1 << 20, 64 << 10, 4096)


class SmallDisk:
    """A file system in memory; `path` is where it is mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take all the room that is left."""
        fd = os.open(self._filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for size in _SIZES:
                self._take(fd, size)
        finally:
            os.close(fd)

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink()

    def _take(self, fd: int, size: int) -> None:
        while True:
            try:
                os.posix_fallocate(fd, os.fstat(fd).st_size, size)
            except OSError:
                return


@contextmanager
def small_disk(path: Path, size_mb: int) -> Iterator[SmallDisk]:
    """Mount one for the block. Needs root."""
    mount = program("mount")
    if os.getuid() != 0 or mount is None:
        missing("root with mount, for a disk that gets full")
    path.mkdir()
    options = f"size={size_mb}m,mode=0700"
    subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
