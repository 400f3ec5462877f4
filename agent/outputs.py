"""Declared outputs: found beneath the work directory, never through a link.

Every directory on the way is opened by descriptor, no link is followed: one that is swapped in
after a check leads nowhere. Links, FIFOs, devices and other users' files are refused.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MOST_FILES = 100_000
MOST_LOOKED_AT = 1_000_000  # names that one glob may look at: some seconds, some 100 MB
MOST_DEEP = 100  # folders below each other; each one on the way is held open
_SPARSE_BYTES = 1 << 30
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OutputProblem(Exception):
    """A declared output is missing or must not be read; the text names it."""

    code = "output_missing"


class OutputRefused(OutputProblem):
    """The server does not take an output, and will not take it the next time either."""

    code = "output_refused"


@dataclass(frozen=True)
class OutputFile:
    """One file to publish. `path` is relative to the work directory; `sha256` is raw."""

    output: str
    path: str
    size: int
    sha256: bytes


def find_outputs(work: Path, patterns: dict[str, str]) -> list[OutputFile]:
    """Every declared output, with size and hash. OutputProblem for the first that is amiss."""
    found: list[OutputFile] = []
    if not patterns:
        return found
    root = os.open(work, _FOLDER)
    try:
        for output, pattern in patterns.items():
            paths = _matches(root, output, pattern)
            if not paths:
                raise OutputProblem(
                    f"The declared output {output} ({pattern}) is missing; {_there(root)}."
                )
            if len(found) + len(paths) > MOST_FILES:
                raise OutputProblem(
                    f"The outputs are more than {MOST_FILES} files, with those of {output} "
                    f"({pattern}); pack them into one file."
                )
            found += [_measure(root, output, path) for path in sorted(paths)]
    finally:
        os.close(root)
    return found


def open_output(work: Path, path: str) -> IO[bytes]:
    """The file `path` beneath `work`, for reading. Raises OutputProblem, OSError."""
    root = os.open(work, _FOLDER)
    try:
        return open_beneath(root, path)
    finally:
        os.close(root)


def open_beneath(root: int, path: str) -> IO[bytes]:
    """Open a regular file of ours beneath the directory `root` without following any link."""
    *folders, name = _parts(path)
    here = os.dup(root)
    try:
        for folder in folders:
            deeper = os.open(folder, _FOLDER, dir_fd=here)
            os.close(here)
            here = deeper
        fd = os.open(name, _FILE, dir_fd=here)
    except OSError as error:
        raise OutputProblem(
            f"{path} cannot be read: {error.strerror}; links are refused."
        ) from error
    finally:
        os.close(here)
    status = os.fstat(fd)
    problem = _unfit(status)
    if problem is not None:
        os.close(fd)
        raise OutputProblem(f"{path} is refused: {problem}.")
    return os.fdopen(fd, "rb")


def _unfit(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if status.st_size > _SPARSE_BYTES and status.st_blocks * 512 < status.st_size // 2:
        return f"it is sparse ({status.st_size} bytes long, {status.st_blocks * 512} on the disk)"
    return None


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise OutputProblem(f"{path!r} does not name a file beneath the work directory.")
    return parts


def _matches(root: int, output: str, pattern: str) -> list[str]:
    parts = _parts(pattern)
    if not any(mark in pattern for mark in "*?["):
        try:
            open_beneath(root, pattern).close()
        except OutputProblem as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return []
            raise
        return ["/".join(parts)]
    return _Walk(output, pattern).matches(root, parts)


class _Walk:
    """One glob's way through a work directory; a payload cannot make it endless."""

    def __init__(self, output: str, pattern: str) -> None:
        self._name = f"The declared output {output} ({pattern})"
        self._looked_at = 0

    def matches(self, root: int, parts: list[str]) -> list[str]:
        """Paths that match, each once, as many as may be and one more."""
        found: dict[str, None] = {}
        for path in self._below(root, "", parts):
            found[path] = None
            if len(found) > MOST_FILES:
                break
        return list(found)

    def _below(self, folder: int, prefix: str, parts: list[str]) -> Iterator[str]:
        """Paths that match; links are not entered and not matched."""
        head, rest = parts[0], parts[1:]
        if head == "**" and not rest:
            rest = ["*"]
        if head == "**":
            yield from self._below(folder, prefix, rest)
        for name, is_folder in self._named(folder, head):
            if is_folder and (rest or head == "**"):
                if prefix.count("/") >= MOST_DEEP:
                    raise OutputProblem(f"The work directory is deeper than {MOST_DEEP} folders.")
                deeper = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    below = parts if head == "**" else rest
                    yield from self._below(deeper, f"{prefix}{name}/", below)
                finally:
                    os.close(deeper)
            elif not is_folder and not rest and head != "**":
                yield prefix + name

    def _named(self, folder: int, head: str) -> list[tuple[str, bool]]:
        """The entries that `head` matches, and whether each is a folder."""
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self._look()
                name = entry.name
                hidden = name.startswith(".") and not head.startswith(".")
                if hidden or entry.is_symlink():
                    continue
                if head == "**" or fnmatch.fnmatchcase(name, head):
                    found.append((name, entry.is_dir(follow_symlinks=False)))
        return sorted(found)

    def _look(self) -> None:
        self._looked_at += 1
        if self._looked_at > MOST_LOOKED_AT:
            raise OutputProblem(
                f"{self._name} looks at more than {MOST_LOOKED_AT} files and folders; "
                f"write the outputs into a folder of their own and name it."
            )


def _measure(root: int, output: str, path: str) -> OutputFile:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise OutputProblem(f"The name of the output file {path!r} is not valid UTF-8.") from None
    digest = hashlib.sha256()
    size = 0
    with open_beneath(root, path) as file:
        while True:
            piece = file.read(1 << 20)
            if not piece:
                return OutputFile(output, path, size, digest.digest())
            digest.update(piece)
            size += len(piece)


def _there(root: int) -> str:
    names = []
    with os.scandir(root) as entries:
        for entry in entries:
            names.append(
                ascii(entry.name)[1:-1] + ("/" if entry.is_dir(follow_symlinks=False) else "")
            )
            if len(names) > 200:
                break
    if not names:
        return "the work directory is empty"
    shown = ", ".join(sorted(names)[:10])
    return f"the work directory has: {shown}" + (", …" if len(names) > 10 else "")
