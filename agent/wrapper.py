"""The wrapper of one payload: forked by the shepherd, outlives it and the agent.

It takes `mkdir started` (atomic: a second starter ends as a duplicate), runs the payload in its own
session, watches time, memory and orders to stop, kills whatever the payload leaves behind, and ends
with `exit.json` by write, fsync, rename. No threads, no network.

The order (a dict) says: lease, folder, script, environment, timeout_s, grace_s, ram_mb, nice, cpu,
log_bytes. Times in the two files are seconds since boot, which every process of this boot shares.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.control_group import ControlGroup
from airavata_scheduler.agent.folder_marks import mark_of
from airavata_scheduler.agent.framing import compact, hold_room, replace_file
from airavata_scheduler.agent.log_files import trim_log

Json = dict[str, Any]
DUPLICATE = 75
_LEFTOVER_GRACE_S = 2.0
_WATCH_S = 1.0
_EXIT_BYTES = 4096


def take_start(folder: Path) -> bool:
    """Whether this process may start the payload of `folder`; true once, ever."""
    try:
        (folder / "started").mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


class Wrapper:
    """One payload from its start to `exit.json`."""

    def __init__(self, order: Json, over: int | None = None) -> None:
        self._order = order
        self._over = over  # a pipe to the shepherd: one line when the payload's own process ended
        self._lease = str(order["lease"])
        self._folder = Path(order["folder"])
        self._pid = 0
        self._ticks = 0
        self._usage: resource.struct_rusage | None = None
        self._status: int | None = None
        self._reason: str | None = None  # why it was stopped: cancelled, timeout, out_of_memory
        self._kill_at: float | None = None
        self._peak_kb = 0
        self._cancelled = False
        self._group = ControlGroup(self._lease, order.get("ram_mb") or 0, order.get("cpu") or 0)

    def run(self) -> int:
        """Run the payload to its end; the exit status of the wrapper itself."""
        if not take_start(self._folder):
            return DUPLICATE
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, self._noted)
        processes.become_subreaper()
        started = processes.uptime_s()
        os.umask(0o022)
        self._group.make()
        try:
            hold_room(self._folder / "exit.json", _EXIT_BYTES)
            self._launch()
        except (OSError, ValueError) as error:
            write_refused_start(self._folder, str(error), str(self._order["boot_id"]))
            self._group.remove()
            return 1
        self._tell_payload(started)
        if (self._folder / "cancel").exists():
            self._cancelled = True
        self._watch(wake_r, started)
        ended = processes.uptime_s()
        self._clean_up()
        self._tell_over()
        self._tell_exit(started, ended)
        self._group.remove()
        return 0

    def _noted(self, number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            self._cancelled = True

    def _launch(self) -> None:
        script = self._folder / "script"
        fd = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o700)
        with os.fdopen(fd, "wb") as file:
            file.write(str(self._order["script"]).encode())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self._order.get("nice"):
            os.nice(int(self._order["nice"]))
        # The payload is born inside its control group; the wrapper goes back out of it.
        self._group.join()
        try:
            self._spawn(script)
        finally:
            self._group.leave()

    def _spawn(self, script: Path) -> None:
        """Start the payload in a session of its own; one that cannot be started ends with 127."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        streams = [os.open(self._folder / name, flags, 0o600) for name in ("stdout", "stderr")]
        environment = {str(key): str(value) for key, value in self._order["environment"].items()}
        first_line = str(self._order["script"]).split("\n", 1)[0]
        try:
            self._start(_command(script, first_line), streams, environment)
        except PermissionError:
            # The work folder's file system is mounted noexec: name the interpreter ourselves.
            self._start([*_interpreter(first_line), str(script)], streams, environment)
        except OSError as error:
            text = f"airavata-agent: the script cannot be started: {error} ({first_line[:200]})\n"
            os.write(streams[1], text.encode(errors="replace"))
            self._status = 127 << 8
        finally:
            for fd in streams:
                os.close(fd)

    def _start(self, command: list[str], streams: list[int], environment: dict[str, str]) -> None:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=streams[0],
            stderr=streams[1],
            cwd=self._folder / "work",
            env=environment,
            start_new_session=True,
        )
        self._pid = process.pid
        self._ticks = processes.start_ticks(process.pid) or 0
        process.returncode = 0  # it is this class that waits for it, not Popen

    def _tell_payload(self, started: float) -> None:
        document = {
            "wrapper": os.getpid(),
            "wrapper_ticks": processes.start_ticks(os.getpid()),
            "pid": self._pid,
            "ticks": self._ticks,
            "boot_id": self._order["boot_id"],
            "place": mark_of(self._folder),
            "started_at": started,
            "gpus": self._order.get("gpus", []),
        }
        # Not fsynced: it only has to outlive processes; after a reboot the payload is gone anyway.
        replace_file(self._folder / "payload.json", compact(document), durable=False)

    def _watch(self, wake: int, started: float) -> None:
        limit = self._order.get("timeout_s")
        deadline = None if limit is None else started + limit
        watched_at = started
        while not self._reap():
            now = processes.uptime_s()
            if self._cancelled and self._reason is None:
                self._stop("cancelled", now)
            if deadline is not None and now >= deadline and self._reason is None:
                self._stop("timeout", now)
            if self._kill_at is not None and now >= self._kill_at:
                self._signal_all(signal.SIGKILL)
                self._kill_at = now + 1.0
            if now - watched_at >= _WATCH_S:
                watched_at = now
                self._look_at_memory(now)
                self._bound_logs()
            marks = [
                mark for mark in (deadline if self._reason is None else None, self._kill_at) if mark
            ]
            wait = min([_WATCH_S, *(max(0.0, mark - now) for mark in marks)])
            select.select([wake], [], [], wait)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 512)

    def _reap(self) -> bool:
        """Collect ended children; whether the payload's own process is among them."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return self._status is not None
            if pid == 0:
                return self._status is not None
            if pid == self._pid:
                self._status, self._usage = status, usage

    def _stop(self, reason: str, now: float) -> None:
        self._reason = reason
        self._kill_at = now + float(self._order.get("grace_s", 10.0))
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        if self._pid and self._status is None:
            # Not after its end: the number may belong to somebody else's group by then.
            with contextlib.suppress(OSError):
                os.killpg(self._pid, number)
        for pid, ticks in processes.descendants(os.getpid()).items():
            processes.send(pid, ticks, number)

    def _look_at_memory(self, now: float) -> None:
        if self._group.is_limited:
            return
        used = processes.rss_kb(processes.descendants(os.getpid()))
        self._peak_kb = max(self._peak_kb, used)
        limit = int(self._order.get("ram_mb") or 0) * 1024
        if limit and used > limit and self._reason is None:
            self._stop("out_of_memory", now)
            self._kill_at = now  # it is taking memory from others: no grace

    def _bound_logs(self) -> None:
        for stream in ("stdout", "stderr"):
            trim_log(self._folder / stream, int(self._order["log_bytes"]))

    def _clean_up(self) -> None:
        """Whatever the payload left behind ends now: TERM, a moment, KILL."""
        number: int = signal.SIGTERM
        deadline = processes.uptime_s() + _LEFTOVER_GRACE_S
        while self._has_children():
            if processes.uptime_s() >= deadline:
                number = signal.SIGKILL
            if self._reason is not None:
                number = signal.SIGKILL
            self._signal_all(number)
            time.sleep(0.02)
            self._reap()

    def _has_children(self) -> bool:
        """Whether anything is left: as a subreaper we are the parent of every orphan.

        Far cheaper than a look at all processes of the machine, which each task would pay for.
        """
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _tell_over(self) -> None:
        """The cores are free from here on: the next payload need not wait for our fsync."""
        if self._over is not None:
            with contextlib.suppress(OSError):
                os.write(self._over, f"{self._lease}\n".encode())

    def _tell_exit(self, started: float, ended: float) -> None:
        status = self._status or 0
        usage = self._usage
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        peak = max(self._peak_kb, usage.ru_maxrss if usage else 0, self._group.peak_kb())
        reason = self._reason
        # The kernel may have killed a child only, and the script then failed for that reason.
        if reason is None and status != 0 and self._group.was_out_of_memory():
            reason = "out_of_memory"
        document = {
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": number,
            "reason": reason,
            "started_at": started,
            "ended_at": ended,
            "ended_wall": time.time(),
            "boot_id": self._order["boot_id"],
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3) if usage else 0.0,
            "max_rss_kb": peak,
        }
        # The bytes are durable before the name appears. The name itself may be lost with the power;
        # the attempt is then reported as lost with its host.
        replace_file(self._folder / "exit.json", compact(document), durable=True)


def _command(script: Path, first_line: str) -> list[str]:
    return [str(script)] if first_line.startswith("#!") else ["/bin/sh", str(script)]


def _interpreter(first_line: str) -> list[str]:
    return first_line[2:].strip().split(None, 1) or ["/bin/sh"]


def write_refused_start(folder: Path, message: str, boot_id: str) -> None:
    """An `exit.json` for a wrapper that could not even begin (no process, no disk)."""
    now = processes.uptime_s()
    document = {
        "exit_code": None,
        "signal": None,
        "reason": "start_failed",
        "message": message,
        "started_at": now,
        "ended_at": now,
        "ended_wall": time.time(),
        "boot_id": boot_id,
        "cpu_s": 0.0,
        "max_rss_kb": 0,
    }
    replace_file(folder / "exit.json", json.dumps(document).encode(), durable=True)
