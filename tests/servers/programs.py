"""Starting and ending a private server for the tests: own folder, loopback, a free port.

Each server is ended with the session, and also when the test run itself is killed: setpriv sets the
parent's death signal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import BinaryIO, NoReturn, Protocol, TypeVar

import psutil
import pytest

from tests.canaries import leaks
from tests.waiting import wait_until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# Below what Linux and macOS give to outgoing connections, above the well-known services.
PORTS = range(12_000, 32_000)
_taken_ports: set[int] = set()


def free_port(*, pair_above: int = 0) -> int:
    """A TCP port of the loopback interface that no other test has or gets, and nobody listens on.

    Below the ports that the kernel gives to outgoing connections: one of those could take it before
    the server does. With `pair_above`, the port that much above it is free and taken as well.
    """
    for _ in range(len(PORTS)):
        port = random.randrange(PORTS.start, PORTS.stop - pair_above)
        wanted = [port, port + pair_above] if pair_above else [port]
        if all(map(_take_port, wanted)):
            return port
    raise AssertionError("the ports for tests are as good as used up")


def _take_port(port: int) -> bool:
    """Whether `port` is ours from now on, until this process ends."""
    if port in _taken_ports:
        return False
    try:
        fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _taken_ports.add(port)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@cache
def _port_locks() -> BinaryIO:
    """A file with a byte for each port; who has locked the byte has the port."""
    return Path(gettempdir(), f"airavata-test-ports-{os.getuid()}").open("ab")


def listens(port: int) -> bool:
    """Whether something accepts connections on the loopback port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def missing(what: str) -> NoReturn:
    """A server that is not installed: a skip on a user's machine, a failure in CI."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"{what} is not installed here")


def program(*names: str, folders: Sequence[Path] = ()) -> str | None:
    """The full path of the first of `names` that is on the PATH or in one of `folders`."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders), "/usr/sbin"])
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    return None


@contextmanager
def server_folder(name: str) -> Iterator[Path]:
    """A folder for a server, searched for secrets and gone after the block.

    Not below pytest's own folder: that is closed to other users, and each run of pytest closes it
    again and clears old ones away, while PostgreSQL and MariaDB refuse to run as root.
    """
    with TemporaryDirectory(prefix=f"airavata-{name}-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        # What a server wrote down, a secret must not be among it: rows, journals, logs, dumps.
        found = leaks([Path(folder)])
        assert found == [], f"{name} has written a secret down: {found}"


def owned_by(folder: Path, user: str) -> None:
    """Give `folder` to `user`."""
    account = pwd.getpwnam(user)
    os.chown(folder, account.pw_uid, account.pw_gid)


def as_user(user: str | None = None) -> list[str]:
    """What to write before a command: it ends with its parent and, if we are root, runs as `user`.

    A machine without setpriv (macOS) does without.
    """
    setpriv = program("setpriv")
    if setpriv is None:
        return []
    if user is None or os.getuid() != 0:
        return [setpriv, "--pdeathsig=KILL"]
    identity = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [setpriv, *identity, "--pdeathsig=KILL"]


class Startable(Protocol):
    """A server of this folder."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """End it."""


_S = TypeVar("_S", bound=Startable)


@contextmanager
def running(server: _S) -> Iterator[_S]:
    """`server`, started for the block; ended also when its start fails."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Server:
    """One running server process."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to the own one; a secret goes there, not on the command line."""
        self.command = list(command)
        self.log = log
        self._cwd = cwd
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool]) -> None:
        """Start the program and wait until `ready`; fails with the end of its log."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=self._cwd,
                env=os.environ | self._environment,
                start_new_session=True,
            )
        wait_until(
            lambda: self._process is None or self._process.poll() is not None or ready(),
            timeout_s=START_TIMEOUT_S,
            message=f"{self.command[0]} to answer (its log: {self.log})",
        )
        if not self.alive:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{self.command[0]} ended at its start:\n{tail}")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; kill what does not listen."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)  # one that is frozen hears nothing
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a power cut would, with every process that it has."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # what it would start now, nobody would end
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                child.kill()  # a zombie at worst: its parent stands still
        self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """It is there, its port is open, and it says nothing."""
        self._signal(signal.SIGSTOP)
        # Each thread stops by itself: until the last one has, an answer may still come.
        wait_until(self._is_stopped, message=f"{self.command[0]} to stand still")

    def _is_stopped(self) -> bool:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(number)
