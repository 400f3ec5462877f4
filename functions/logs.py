"""What a task wrote: any range of either stream, also while it runs, and following it as it grows.

A short stream comes with the report and lies in the row; a long one grows in the storage under a
key that names the attempt. Where both could be, the row decides.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from airavata_scheduler.backends import stores
from airavata_scheduler.functions import access, streams
from airavata_scheduler.functions.selected import dict_one, dict_row, tuple_row
from airavata_scheduler.functions.shapes import Path, Query
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.tables import Attempt, Experiment, Log, Task

api = APIBlueprint("logs", __name__, abp_tags=[Tag(name="tasks")])

DEFAULT_BYTES = 1 << 20
MAX_BYTES = 16 << 20
MAX_ATTEMPT = 2**31 - 1  # what the column holds
FOLLOW_BYTES = 1 << 16  # bytes in one event
FOLLOW_EVENTS = 16  # events in one look


class TaskLogPath(Path):
    """A stream of a task."""

    task: str
    stream: Literal["stdout", "stderr"]


class LogQuery(Query):
    """Which attempt, and which bytes."""

    attempt: int | None = Field(
        None, ge=1, le=MAX_ATTEMPT, description="The newest where it is not said"
    )
    offset: int = Field(0, description="First byte; a negative one counts from the end")
    limit: int = Field(DEFAULT_BYTES, ge=0, le=MAX_BYTES, description="Bytes at most")


class FollowQuery(Query):
    """Which attempt to follow."""

    attempt: int | None = Field(
        None, ge=1, le=MAX_ATTEMPT, description="Each newest where it is not said"
    )


@dataclass(frozen=True, kw_only=True)
class Written:
    """One stream of one attempt at one moment."""

    attempt: int
    size: int
    complete: bool
    truncated: bool
    inline: bytes | None = None
    storage_id: str | None = None
    key: str | None = None

    def read(self, start: int, stop: int) -> bytes:
        """The bytes `start` ≤ i < `stop`, clipped to what is there."""
        if self.inline is not None:
            return self.inline[max(0, start) : max(0, stop)]
        if self.storage_id is None or self.key is None or self.size == 0:
            return b""
        with stores.store(self.storage_id).open(self.key, start=start, stop=stop) as opened:
            return opened.read()


@api.get("/api/v1/tasks/<task>/logs/<stream>")
def log(path: TaskLogPath, query: LogQuery) -> Response:
    """The raw bytes. `X-Log-Size` is the size so far, `X-Log-Complete` whether it is all of it."""
    found = written(access.target("task").row, path.stream, query.attempt)
    start = query.offset if query.offset >= 0 else max(0, found.size + query.offset)
    response = Response(
        found.read(start, min(start + query.limit, found.size)), mimetype="text/plain"
    )
    response.headers["X-Log-Attempt"] = str(found.attempt)
    response.headers["X-Log-Offset"] = str(min(start, found.size))
    response.headers["X-Log-Size"] = str(found.size)
    response.headers["X-Log-Complete"] = "true" if found.complete else "false"
    response.headers["X-Log-Truncated"] = "true" if found.truncated else "false"
    return response


@api.get("/api/v1/tasks/<task>/logs/<stream>/events")
def follow(path: TaskLogPath, query: FollowQuery) -> Response:
    """Server-sent events: `log` {attempt, offset, text}, `attempt` for a new try, then `end`.

    An event's id is `<attempt>:<offset behind it>`; `Last-Event-ID` goes on from there.
    """
    task = access.target("task")
    if query.attempt is not None:
        written(task.row, path.stream, query.attempt)  # raises while there can be a 404
    last = request.headers.get("Last-Event-ID", "")
    follower = _Follower(task.id, path.stream, query.attempt, last)
    return streams.serve(follower.look, ("log", task.id), ("task", task.id))


def written(task: Mapping[str, Any], stream: str, number: int | None = None) -> Written:
    """A stream of an attempt of a task, the newest attempt where none is named.

    `task` is the row of `tasks`. A task that never ran has an empty stream. Raises NotFound
    `attempt_not_found` for an attempt that there was not.
    """
    current = task["attempt"]
    wanted = current if number is None else number
    ended = tuple_row(
        Attempt.select(Attempt.lease_id)
        .where((Attempt.task_id == task["id"]) & (Attempt.number == wanted))
        .order_by(Attempt.finished_at.desc())
    )
    # An ended task has its attempt's row; a lease without one is still held, or lapsed unstarted.
    lease_id = ended[0] if ended else task["lease_id"] if wanted == current else None
    if lease_id is None:
        if wanted == 0 or number is None:
            terminal = TaskState(task["state"]).is_terminal
            return Written(attempt=wanted, size=0, complete=terminal, truncated=False)
        raise NotFound(
            f"The task has no attempt {wanted}.",
            code="attempt_not_found",
            hint=f"It has the attempts 1 to {current}." if current else "It has not run yet.",
        )
    return _stored(task, stream, wanted, lease_id, complete=ended is not None)


def _stored(
    task: Mapping[str, Any], stream: str, number: int, lease_id: str, *, complete: bool
) -> Written:
    row = (
        dict_row(
            Log.select(Log.size, Log.storage_key, Log.inline, Log.truncated).where(
                (Log.lease_id == lease_id) & (Log.stream == stream)
            )
        )
    ) or {"size": 0, "storage_key": None, "inline": None, "truncated": False}
    if row["inline"] is not None and row["storage_key"] is None:
        inline = bytes(row["inline"])
        return Written(
            attempt=number,
            size=len(inline),
            complete=complete,
            truncated=bool(row["truncated"]),
            inline=inline,
        )
    storage_id = _storage_of(task)
    key = row["storage_key"] or stores.log_key(task["id"], number, lease_id, stream)
    size = stores.store(storage_id).size(key) or 0
    return Written(
        attempt=number,
        size=size,
        complete=complete,
        truncated=bool(row["truncated"]),
        storage_id=storage_id,
        key=key,
    )


def _storage_of(task: Mapping[str, Any]) -> str:
    """Logs lie in the experiment's storage resource, those of calls in the default one."""
    chosen = (
        Experiment.select(Experiment.storage_id)
        .where(Experiment.id == task["experiment_id"])
        .scalar()
    )
    return str(chosen) if chosen else stores.default_storage_id()


