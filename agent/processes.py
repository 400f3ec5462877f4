"""What the kernel knows about processes: who is alive, who descends from whom, how much memory.

A process is named by pid **and** start time (clock ticks since boot) **and** boot id: a pid alone
comes round again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

_PR_SET_CHILD_SUBREAPER = 36
_FALLOC_KEEP_SIZE_PUNCH_HOLE = 0x03
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
LEASE_MARK = "AIRAVATA_LEASE"


def boot_id() -> str:
    """The kernel's random id of this boot; a new one means that every process of before is gone."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        # Not Linux: the boot time in whole minutes is the best name of a boot that is left.
        return f"boot-{int((time.time() - uptime_s()) // 60)}"


def uptime_s() -> float:
    """Seconds since boot, sleep included; comparable between processes of one boot."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _stat(pid: int) -> "Optional[list[str]]":
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            # The name may hold blanks and brackets: everything after its last bracket is fields.
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def start_ticks(pid: int) -> Optional[int]:
    """When `pid` started (ticks since boot); None when it is gone or only a zombie is left."""
    fields = _stat(pid)
    if fields is None or len(fields) < 22 or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def is_alive(pid: int, ticks: int) -> bool:
    """Whether the very process that started at `ticks` still runs."""
    return start_ticks(pid) == ticks


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process; False where the kernel cannot."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        result: int = libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return result == 0


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give the blocks of a range of a file back to the disk; False where that is not possible."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        result: int = libc.fallocate(
            fd,
            _FALLOC_KEEP_SIZE_PUNCH_HOLE,
            ctypes.c_longlong(offset),
            ctypes.c_longlong(length),
        )
    except (OSError, AttributeError):
        return False
    return result == 0


def all_pids() -> "list[int]":
    """Every process id that /proc shows; empty where there is no /proc."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []


def descendants(root: int) -> "dict[int, int]":
    """Children of `root`, their children, and so on: pid → start ticks, zombies left out."""
    children: "dict[int, list[tuple[int, int]]]" = {}
    for pid in all_pids():
        fields = _stat(pid)
        if fields is not None and len(fields) >= 22:
            alive = fields[0] not in ("Z", "X")
            children.setdefault(int(fields[1]), []).append((pid, int(fields[19]) if alive else -1))
    found: "dict[int, int]" = {}
    queue = [root]
    while queue:
        for pid, ticks in children.get(queue.pop(), ()):
            if pid not in found:
                found[pid] = ticks
                queue.append(pid)
    return {pid: ticks for pid, ticks in found.items() if ticks >= 0}


def marked(lease: str) -> "dict[int, int]":
    """Processes of ours whose environment names `lease`, wherever they were re-parented to."""
    mark = f"{LEASE_MARK}={lease}".encode()
    found = {}
    for pid in all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if mark in environment.split(b"\0"):
            ticks = start_ticks(pid)
            if ticks is not None and pid != os.getpid():
                found[pid] = ticks
    return found


def rss_kb(pids: Iterable[int]) -> int:
    """Resident memory of the processes together, kB; those that are gone count nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            statm = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
            total += int(statm[1]) * PAGE_KB
    return total


def send(pid: int, ticks: int, number: int) -> bool:
    """Signal the very process that started at `ticks`; False when it is gone."""
    if not is_alive(pid, ticks):
        return False
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def kill_marked(lease: str, rounds: int = 20) -> int:
    """Kill everything that still runs under `lease`; how many processes were met.

    In rounds, because a process can fork between the look and the signal.
    """
    met: "set[int]" = set()
    for _ in range(rounds):
        left = marked(lease)
        if not left:
            break
        for pid, ticks in left.items():
            met.add(pid)
            send(pid, ticks, signal.SIGKILL)
    return len(met)
