"""Answers that wait or go on: server-sent events, and the `wait=` of a request.

A waiting answer holds one of this process's threads, so at most a quarter of them may wait
(`allow`); the rest always serve requests that do not wait. Beyond that nothing fails: a wait ends
at once, and an event stream ends after its first look, and the client asks again by itself.
Another quarter may send files (`sending`); one file more is answered 503 with `Retry-After`.

An event stream (`serve`) is a loop of looks into the database. Between two looks it waits for a
wake-up of its subjects; where it has said nothing for a while it sends a comment, so that a proxy
keeps the connection and a client that went away is noticed. It ends with what its `look` calls the
end (the client stops), or after `LIFE_S` without (the client comes back with `Last-Event-ID`).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flask import Response

from airavata_scheduler.functions import admission
from airavata_scheduler.models import database
from airavata_scheduler.models.errors import BadInput, Unavailable
from airavata_scheduler.models.setting_values import parse_duration
from airavata_scheduler.queue.wake import Subject, Waiter

RETRY_MS = 2_000  # how long a client waits before it comes back
HEARTBEAT_S = 15.0
LIFE_S = 300.0  # then the client comes back, and its permission is checked again
CALM_S = 0.25  # the least time between two looks of one stream
MAX_WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """One server-sent event; `id` is what the client gives back as `Last-Event-ID`."""

    kind: str
    data: Any
    id: str | None = None

    def encoded(self) -> bytes:
        """The event's lines; JSON holds no line break, so one data line is enough."""
        lines = [f"event: {self.kind}"]
        if self.id is not None:
            lines.append(f"id: {self.id}")
        lines.append(f"data: {json.dumps(self.data, separators=(',', ':'))}")
        return ("\n".join(lines) + "\n\n").encode()


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look found: the new events, and whether there will never be another."""

    events: list[Event] = field(default_factory=list)
    ended: bool = False


class Slots:
    """How many threads of this process may do one kind of long work at the same time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.BoundedSemaphore(count)

    def take(self) -> bool:
        """Take a slot, if there is one; whether there was."""
        return self._free.acquire(blocking=False)

    def give_back(self) -> None:
        """Give a taken slot back."""
        self._free.release()

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Hold a slot for the block, if there is one; whether there was."""
        got = self.take()
        try:
            yield got
        finally:
            if got:
                self.give_back()


@dataclass
class _Process:
    """What all waiting answers of this process share."""

    slots: Slots = field(default_factory=lambda: Slots(8))
    senders: Slots = field(default_factory=lambda: Slots(8))
    ending: threading.Event = field(default_factory=threading.Event)


_process = _Process()


def allow(threads: int) -> None:
    """Let a quarter of this process's `threads` wait and a quarter send files; at least one."""
    _process.slots = Slots(max(1, threads // 4))
    _process.senders = Slots(max(1, threads // 4))
    _process.ending.clear()


def end_all() -> None:
    """End every waiting answer of this process within a second, before the process stops."""
    _process.ending.set()


def is_ending() -> bool:
    """Whether this process is about to stop, so that nobody should begin or go on to wait."""
    return _process.ending.is_set()


def wait_until(deadline_s: float, look: Callable[[], bool], *subjects: Subject) -> bool:
    """Look until `look()` is true or the monotonic clock reads `deadline_s`; the last answer.

    Looks once only where all waiting threads are taken.
    """
    with _process.slots.taken() as slot, Waiter(*subjects) as waiter:
        found = look()
        while not found and slot and not _process.ending.is_set():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            with _connection_given_back(), admission.load.stepped_aside():
                # A second at most, so that `end_all` is heard.
                waiter.wait(min(left_s, 1.0))
            found = look()
        return found


@contextlib.contextmanager
def _connection_given_back() -> Iterator[None]:
    """Let others use this request's database connection during the block."""
    held = not database.database.is_closed()
    if held:
        database.database.close()
    try:
        yield
    finally:
        if held:
            database.database.connect(reuse_if_open=True)


def wait_seconds(text: str | None, name: str = "wait") -> float:
    """The seconds of a `wait` such as `30s`, 60 at most; None is 0. Raises BadInput."""
    if text is None:
        return 0.0
    try:
        return min(parse_duration(text), MAX_WAIT_S)
    except ValueError as error:
        raise BadInput(f"{name} {error}", code="invalid_duration", field=name) from None


class sending:  # noqa: N801  used like a function: an iterator with a place to give back
    """`chunks` as they are, sent while one of this process's places for senders is held.

    The place is given back when the answer is closed, sent or not. Raises Unavailable at once when
    all places are taken.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._slots = _process.senders
        self._held = self._slots.take()
        if not self._held:
            raise Unavailable(
                f"This server sends {self._slots.count} files already.",
                code="too_many_downloads",
                hint="Try again in some seconds.",
                retry_after_s=3,
            )
        admission.load.hold()
        self._source = chunks
        self._chunks = iter(chunks)

    def __iter__(self) -> sending:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        """End the source and give the place back; again does nothing."""
        if not self._held:
            return
        self._held = False
        admission.load.let_go()
        self._slots.give_back()
        for part in (self._chunks, self._source):
            if hasattr(part, "close"):
                part.close()


def serve(look: Callable[[], Look], *subjects: Subject) -> Response:
    """A response that sends what `look` finds, now and whenever one of `subjects` wakes it.

    `look` is called in the thread of the response, with a database connection, after the request's
    own context has ended; it keeps its own place (what it has sent already).
    """
    response = Response(_lines(look, subjects), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold the events back
    return response


def _lines(look: Callable[[], Look], subjects: tuple[Subject, ...]) -> Iterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    with admission.load.held(), _process.slots.taken() as slot, Waiter(*subjects) as waiter:
        end_s = time.monotonic() + LIFE_S
        said_s = time.monotonic()
        while True:
            with database.connected():
                found = look()
            for event in found.events:
                yield event.encoded()
            now_s = time.monotonic()
            if found.events:
                said_s = now_s
            elif now_s - said_s >= HEARTBEAT_S:
                yield b": still here\n\n"
                said_s = now_s
            if found.ended or not slot or now_s >= end_s or _process.ending.is_set():
                return
            if _process.ending.wait(CALM_S):
                return
            _wait_calmly(waiter, min(said_s + HEARTBEAT_S, end_s))


def _wait_calmly(waiter: Waiter, until_s: float) -> None:
    """Wait for a wake-up until the monotonic clock reads `until_s`, or `end_all` is called."""
    while not _process.ending.is_set():
        left_s = until_s - time.monotonic()
        if left_s <= 0 or waiter.wait(min(left_s, 1.0)):
            return
