"""A pretend machine on this one: own processes, boots, wall clock and host id.

Its disk and its network are this machine's. What it has of its own are Linux namespaces: switched
off, every process on it dies at one instant, as when the power fails; switched on again, it has
another boot id and its uptime begins anew. Root is needed, and a C compiler for its wall clock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.servers.programs import missing, program
from tests.waiting import wait_until

_SOURCE = Path(__file__).with_name("clock.c")
_FREEZER = Path("/sys/fs/cgroup/freezer")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_NAMESPACES = ("--mount", "--uts", "--pid", "--time")
# The first process: collects what is orphaned, and never ends by itself.
_INIT = """
set -e
mount -t overlay overlay -o lowerdir=/etc,upperdir={etc}/upper,workdir={etc}/work /etc
echo {host_id} > /etc/machine-id
echo {clock} > /etc/ld.so.preload
mount --bind {boot_id} {kernel_boot_id}
hostname {name}
touch {ready}
while :; do sleep 3600 & wait $!; done
"""


class Machine:
    """One machine; it is off until `boot`."""

    def __init__(self, folder: Path, name: str = "node-1") -> None:
        """`folder` holds what makes it this machine; what runs on it may use any other."""
        if os.getuid() != 0 or program("unshare") is None or program("nsenter") is None:
            missing("root with unshare and nsenter, which pretend another machine")
        self.name = name
        self.folder = folder
        self.host_id = uuid.uuid4().hex
        self.boot_id = ""
        self._init: subprocess.Popen[bytes] | None = None
        self._namespace = ""
        self._shift = folder / "clock"
        for path in (folder / "etc" / "upper", folder / "etc" / "work"):
            path.mkdir(parents=True)
        self.set_clock(0)
        self._clock = _compile(folder)
        self._group = _FREEZER / f"airavata-{uuid.uuid4().hex[:12]}"
        self._has_freezer = os.access(_FREEZER / "cgroup.procs", os.W_OK)
        if self._has_freezer:
            self._group.mkdir()

    def boot(self) -> None:
        """Switch it on."""
        self.boot_id = str(uuid.uuid4())
        (self.folder / "boot_id").write_text(self.boot_id + "\n")
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        script = _INIT.format(
            etc=self.folder / "etc",
            host_id=self.host_id,
            clock=self._clock,
            boot_id=self.folder / "boot_id",
            kernel_boot_id=_BOOT_ID,
            name=self.name,
            ready=ready,
        )
        # A minute after its start, as the kernel of a machine that was switched on would say.
        offset = str(60 - int(time.clock_gettime(time.CLOCK_BOOTTIME)))
        self._init = subprocess.Popen(
            [
                *self._inside_group("unshare", *_NAMESPACES, "--fork", "--kill-child"),
                *("--mount-proc", "--boottime", offset, "--monotonic", offset),
                *("sh", "-c", script),
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # it complains of how the machine is switched off
            start_new_session=True,
        )
        wait_until(ready.exists, message="the machine to boot")
        self._namespace = _namespace(self._first_pid())

    def command(self) -> list[str]:
        """What to write before a command, so that it runs on the machine."""
        flags = ("--mount", "--uts", "--pid", "--time")
        return self._inside_group("nsenter", "--target", str(self._first_pid()), *flags)

    def power_off(self) -> None:
        """Every process on it dies at once."""
        assert self._init is not None
        first = self._first_pid()
        # `nsenter` stops itself with what it started there, and would not see it end.
        outside = {_parent(one) for one in self._processes()} - {0, first}
        os.kill(first, signal.SIGKILL)
        for pid in outside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._init.wait(20)
        self._init = None
        wait_until(lambda: not self._processes(), message="the machine's processes to be gone")

    def destroy(self) -> None:
        """Switch it off for good."""
        if self._init is not None:
            self.thaw()
            self.power_off()
        if self._has_freezer:
            wait_until(lambda: not (self._group / "cgroup.procs").read_text(), message="its group")
            self._group.rmdir()

    def set_clock(self, shift_s: int) -> None:
        """Set its wall clock wrong by so many seconds, also for what runs there already."""
        if not self._shift.exists():
            self._shift.write_bytes(struct.pack("q", shift_s))
            return
        with self._shift.open("r+b") as file:
            file.write(struct.pack("q", shift_s))

    def freeze(self) -> None:
        """Nothing on it moves any more; its connections stay open."""
        if self._has_freezer:
            (self._group / "freezer.state").write_text("FROZEN")
            wait_until(lambda: self._freezer() == "FROZEN", message="the machine to stand still")
            return
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """It goes on, and knows nothing of the time between."""
        if self._has_freezer:
            (self._group / "freezer.state").write_text("THAWED")
            return
        for process in self._processes():
            process.resume()

    def _freezer(self) -> str:
        return (self._group / "freezer.state").read_text().strip()

    def _inside_group(self, *words: str) -> list[str]:
        if not self._has_freezer:
            return list(words)
        enter = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        return ["sh", "-c", enter, "sh", *words]

    def _first_pid(self) -> int:
        """Its process 1, by the number that it has here."""
        assert self._init is not None, "it is switched off"
        return psutil.Process(self._init.pid).children()[0].pid

    def _processes(self) -> list[psutil.Process]:
        """What runs on it, by the numbers that it has here."""
        return [one for one in psutil.process_iter() if _namespace(one.pid) == self._namespace]


def _parent(process: psutil.Process) -> int:
    """Its parent's number; 0 where it is gone."""
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return 0


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return "of a process that is gone"


def _compile(folder: Path) -> Path:
    compiler = program("cc", "gcc")
    if compiler is None:
        missing("a C compiler, which makes a wall clock for tests")
    library = folder / "clock.so"
    where = f'-DCLOCK_FILE="{folder / "clock"}"'
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", where, "-o", library, _SOURCE], check=True
    )
    return library


@contextmanager
def machine(folder: Path, name: str = "node-1") -> Iterator[Machine]:
    """A machine that is switched on; all of it is gone after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Machine(folder, name)
    try:
        made.boot()
        yield made
    finally:
        made.destroy()
