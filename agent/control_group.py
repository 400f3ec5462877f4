"""A control group for one payload where the agent may make one: v2 (delegated) or v1 (writable).

Where it may not, the wrapper watches resident memory instead and `cpu` is a share by niceness only.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_V1_MEMORY = Path("/sys/fs/cgroup/memory")
_V1_CPU = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")


class ControlGroup:
    """Memory limit (MB) and cpu quota (cores) of one payload; both 0 mean no limit."""

    def __init__(self, lease: str, ram_mb: int, cpu: int) -> None:
        self._name = f"airavata-{lease}"
        self._ram_bytes = ram_mb << 20
        self._cpu = cpu
        self._memory: Path | None = None
        self._folders: list[Path] = []
        self._home: list[Path] = []  # the wrapper's own groups

    @property
    def is_limited(self) -> bool:
        """Whether the kernel holds the memory limit."""
        return self._memory is not None

    def make(self) -> None:
        """Make the groups that may be made; silently none where the site does not allow it."""
        if not self._ram_bytes:
            return
        with contextlib.suppress(OSError):
            self._make_v2() if (_V2 / "cgroup.controllers").exists() else self._make_v1()

    def join(self) -> None:
        """Move the calling process in, so that what it starts is born in here."""
        _enter(self._folders)

    def leave(self) -> None:
        """Move the calling process back to where it came from."""
        _enter(self._home)

    def was_out_of_memory(self) -> bool:
        """Whether the kernel killed something in here for memory."""
        if self._memory is None:
            return False
        for name in ("memory.events", "memory.oom_control"):
            for line in _lines(self._memory / name):
                words = line.split()
                if len(words) == 2 and words[0] == "oom_kill" and words[1] != "0":
                    return True
        return False

    def peak_kb(self) -> int:
        """The most memory that was in use, kB; 0 when unknown."""
        if self._memory is None:
            return 0
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            for line in _lines(self._memory / name):
                if line.strip().isdigit():
                    return int(line) // 1024
        return 0

    def remove(self) -> None:
        """Take the groups away; the kernel needs a moment after the last process has gone."""
        for folder in self._folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)

    def _make_v1(self) -> None:
        # Beneath the agent's own groups, so that limits on the agent hold for payloads too.
        home = _own(_V1_MEMORY, "memory")
        memory = home / self._name
        memory.mkdir()
        self._home.append(home)
        self._folders.append(memory)
        (memory / "memory.limit_in_bytes").write_text(str(self._ram_bytes), encoding="ascii")
        self._memory = memory
        if self._cpu:
            home = _own(_V1_CPU, "cpu")
            cpu = home / self._name
            cpu.mkdir()
            self._home.append(home)
            self._folders.append(cpu)
            (cpu / "cpu.shares").write_text(str(1024 * self._cpu), encoding="ascii")

    def _make_v2(self) -> None:
        home = _own(_V2, "")
        folder = home / self._name
        folder.mkdir()
        self._home.append(home)
        self._folders.append(folder)
        (folder / "memory.max").write_text(str(self._ram_bytes), encoding="ascii")
        self._memory = folder
        with contextlib.suppress(OSError):
            (folder / "memory.swap.max").write_text("0", encoding="ascii")
        if self._cpu:
            with contextlib.suppress(OSError):
                (folder / "cpu.weight").write_text(
                    str(min(10000, 100 * self._cpu)), encoding="ascii"
                )


def _enter(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _own(root: Path, controller: str) -> Path:
    """The group of this process beneath `root`."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            own = root / path.lstrip("/")
            return own if own.is_dir() else root
    return root
