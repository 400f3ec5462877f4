"""An experiment's timeline: what happened to it, in the order of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from airavata_scheduler.models.database import change, execute, now_sql
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.ids import new_ids

# What a caller writes beside a change, in its transaction, if there is a change.
Note = Callable[[], None]


def no_note() -> None:
    """Nothing."""


def add(experiment_id: str, kind: str, **detail: Any) -> None:
    """Write one event into the timeline of an experiment, in the caller's transaction."""
    add_many([(experiment_id, kind, detail)])


def add_many(happened: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
    """Write several events, each (experiment id, kind, detail), in one statement."""
    events = list(happened)
    if not events:
        return
    values = ", ".join([f"(%s, %s, {now_sql()}, %s, %s)"] * len(events))
    params = [
        value
        for event_id, (experiment_id, kind, detail) in zip(
            new_ids(len(events)), events, strict=True
        )
        for value in (event_id, experiment_id, kind, canonical_json(detail))
    ]
    change(f"INSERT INTO events (id, experiment_id, at, kind, detail) VALUES {values}", params)


def list_after(
    experiment_id: str, after_id: str | None = None, limit: int = 50
) -> list[tuple[str, int, str, dict[str, Any]]]:
    """Events (id, at in ms, kind, detail), oldest first, from the one behind `after_id` on."""
    condition, params = ("AND id > %s", [after_id]) if after_id else ("", [])
    rows = execute(
        "SELECT id, at, kind, detail FROM events "
        f"WHERE experiment_id = %s {condition} ORDER BY id LIMIT %s",
        [experiment_id, *params, limit],
    )
    return [(row[0], row[1], row[2], json.loads(row[3])) for row in rows]
