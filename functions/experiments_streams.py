"""What is sent while it is made: an experiment's files as an archive, its events as they come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from airavata_scheduler.backends import stores
from airavata_scheduler.functions import (
    access,
    artifacts,
    downloads,
    experiment_documents,
    experiments_views,
    streams,
)
from airavata_scheduler.functions.archive import Member, tar_gz
from airavata_scheduler.functions.shapes import Query
from airavata_scheduler.models import database, events
from airavata_scheduler.models.ids import is_id

api = APIBlueprint("experiments_streams", __name__, abp_tags=[Tag(name="experiments")])

ARCHIVE_PAGE = 200
RATE_WINDOW_S = 30.0
EVENTS_AT_ONCE = 200


class ArchiveQuery(Query):
    """Which files: those of one task of the file, those whose path fits a glob."""

    node: str | None = Field(None, max_length=255)
    path: str | None = Field(None, max_length=1024, description="A glob, such as *.csv")


@api.get("/api/v1/experiments/<experiment>/archive")
def archive(query: ArchiveQuery) -> Response:
    """Its output files as one tar.gz: entries `<task>/<instance>/<path>`, made while it is sent."""
    found = access.target("experiment")
    if query.node is not None:
        experiments_views.nodes_of(found, query.node)
    return downloads.attachment(
        tar_gz(_members(found.id, query)),
        mimetype="application/gzip",
        filename=f"{found.name or found.id}.tar.gz",
    )


@api.get("/api/v1/experiments/<experiment>/events")
def watch() -> Response:
    """Server-sent events: `state`, `event` (timeline), `progress`, and `end` when it has ended.

    `Last-Event-ID` goes on behind the timeline's line that the client saw last.
    """
    found = access.target("experiment")
    last = request.headers.get("Last-Event-ID", "")
    watcher = _Watch(found.id, last if is_id(last) else None)
    return streams.serve(watcher.look, ("experiment", found.id))


class _Watch:
    """What one watching client has been told already."""

    def __init__(self, experiment_id: str, last_event: str | None) -> None:
        self._id = experiment_id
        self._last_event = last_event
        self._state: str | None = None
        self._progress: dict[str, Any] | None = None
        self._samples: deque[tuple[float, int]] = deque()

    def look(self) -> streams.Look:
        """What is new since the last look."""
        now = experiment_documents.progress(self._id)
        told: list[streams.Event] = []
        fresh = events.list_after(self._id, self._last_event, EVENTS_AT_ONCE)
        for row in fresh:
            self._last_event = row[0]
            told.append(streams.Event(kind="event", data=experiments_views.event(row), id=row[0]))
        if now["state"] != self._state:
            self._state = now["state"]
            told.append(streams.Event(kind="state", data={"state": self._state}))
        if self._progress is None or now["nodes"] != self._progress["nodes"]:
            self._progress = now
            told.append(streams.Event(kind="progress", data={**now, **self._pace(now)}))
        ended = self._state in experiment_documents.TERMINAL_STATES
        ended = ended and len(fresh) < EVENTS_AT_ONCE
        if ended:
            told.append(streams.Event(kind="end", data=now))
        return streams.Look(events=told, ended=ended)

    def _pace(self, now: dict[str, Any]) -> dict[str, float | None]:
        """Rate and ETA of the last half minute, which a pause or a slow start does not spoil."""
        ended = experiment_documents.ended_of(now["counts"])
        self._samples.append((time.monotonic(), ended))
        while self._samples[-1][0] - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        if last_s - first_s < 1:
            return {}
        rate = (last - first) / (last_s - first_s)
        return experiment_documents.pace(now["state"], now["total"] - ended, rate)


def _members(experiment_id: str, query: ArchiveQuery) -> Iterator[Member]:
    """The files of the archive, a page of rows at a time, each opened when its turn comes."""
    last: str | None = None
    while True:
        with database.connected():
            rows = artifacts.published(
                experiment_id, node=query.node, after_id=last, limit=ARCHIVE_PAGE
            )
            found = [(row, stores.store(row["storage_id"])) for row in rows]
        for row, storage in found:
            if artifacts.fits(row["path"], query.path):
                yield Member(
                    name=f"{row['node']}/{row['idx']}/{row['path']}",
                    size=row["size"],
                    sha256=row["sha256"],
                    mtime_s=(row["published_at"] or row["created_at"]) // 1000,
                    opened=storage.open(row["storage_key"]),
                )
        if len(rows) < ARCHIVE_PAGE:
            return
        last = rows[-1]["id"]
