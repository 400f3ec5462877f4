"""A warm worker: one process that runs the calls of one Python function, one after the other.

Forked by the shepherd, it outlives the agent. Its ledger is the truth about its calls: "S" before a
call begins, "E" with the result after it; both with length and CRC. An agent that comes back reads
the ledger and sends calls again: those that the ledger knows are not run a second time.

The main thread runs user code. A second, small thread reads the socket: so calls that have not
begun can be given back, and a call's time limit holds, even while user code is busy.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.framing import FrameReader, compact, frame, record, records
from airavata_scheduler.agent.python_function import Function, LoadError, failure_of

Json = dict[str, Any]
INLINE_LOG_BYTES = 8192
TIMEOUT_STATUS = 124
_FULL_DISK_S = 1.0
_ALONE_S = 600.0  # without an agent and without calls a worker ends after this


class Ledger:
    """The worker's append-only file of begun and ended calls."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        self.begun = {entry["l"] for entry in read_ledger(data)[0] if entry["k"] == "S"}

    def begins(self, lease: str) -> None:
        """Write that the call begins; from here on it is never run again."""
        self.begun.add(lease)
        os.write(self._fd, record(compact({"k": "S", "l": lease, "at": processes.uptime_s()})))

    def ends(self, lease: str, result: Json) -> None:
        """Write how the call ended; on a full disk that waits for room, results are never lost."""
        data = record(compact({"k": "E", "l": lease, **result}))
        while not self._put(data):
            time.sleep(_FULL_DISK_S)

    def _put(self, data: bytes) -> bool:
        """Write the whole record, or nothing of it where the disk is full (False)."""
        start = os.fstat(self._fd).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            os.ftruncate(self._fd, start)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise
        return True


def read_ledger(data: bytes, start: int = 0) -> tuple[list[Json], int]:
    """(entries, offset behind the last whole one) from `start`."""
    entries = []
    end = start
    for end, body in records(data, start):  # noqa: B007  the last offset is the answer
        entries.append(json.loads(body))
    return entries, end


class Worker:
    """Runs calls until nobody needs it."""

    def __init__(self, order: Json, server: socket.socket) -> None:
        self._order = order
        self._folder = Path(order["folder"])
        self._server = server
        self._ledger = Ledger(self._folder / "ledger")
        self._queue: collections.deque[Json] = collections.deque()
        self._wake = threading.Condition()
        self._agent: socket.socket | None = None
        self._deadline: float | None = None
        self._retire = False
        self._streams = Streams(self._folder)
        self._nudge_r, self._nudge_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> int:
        """Load the function once, then run calls; 0 when retired."""
        function: Function | LoadError
        try:
            function = Function.load(self._order["python"], self._order.get("bundle"))
        except LoadError as error:
            function = error
        self._streams.take_rest(None)
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            with self._wake:
                while not self._queue and not self._retire:
                    if not self._wake.wait(_ALONE_S) and self._agent is None:
                        return 0
                if not self._queue:
                    return 0
                call = self._queue.popleft()
                if call["lease"] in self._ledger.begun:
                    continue
                # Under the lock: a call is either given back or begun, never both.
                self._ledger.begins(call["lease"])
                limit = call.get("timeout_s")
                self._deadline = None if limit is None else processes.uptime_s() + limit
            if limit is not None:
                os.write(self._nudge_w, b".")
            ended = self._run(function, call)
            with self._wake:
                self._deadline = None
            self._ledger.ends(call["lease"], ended)
            with self._wake:
                self._tell({"grew": 1})

    def _run(self, function: Function | LoadError, call: Json) -> Json:
        started = processes.uptime_s()
        before = resource.getrusage(resource.RUSAGE_SELF)
        place = CallPlace(self._folder, call)
        place.enter()
        worker = os.getpid()
        if isinstance(function, LoadError):
            outcome: Json = {"failure": function.failure}
        else:
            try:
                outcome = function.call(call, Path(call["folder"]))
            except BaseException as error:  # noqa: BLE001  whatever user code raises is its result
                outcome = {"failure": failure_of(error, function.codec)}
        if os.getpid() != worker:
            os._exit(0)  # user code forked and its child came back: only the parent is the worker
        logs = self._streams.take_rest(Path(call["folder"]))
        place.leave()
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return {
            **outcome,
            "from": round(started, 6),
            "to": round(processes.uptime_s(), 6),
            "cpu_s": round(cpu_s, 6),
            "rss_kb": after.ru_maxrss,
            "logs": logs,
        }

    def _listen(self) -> None:
        reader = FrameReader()
        while True:
            watched = [self._server.fileno(), self._nudge_r]
            if self._agent is not None:
                watched.append(self._agent.fileno())
            deadline = self._deadline
            wait = None if deadline is None else max(0.0, deadline - processes.uptime_s())
            readable, _, _ = select.select(watched, [], [], wait)
            self._enforce_deadline()
            if self._nudge_r in readable:
                os.read(self._nudge_r, 512)
            if self._server.fileno() in readable:
                client, _ = self._server.accept()
                with self._wake:
                    if self._agent is not None:
                        self._agent.close()
                    self._agent = client
                reader = FrameReader()
            elif self._agent is not None and self._agent.fileno() in readable:
                self._hear(self._agent, reader)

    def _hear(self, agent: socket.socket, reader: FrameReader) -> None:
        try:
            data = agent.recv(1 << 20)
            messages = list(reader.feed(data)) if data else []
        except (OSError, ValueError):
            data, messages = b"", []
        with self._wake:
            if not data:
                agent.close()
                self._agent = None
            for message in messages:
                known = {call["lease"] for call in self._queue}
                self._queue.extend(c for c in message.get("calls", ()) if c["lease"] not in known)
                if "give_back" in message:
                    self._tell({"given_back": [call["lease"] for call in self._queue]})
                    self._queue.clear()
                self._retire = self._retire or "retire" in message
            self._wake.notify()

    def _enforce_deadline(self) -> None:
        with self._wake:
            deadline = self._deadline
            if deadline is None or processes.uptime_s() < deadline:
                return
            # The main thread may be anywhere in user code: only the end of the process stops it.
            # The agent finds "S" without "E" and this status, and knows that it was the time limit.
            end_worker(self._folder, TIMEOUT_STATUS)

    def _tell(self, message: Json) -> None:
        if self._agent is not None:
            with contextlib.suppress(OSError):
                self._agent.sendall(frame(message))


