"""Wake-ups: whoever waits for work, a task or an experiment looks again at once.

A wake-up is a hint and carries no truth: the woken one looks into SQL. One Redis channel a
deployment carries batches of (kind, key); one thread a process listens and sets the events of its
own waiters. While Redis is away `Waiter.wait` returns every second, so that the caller's loop is a
slow poll, and publishing still wakes the waiters of the same process.

    with Waiter(("work", compute_id), ("attention", session_id)) as waiter:
        found = look()
        while not found and waiter.wait(deadline - time.monotonic()):
            found = look()

The waiter is made *before* the first look: a wake-up between look and wait is then never missed.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Literal

from redis.client import PubSub

from airavata_scheduler.queue import connection

Kind = Literal["work", "attention", "task", "experiment", "log"]
Subject = tuple[Kind, str]
# work: a compute resource has tasks to claim   attention: an agent session must heartbeat now
# task: it ended or changed                     experiment: its progress changed
# log: a task's log grew

POLL_WITHOUT_REDIS_S = 1.0
RECONNECT_S = 0.5
LISTEN_S = 5.0

_log = logging.getLogger(__name__)


class _Board:
    """The waiters of this process, by subject, and the thread that hears Redis for them."""

    def __init__(self) -> None:
        self.origin = secrets.token_hex(8)  # our own messages come back: they are ignored
        self.lock = threading.Lock()
        self.waiters: dict[Subject, set[Waiter]] = {}
        self.connected = False
        self.thread: threading.Thread | None = None
        self.url = ""

    def ring(self, subjects: Iterable[Subject]) -> None:
        with self.lock:
            for subject in subjects:
                for waiter in self.waiters.get(subject, ()):
                    waiter.heard.add(subject)
                    waiter.event.set()

    def ring_all(self) -> None:
        with self.lock:
            for waiters in self.waiters.values():
                for waiter in waiters:
                    waiter.event.set()

    def add(self, waiter: Waiter) -> None:
        with self.lock:
            for subject in waiter.subjects:
                self.waiters.setdefault(subject, set()).add(waiter)
            if self.thread is None or self.url != connection.url():
                self.url = connection.url()
                self.thread = threading.Thread(
                    target=self._listen, args=(self.url,), name="wake", daemon=True
                )
                self.thread.start()

    def remove(self, waiter: Waiter) -> None:
        with self.lock:
            for subject in waiter.subjects:
                others = self.waiters.get(subject)
                if others is not None:
                    others.discard(waiter)
                    if not others:
                        del self.waiters[subject]

    def _listen(self, url: str) -> None:
        """Hear Redis until the address changes; reconnect for ever."""
        while self.url == url:
            client = connection.connect(socket_timeout_s=connection.SOCKET_TIMEOUT_S)
            heard = PubSub(client.connection_pool)
            try:
                heard.subscribe(channel())
                while self.url == url:
                    self._hear(heard)
            except connection.RedisAway as error:
                if self.connected:
                    _log.warning("wake-ups: Redis is away (%s); waiting is a slow poll now", error)
                self.connected = False
                threading.Event().wait(RECONNECT_S)
            finally:
                heard.close()
                client.close()

    def _hear(self, heard: PubSub) -> None:
        message = heard.get_message(timeout=LISTEN_S)
        if message is None:
            heard.ping()  # a half-open connection shows itself as an error here
        elif message["type"] == "subscribe":
            self.connected = True
            self.ring_all()  # whatever was published before now was not heard
        elif message["type"] == "message":
            self._receive(message["data"])

    def _receive(self, data: bytes) -> None:
        try:
            origin, subjects = json.loads(data)
            if origin != self.origin:
                self.ring([(kind, key) for kind, key in subjects])
        except (ValueError, TypeError):
            _log.warning("wake-ups: ignored a message that is not ours on %s", channel())


_boards: dict[int, _Board] = {}


def _current_board() -> _Board:
    """This process's board: a forked child has no listener thread and needs its own."""
    return _boards.setdefault(os.getpid(), _boards.get(os.getpid()) or _Board())


def channel() -> str:
    """The channel's name; Redis channels ignore database numbers, so the name carries it."""
    number = connection.client().connection_pool.connection_kwargs.get("db") or 0
    return f"airavata:wake:{number}"


class Waiter:
    """Waits for any of its subjects; use it as a context manager (see the module's text).

    `heard` collects the subjects that were rung: hints, as every wake-up is one.
    """

    def __init__(self, *subjects: Subject) -> None:
        self.subjects = subjects
        self.event = threading.Event()
        self.heard: set[Subject] = set()
        self._board = _current_board()

    def __enter__(self) -> Waiter:
        self._board.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.remove(self)

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds; True means: look again, False: the time is over.

        Without Redis it returns True after at most `POLL_WITHOUT_REDIS_S`.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self.event.wait(min(left_s, POLL_WITHOUT_REDIS_S)):
                self.event.clear()
                return True
            if not self._board.connected:
                return True
        return False


def publish(kind: Kind, key: str) -> None:
    """Wake everybody who waits for (kind, key). Never raises; call it after the commit."""
    publish_many([(kind, key)])


def publish_many(subjects: Iterable[Subject]) -> None:
    """Wake many in one message. Never raises: a lost wake-up is found again by the next poll."""
    unique = list(dict.fromkeys(subjects))
    if not unique:
        return
    board = _current_board()
    board.ring(unique)
    try:
        with connection.guarded() as client:
            client.publish(channel(), json.dumps([board.origin, unique], separators=(",", ":")))
    except connection.RedisAway as error:
        _log.debug("wake-ups: not published, Redis is away: %s", error)
