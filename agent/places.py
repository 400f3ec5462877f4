"""Where leases live on the disk, and for how long after they ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any

LEASE_NAME = re.compile(r"[0-9A-Za-z-]{1,64}\.\d{1,6}\.[0-9a-f]{32}", re.ASCII)
KEEP_FAILED_S = 86400.0
KEEP_FENCED_S = 7 * 86400.0
_MARK = "keep-until"
_SLACK_S = 60.0  # the times of files are rougher than the clock


def is_lease_name(text: object) -> bool:
    """Whether `text` is a lease as the protocol names it; only such names become folders."""
    return isinstance(text, str) and LEASE_NAME.fullmatch(text) is not None


class Places:
    """Folders of leases beneath one root."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root

    def of(self, lease: str) -> Path:
        """The folder of a lease, made or not."""
        return self.root / lease

    def make(self, lease: str) -> Path:
        """The folder of a lease with its `work` and `tmp`; existing ones stay as they are."""
        folder = self.root / lease
        for path in (folder, folder / "work", folder / "tmp"):
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        return folder

    def keep(self, lease: str, seconds: float) -> None:
        """Let the folder stay for a while: somebody may want to look at it."""
        folder = self.root / lease
        if folder.is_dir():
            mark, until = folder / _MARK, time.time() + seconds
            with contextlib.suppress(OSError):
                mark.touch(mode=0o600)
                # As the file's own time: a full disk still takes that, but not one byte.
                os.utime(mark, (until, until))

    def remove(self, lease: str) -> None:
        """Take the folder away with all that is in it; links are removed, never followed."""
        folder = self.root / lease
        if folder.is_dir():
            try:
                shutil.rmtree(folder, onerror=_open_up)
            except RecursionError:
                _flatten(folder)
                shutil.rmtree(folder, onerror=_open_up)

    def sweep(self, held: set[str]) -> int:
        """Remove folders whose time is over; how many. Those of `held` leases stay."""
        removed = 0
        for folder in list(self.root.iterdir()):
            if folder.name in held or not is_lease_name(folder.name):
                continue
            if _keep_until(folder) < time.time():
                self.remove(folder.name)
                removed += 1
        return removed

    def give_up_failed(self) -> int:
        """Remove the folders that are kept of failed tasks only to be looked at; how many.

        Their results and logs are with the server. Those of superseded attempts stay their time.
        """
        removed = 0
        for folder in list(self.root.iterdir()):
            if is_lease_name(folder.name) and _is_kept_of_failed(folder):
                self.remove(folder.name)
                removed += 1
        return removed


def _keep_until(folder: Path) -> float:
    # A clock that was wrong must not keep folders for ever: bounded from when the mark was made.
    try:
        mark = (folder / _MARK).stat()
        return min(mark.st_mtime, mark.st_ctime + KEEP_FENCED_S)
    except OSError:
        # Of another agent with the same root, or not finished: leave it for as long as the longest.
        with contextlib.suppress(OSError):
            return folder.stat().st_mtime + KEEP_FENCED_S
        return time.time() + KEEP_FENCED_S


def _is_kept_of_failed(folder: Path) -> bool:
    try:
        mark = (folder / _MARK).stat()
    except OSError:
        return False
    return mark.st_mtime - mark.st_ctime <= KEEP_FAILED_S + _SLACK_S


def _flatten(root: Path) -> None:
    """Bring every folder of a pile up to `root`: it may be too deep for rmtree."""
    number = 0
    folders = [Path(entry) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    while folders:
        folder = folders.pop()
        folder.chmod(0o700)
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                number += 1
                folders.append(Path(entry).rename(root / f"airavata-flat-{number}"))


def _open_up(function: Any, path: str, _error: Any) -> None:
    """A payload may leave directories without permissions; they are ours, so open and try again."""
    parent = os.path.dirname(path)  # noqa: PTH120
    with contextlib.suppress(OSError):
        for name in (parent, path):
            if stat.S_ISDIR(os.lstat(name).st_mode):
                os.chmod(name, 0o700)  # noqa: PTH101
        function(path)
