"""Inputs of leases: downloaded once per version into a cache, given to payloads as hard links.

The cache is bounded; what was used longest ago goes first. A cached file that a payload changed (it
runs as the same user) is found out by its size and time and is fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.framing import compact, read_json, replace_file

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
CACHE_BYTES = 10 << 30
_PREFIX = "/agent/v1"


class InputProblem(Exception):
    """An input cannot be brought to its place; the text names it."""


class InputCache:
    """Files by the hash of their version key, beneath one folder."""

    def __init__(self, runtime: Runtime, folder: Path, limit: int = CACHE_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runtime = runtime
        self._folder = folder
        self._limit = limit
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def place(self, work: Path, wanted: Json) -> None:
        """Bring one input to `work`. Raises InputProblem, Refused, Unreachable."""
        target = work.joinpath(*_safe_parts(str(wanted["path"])))
        target.parent.mkdir(parents=True, exist_ok=True)
        cached = self.fetch(str(wanted["version"]), str(wanted["url"]), size=wanted.get("size"))
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        try:
            os.link(cached, target)
        except OSError:
            # Another file system, or one without hard links.
            shutil.copyfile(cached, target)
            target.chmod(0o444)

    def fetch(
        self, version: str, url: str, *, size: int | None = None, sha256: str | None = None
    ) -> Path:
        """The cached file of `version`, downloaded from `url` if need be."""
        key = hashlib.sha256(version.encode()).hexdigest()
        with self._key_lock(key):
            path = self._folder / key
            if self._is_intact(path):
                os.utime(path.with_name(key + ".json"))
                return path
            self._download(path, url, size, sha256)
        self._shrink(keep=key)
        return path

    def _key_lock(self, key: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())

    def _is_intact(self, path: Path) -> bool:
        about = read_json(path.with_name(path.name + ".json"))
        try:
            status = path.lstat()
        except OSError:
            return False
        return about == {"size": status.st_size, "mtime_ns": status.st_mtime_ns}

    def _download(self, path: Path, url: str, size: int | None, sha256: str | None) -> None:
        temporary = path.with_name(path.name + ".part")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w+b") as file:
            self._runtime.api.call(
                "GET", url.removeprefix(_PREFIX), sink=file, timeout_s=300.0, patience_s=3600.0
            )
            file.flush()
            found = os.fstat(fd).st_size
            if size is not None and found != size:
                raise InputProblem(f"{url} has {found} bytes instead of {size}")
            if sha256 is not None and _sha256(file) != sha256:
                raise InputProblem(f"{url} arrived damaged: its SHA-256 is another")
            os.fchmod(fd, 0o444)
        temporary.replace(path)
        status = path.stat()
        about = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        replace_file(path.with_name(path.name + ".json"), compact(about), durable=False)

    def _shrink(self, keep: str) -> None:
        entries = []
        for about in self._folder.glob("*.json"):
            path = about.with_suffix("")
            with contextlib.suppress(OSError):
                entries.append((about.stat().st_mtime, path.stat().st_size, path, about))
        total = sum(entry[1] for entry in entries)
        for _, size, path, about in sorted(entries):
            if total <= self._limit:
                return
            if path.name != keep:
                total -= size
                for name in (about, path):
                    with contextlib.suppress(OSError):
                        name.unlink()


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while True:
        piece = file.read(1 << 20)
        if not piece:
            return digest.hexdigest()
        digest.update(piece)


def _safe_parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts or "\0" in path:
        raise InputProblem(f"the input path {path!r} leaves the work directory")
    return parts