class _Follower:
    """What one following client has been sent already."""

    def __init__(self, task_id: str, stream: str, attempt: int | None, last: str) -> None:
        self._task_id, self._stream, self._asked = task_id, stream, attempt
        self._attempt, self._offset = _place(last)
        # A chunk may end in the middle of a character; its rest comes with the next one.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def look(self) -> streams.Look:
        """What was written since the last look."""
        task = dict_one(Task.select().where(Task.id == self._task_id))
        number = self._following(task)
        found = self._written(task, number)
        told: list[streams.Event] = []
        if found.attempt != self._attempt:
            self._attempt, self._offset = found.attempt, 0
            self._decoder.reset()
            told.append(streams.Event(kind="attempt", data={"attempt": found.attempt}))
        told += self._fresh(found)
        over = TaskState(task["state"]).is_terminal or self._asked is not None
        ended = over and found.complete and self._offset >= found.size
        ended = ended and found.attempt in (self._asked, task["attempt"])
        if ended:
            told.append(self._end(task, found))
        return streams.Look(events=told, ended=ended)

    def _following(self, task: Mapping[str, Any]) -> int | None:
        """The attempt to read: the asked one, or first what is left of an earlier one."""
        if self._asked is not None:
            return self._asked
        known = self._attempt
        if known is None or known >= task["attempt"]:
            return None
        before = self._written(task, known)
        return known if self._offset < before.size else None

    def _written(self, task: Mapping[str, Any], number: int | None) -> Written:
        """As `written`; an attempt that was given back before it started wrote nothing."""
        try:
            return written(task, self._stream, number)
        except NotFound:
            assert number is not None
            return Written(attempt=number, size=0, complete=True, truncated=False)

    def _fresh(self, found: Written) -> list[streams.Event]:
        """The next bytes as `log` events, at most `FOLLOW_EVENTS`."""
        told = []
        for _ in range(FOLLOW_EVENTS):
            if self._offset >= found.size:
                break
            stop = min(self._offset + FOLLOW_BYTES, found.size)
            data = found.read(self._offset, stop)
            if not data:
                break
            offset, self._offset = self._offset, self._offset + len(data)
            final = found.complete and self._offset >= found.size
            told.append(
                streams.Event(
                    kind="log",
                    data={
                        "attempt": found.attempt,
                        "offset": offset,
                        "text": self._decoder.decode(data, final),
                    },
                    id=f"{found.attempt}:{self._offset}",
                )
            )
        return told

    def _end(self, task: Mapping[str, Any], found: Written) -> streams.Event:
        return streams.Event(
            kind="end",
            data={
                "attempt": found.attempt,
                "size": found.size,
                "state": TaskState(task["state"]).name,
                "complete": found.complete,
                "truncated": found.truncated,
            },
        )


def _place(last: str) -> tuple[int | None, int]:
    """Attempt and offset of a `Last-Event-ID`; the beginning for one that is not ours."""
    number, mark, offset = last.partition(":")
    if not mark or not all(part.isascii() and part.isdigit() for part in (number, offset)):
        return None, 0
    return int(number[:9]), int(offset[:18])