def end_worker(folder: Path, status: int) -> None:
    """End this process and everything that it started."""
    (folder / "reason").write_text(str(status), encoding="ascii")
    for pid, ticks in processes.descendants(os.getpid()).items():
        processes.send(pid, ticks, signal.SIGKILL)
    os._exit(status)


class CallPlace:
    """The directory and environment of one call; an empty directory serves the next call again."""

    def __init__(self, folder: Path, call: Json) -> None:
        self._scratch = folder / "scratch"
        self._call = call
        self._names: list[str] = []

    def enter(self) -> None:
        """Go to a directory of the call's own, with its variables set."""
        with contextlib.suppress(FileExistsError):
            self._scratch.mkdir(mode=0o700)
        os.chdir(self._scratch)
        for name, value in self._call["environment"].items():
            os.environ[name] = value
            self._names.append(name)

    def leave(self) -> None:
        """Files that the call wrote become the lease's own; its variables go."""
        for name in self._names:
            os.environ.pop(name, None)
        os.chdir("/")
        with os.scandir(self._scratch) as entries:
            if next(entries, None) is None:
                return
        target = Path(self._call["folder"])
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            self._scratch.rename(target / "work")


class Streams:
    """Standard output and error of the process, cut into calls; a quiet call costs two fstat."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, tuple[int, Path]] = {}
        for number, name in ((1, "stdout"), (2, "stderr")):
            path = folder / name
            fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600
            )
            os.dup2(fd, number)
            self._files[name] = (fd, path)
        encoding = {"encoding": "utf-8", "errors": "backslashreplace"}
        sys.stdout = open(1, "w", closefd=False, **encoding)  # type: ignore[call-overload]  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1, **encoding)  # type: ignore[call-overload]  # noqa: SIM115

    def take_rest(self, folder: Path | None) -> Json:
        """What was written since the last time: short text inline, long text as a file.

        {stream: {"size", "data" (text as latin-1)}} or {stream: {"size"}} with the file moved over.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        found: Json = {}
        for name, (fd, path) in self._files.items():
            size = os.fstat(fd).st_size
            if size == 0:
                continue
            if size <= INLINE_LOG_BYTES:
                found[name] = {"size": size, "data": os.pread(fd, size, 0).decode("latin-1")}
            elif folder is not None:
                found[name] = {"size": size}
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copy(path, folder / name)
            os.ftruncate(fd, 0)
        return found


def _copy(source: Path, target: Path) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with source.open("rb") as reader, os.fdopen(fd, "wb") as writer:
        while True:
            piece = reader.read(1 << 20)
            if not piece:
                return
            writer.write(piece)


def serve(order: Json, server: socket.socket) -> int:
    """The life of one worker; called in a process forked by the shepherd."""
    processes.become_subreaper()
    os.environ.clear()
    os.environ.update(order["environment"])
    if order.get("nice"):
        os.nice(int(order["nice"]))
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    return Worker(order, server).serve()
