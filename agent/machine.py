"""What this machine offers: cores, memory, GPUs, disk."""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airavata_scheduler.agent.policy import Policy

LOW_DISK_BYTES = 500 << 20
LOW_DISK_SHARE = 0.05
LOW_STATE_BYTES = 64 << 20  # of the state folder: journal and ledgers, no outputs


@dataclass(frozen=True)
class Capacity:
    """What payloads together may use."""

    cpu: int
    ram_mb: int
    gpus: tuple[str, ...]


def capacity(policy: Policy) -> Capacity:
    """The machine's size, within the owner's policy and the cgroup that the agent runs in."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpu = len(affinity(0)) if affinity else os.cpu_count() or 1
    ram_mb = max(64, _memory_mb() * 9 // 10)
    gpus = _gpus()
    return Capacity(
        cpu=cpu if policy.max_cpu is None else policy.max_cpu,
        ram_mb=ram_mb if policy.max_ram_mb is None else min(ram_mb, policy.max_ram_mb),
        gpus=gpus if policy.max_gpu is None else gpus[: policy.max_gpu],
    )


def _memory_mb() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total >> 20


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(word for word in visible.split(",") if word.strip())
    names = (path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(sorted((n[6:] for n in names if re.fullmatch(r"nvidia\d+", n)), key=int))


def free_disk(folder: Path) -> tuple[int, int]:
    """Free bytes of the disk that holds `folder`: (all, what tasks may have; 0: take none on)."""
    usage = shutil.disk_usage(folder)
    reserve = max(LOW_DISK_BYTES, int(usage.total * LOW_DISK_SHARE))
    return usage.free, max(0, usage.free - reserve)


def state_disk_is_low(folder: Path) -> bool:
    """Whether the results of further tasks might not fit into the state folder."""
    return shutil.disk_usage(folder).free < LOW_STATE_BYTES


def describe_host() -> dict[str, Any]:
    """What the API shows of this host."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return {
        "hostname": os.uname().nodename,
        "user": user,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
