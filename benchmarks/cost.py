"""CPU seconds and memory of a system's processes, by the part that they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
PAYLOADS = "payloads"
# Part by a word of the command line; the first that fits counts.
_PARTS = (
    ("_shepherd", "shepherd"),
    ("airavata_scheduler.agent run", "agent"),
    ("airavata-scheduler worker", "agent"),
    ("redis-server", "redis"),
    ("--certfile", "agents-api"),
    ("gunicorn", "api"),
    ("daemon", "daemon"),
    ("airavata-scheduler", "supervisor"),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU seconds so far and resident MiB now, each by part."""

    cpu_s: dict[str, float]
    rss_mib: dict[str, float]

    def since(self, before: Cost) -> dict[str, float]:
        """CPU seconds by part that were used since `before`."""
        return {part: used - before.cpu_s.get(part, 0.0) for part, used in self.cpu_s.items()}


def cost(folder: Path) -> Cost:
    """What the processes of the system in `folder` have used."""
    cpu_s: dict[str, float] = {}
    rss_mib: dict[str, float] = {}
    for pid in processes_of(folder):
        found = _of_process(pid)
        if found is None:
            continue
        part, own_s, reaped_s, resident = found
        cpu_s[part] = cpu_s.get(part, 0.0) + own_s
        rss_mib[part] = rss_mib.get(part, 0.0) + resident
        if part == "shepherd":
            # Its children are the wrappers and what they ran.
            cpu_s[PAYLOADS] = cpu_s.get(PAYLOADS, 0.0) + reaped_s
    return Cost(cpu_s=cpu_s, rss_mib=rss_mib)


def processes_of(folder: Path) -> list[int]:
    """The ids of the processes that run inside `folder`, or have it on their command line."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            inside = (entry / "cwd").readlink().is_relative_to(folder)
        except OSError:
            continue
        if inside or f"{folder}/" in command:
            found.append(int(entry.name))
    return found


def _of_process(pid: int) -> tuple[str, float, float, float] | None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    part = next((name for word, name in _PARTS if word in command), None)
    if part is None:
        return None
    own, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return part, own / _TICKS, reaped / _TICKS, resident
