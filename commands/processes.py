"""Supervising child processes: start by need, restart with back-off, stop in reverse order.

Used by `airavata-scheduler both` (API and daemon) and `airavata-scheduler local` (everything). One
thread, no polling of children: the loop sleeps in `sigtimedwait` until a child ends, a signal asks
to stop, or a restart is due.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

FIRST_RESTART_S = 0.2
LONGEST_RESTART_S = 15.0
STABLE_AFTER_S = 30.0  # a child that lived this long starts again without back-off
READY_POLL_S = 0.05
STOP_GRACE_S = 20.0
DRAIN_S = 2.0
LOG_BYTES = 10 * 2**20

_WAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


@dataclass(frozen=True, kw_only=True)
class ChildProcess:
    """What one child is: its name, command line, environment and how one knows that it is ready."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path | None = None  # where it runs; None: where the supervisor does
    port: int | None = None
    log: Path | None = None  # None: the supervisor's own output
    is_ready: Callable[[], bool] = lambda: True
    ready_within_s: float = 30.0
    once_ready: Callable[[], None] = lambda: None  # what belongs to its start; not to a restart
    after: tuple[str, ...] = ()  # the children that must be ready before it is started
    drains: bool = False  # its first SIGTERM lets running work end, a second one does not wait


@dataclass(kw_only=True)
class RunningChild:
    """A child as it is now."""

    child: ChildProcess
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0  # monotonic seconds
    restart_at: float | None = None
    failures: int = 0
    state: str = "stopped"  # starting, running, restarting, stopped


class ChildFailedError(Exception):
    """A child ended, or was not ready in time, while the system was starting."""

    def __init__(self, child: ChildProcess, why: str) -> None:
        self.child = child
        super().__init__(f"{child.name} {why}")


@dataclass(kw_only=True)
class Supervisor:
    """Runs children until SIGTERM or SIGINT; `on_change` is told after each change of state."""

    children: list[ChildProcess]
    on_change: Callable[[list[RunningChild]], None] = lambda _: None
    on_restart: Callable[[ChildProcess, str], None] = lambda _child, _why: None
    running: list[RunningChild] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.running = [RunningChild(child=child) for child in self.children]
        # Blocked here and inherited by nobody: `_spawn` gives each child a clean mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)

    def start(self) -> None:
        """Start the children beside each other, each once those that it comes after are ready.

        Raises ChildFailedError, and what a child's `once_ready` raises; what was started is stopped
        first.
        """
        try:
            while not all(entry.state == "running" for entry in self.running):
                if not self._go_on_starting():
                    self._wait_while_starting()
        except BaseException:
            self.stop()
            raise

    def _go_on_starting(self) -> bool:
        """Start what can be started, and see what has become ready; whether anything was."""
        before = [entry.state for entry in self.running]
        for entry in self.running:
            ready = {other.child.name for other in self.running if other.state == "running"}
            if entry.state == "stopped" and ready.issuperset(entry.child.after):
                self._spawn(entry)
            if entry.state == "starting" and self._has_become_ready(entry):
                entry.child.once_ready()
                entry.state = "running"
                self.on_change(self.running)
        return before != [entry.state for entry in self.running]

    def _wait_while_starting(self) -> None:
        received = signal.sigtimedwait(_WAITED - {signal.SIGCHLD}, READY_POLL_S)
        if received is not None:
            entry = next(entry for entry in self.running if entry.state == "starting")
            raise ChildFailedError(entry.child, "was interrupted while starting")

    def run(self) -> None:
        """Keep the children alive until SIGTERM or SIGINT, then stop them."""
        while True:
            received = signal.sigtimedwait(_WAITED, self._next_due_s())
            if received is not None and received.si_signo != signal.SIGCHLD:
                break
            self._reap()
            self._restart_due()
        self.stop()

    def stop(self) -> None:
        """End the children in reverse order: TERM, a grace, then KILL of what is left."""
        for entry in reversed(self.running):
            entry.restart_at = None
            if entry.process is not None and entry.process.poll() is None:
                _end(entry.process, drains=entry.child.drains)
            entry.state = "stopped"
        self.on_change(self.running)

    def _spawn(self, entry: RunningChild) -> None:
        child = entry.child
        output: IO[bytes] | None = _open_log(child.log) if child.log is not None else None
        try:
            entry.process = subprocess.Popen(
                child.command,
                env=child.environment,
                cwd=child.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                # Its own session: ^C in the terminal reaches the supervisor alone, which stops the
                # children in order.
                start_new_session=True,
                preexec_fn=_unblock_signals,  # noqa: PLW1509 - the supervisor has one thread
            )
        except OSError as error:
            raise ChildFailedError(child, f"cannot be started: {error.strerror}") from error
        finally:
            if output is not None:
                output.close()
        entry.started = time.monotonic()
        entry.restart_at = None
        entry.state = "starting"
        self.on_change(self.running)

    def _has_become_ready(self, entry: RunningChild) -> bool:
        assert entry.process is not None
        if entry.child.is_ready():
            return True
        code = entry.process.poll()
        if code is not None:
            raise ChildFailedError(entry.child, f"ended with exit code {code} while starting")
        if time.monotonic() > entry.started + entry.child.ready_within_s:
            raise ChildFailedError(
                entry.child, f"was not ready within {entry.child.ready_within_s:.0f} s"
            )
        return False

    def _reap(self) -> None:
        for entry in self.running:
            if entry.process is None or entry.restart_at is not None:
                continue
            code = entry.process.poll()
            if code is None:
                continue
            lived_s = time.monotonic() - entry.started
            entry.failures = 0 if lived_s >= STABLE_AFTER_S else entry.failures + 1
            delay_s = min(LONGEST_RESTART_S, FIRST_RESTART_S * 2 ** max(0, entry.failures - 1))
            entry.restart_at = time.monotonic() + delay_s
            entry.state = "restarting"
            self.on_restart(entry.child, _how_it_ended(code))
            self.on_change(self.running)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for entry in self.running:
            if entry.restart_at is None or entry.restart_at > now:
                continue
            try:
                self._spawn(entry)
                entry.state = "running"
            except ChildFailedError as error:
                entry.failures += 1
                entry.restart_at = now + LONGEST_RESTART_S
                self.on_restart(entry.child, str(error))
            self.on_change(self.running)

    def _next_due_s(self) -> float:
        due = [entry.restart_at for entry in self.running if entry.restart_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else 3600.0


def _end(process: subprocess.Popen[bytes], *, drains: bool) -> None:
    for grace_s in (DRAIN_S, STOP_GRACE_S) if drains else (STOP_GRACE_S,):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
            return
    process.kill()
    process.wait()


def process_start_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot, or None where there is none.

    A pid alone names nobody: it is used again. The pair of both names one process until reboot.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def terminate(pid: int, start_ticks: int, grace_s: float = STOP_GRACE_S) -> None:
    """End a process that is not our child: TERM, then KILL once `grace_s` have passed."""
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if process_start_ticks(pid) != start_ticks:
            return
        os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while process_start_ticks(pid) == start_ticks and time.monotonic() < deadline:
            time.sleep(READY_POLL_S)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
