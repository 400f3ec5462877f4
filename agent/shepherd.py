"""The shepherd: a small detached process that forks wrappers and warm workers for the agent.

It exists because forking a multi-threaded agent is neither safe nor quick, and because payloads
must not be children of a process that is stopped and started at will. It is single-threaded, keeps
no state that matters (wrappers and workers write their own files), and may be killed at any time.

Orders over `shepherd.sock` (frames): {"hello"}, {"launch": [order…]}, {"worker": order},
{"retire"}. Told to every connected agent: {"launched", "pid", "ticks"}, {"worker", "pid", "ticks"},
{"over": [lease…]} when payloads ended, {"exit", "status"} when their wrappers did.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from airavata_scheduler.agent import pool_worker, processes
from airavata_scheduler.agent.framing import FrameReader, bind_socket, compact, frame, replace_file
from airavata_scheduler.agent.wrapper import Wrapper, write_refused_start

Json = dict[str, Any]
SPEAKS = 1  # the version of the orders; another version is retired and replaced
SOCKET = "shepherd.sock"
_LONELY_S = 120.0
_PATIENCE_S = 5.0  # with an agent that does not read


class Shepherd:
    """Serves one state folder."""

    def __init__(self, home: Path, server: socket.socket, lock: int) -> None:
        self._home = home
        self._lock = lock
        self._server: socket.socket | None = server
        self._agents: dict[int, tuple[socket.socket, FrameReader]] = {}
        self._children: dict[int, str] = {}
        self._worker_folders: dict[int, Path] = {}
        self._over_r, self._over_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._over = b""
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # TERM is for the agent: systemd and terminals send it to whole groups.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def serve(self) -> None:
        """Until nobody needs it: no agent for two minutes and no child left."""
        gc.freeze()
        while True:
            quiet = not self._agents and not self._children
            if quiet and self._server is None:
                return
            watched = [self._wake_r, self._over_r, *self._agents]
            if self._server is not None:
                watched.append(self._server.fileno())
            readable, _, _ = select.select(watched, [], [], _LONELY_S if quiet else None)
            if not readable and quiet:
                self._stop_listening()
                return
            for fd in readable:
                self._attend(fd)

    def _attend(self, fd: int) -> None:
        if fd == self._wake_r:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_r, 4096)
            self._reap()
        elif fd == self._over_r:
            self._pass_on_over()
        elif self._server is not None and fd == self._server.fileno():
            client, _ = self._server.accept()
            self._agents[client.fileno()] = (client, FrameReader())
        elif fd in self._agents:
            self._listen_to(fd)

    def _listen_to(self, fd: int) -> None:
        client, reader = self._agents[fd]
        try:
            data = client.recv(1 << 20)
            orders = list(reader.feed(data))
        except (OSError, ValueError):
            data, orders = b"", []
        if not data:
            self._agents.pop(fd, None)
            client.close()
        for order in orders:
            self._obey(order, client)

    def _obey(self, order: Json, client: socket.socket) -> None:
        if "hello" in order:
            self._tell({"hello": SPEAKS, "pid": os.getpid()}, client)
        for item in order.get("launch", ()):
            self._launch(item)
        if "worker" in order:
            self._start_worker(order["worker"])
        if "retire" in order:
            self._stop_listening()

    def _launch(self, order: Json) -> None:
        lease = str(order["lease"])
        try:
            pid = os.fork()
        except OSError as error:
            write_refused_start(Path(order["folder"]), str(error), str(order["boot_id"]))
            self._tell({"exit": lease, "status": 0})
            return
        if pid == 0:
            self._become(lambda: Wrapper(order, self._over_w).run())
        self._children[pid] = lease
        self._tell({"launched": lease, "pid": pid, "ticks": processes.start_ticks(pid)})

    def _start_worker(self, order: Json) -> None:
        folder = Path(order["folder"])
        server = bind_socket(folder / "sock")
        try:
            pid = os.fork()
        except OSError:
            server.close()
            self._tell({"exit": order["id"], "status": 0})
            return
        if pid == 0:
            self._become(lambda: pool_worker.serve(order, server))
        server.close()
        self._children[pid] = str(order["id"])
        self._worker_folders[pid] = folder
        told = {"pid": pid, "ticks": processes.start_ticks(pid)}
        replace_file(folder / "worker.json", compact({**order, **told}), durable=False)
        self._tell({"worker": order["id"], **told})

    def _become(self, deed: Any) -> None:
        """In a forked child: let go of what is the shepherd's, do the deed, end. No return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            for client, _ in self._agents.values():
                client.close()
            if self._server is not None:
                self._server.close()
                os.close(self._lock)
            os.close(self._wake_r)
            os.close(self._wake_w)
            status = deed()
        except BaseException:  # noqa: BLE001  a forked child must never come back into this loop
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(status)

    def _pass_on_over(self) -> None:
        *leases, self._over = (self._over + os.read(self._over_r, 1 << 16)).split(b"\n")
        if leases:
            self._tell({"over": [str(lease, "ascii") for lease in leases]})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._children.pop(pid, None)
            folder = self._worker_folders.pop(pid, None)
            if folder is not None:
                with contextlib.suppress(OSError):
                    replace_file(folder / "exit", str(status).encode(), durable=False)
            if name is not None:
                self._tell({"exit": name, "status": status})

    def _tell(self, message: Json, only: socket.socket | None = None) -> None:
        data = frame(message)
        for fd, (client, _) in list(self._agents.items()):
            if only is not None and client is not only:
                continue
            try:
                client.settimeout(_PATIENCE_S)
                client.sendall(data)
                client.settimeout(None)
            except socket.timeout:
                # Half a message may be out, so nothing may follow it. An agent that comes back to
                # read finds the line's end, connects again and looks for itself.
                del self._agents[fd]
                client.close()
            except OSError:
                continue  # it let go; what it said last is still to be read

    def _stop_listening(self) -> None:
        if self._server is not None:
            with contextlib.suppress(FileNotFoundError):
                (self._home / SOCKET).unlink()
            self._server.close()
            self._server = None
            # A successor may serve from now on; what is left here is to reap our own children.
            os.close(self._lock)


def become_shepherd(home: Path) -> int:
    """Detach, take the shepherd's lock, serve. 0 also when another shepherd serves already."""
    if os.fork() > 0:
        return 0
    os.setsid()
    log = os.open(
        home / "shepherd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
    )
    null = os.open("/dev/null", os.O_RDONLY)
    for number, fd in ((0, null), (1, log), (2, log)):
        os.dup2(fd, number)
    os.close(log)
    os.close(null)
    os.chdir(home)
    lock = os.open(
        home / "shepherd.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os._exit(0)
    processes.become_subreaper()
    Shepherd(home, bind_socket(home / SOCKET), lock).serve()
    os._exit(0)
