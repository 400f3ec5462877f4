"""What must stand in SpiceDB: the relationships that follow from the rows of the database.

Rows are the truth: a relationship exists if its SELECT (`projections.py`) finds it now. Nothing
else decides what is written to SpiceDB, be it the relay (`true_among`) or a rebuild (`every`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from airavata_scheduler.models.database import execute, marks
from airavata_scheduler.models.projections import PROJECTIONS
from airavata_scheduler.models.relationship import (
    EVERYBODY,
    GROUP_SUBJECT,
    SYSTEM,
    Projection,
    Relationship,
)

__all__ = [
    "EVERYBODY",
    "GROUP_SUBJECT",
    "KINDS",
    "PROJECTIONS",
    "SYSTEM",
    "Projection",
    "Relationship",
    "every",
    "is_known",
    "true_among",
]

PAGE_ROWS: Final = 1000
KEYS_PER_QUERY: Final = 200

_BY_SHAPE: Final = {projection.shape: projection for projection in PROJECTIONS}
KINDS: Final = tuple(dict.fromkeys(projection.kind for projection in PROJECTIONS))


def _shape(key: Relationship) -> tuple[str, str, str, str, bool]:
    wild = key.subject_id == EVERYBODY[1]
    return (key.kind, key.relation, key.subject_kind, key.subject_relation, wild)


def is_known(key: Relationship) -> bool:
    """Whether rows can make `key` true at all."""
    return _shape(key) in _BY_SHAPE


def true_among(keys: Iterable[Relationship]) -> set[Relationship]:
    """Those of `keys` that follow from the rows as they are now.

    One of a shape that no row makes is never true: another release knew it, or somebody wrote it.
    """
    by_shape: defaultdict[Projection, list[Relationship]] = defaultdict(list)
    for key in filter(is_known, keys):
        by_shape[_BY_SHAPE[_shape(key)]].append(key)
    found: set[Relationship] = set()
    for projection, asked in by_shape.items():
        for start in range(0, len(asked), KEYS_PER_QUERY):
            part = asked[start : start + KEYS_PER_QUERY]
            found |= set(_rows(projection, part)) & set(part)
    return found


def _rows(projection: Projection, keys: list[Relationship]) -> Iterator[Relationship]:
    conditions, parameters = [projection.where], []
    if projection.object_column is not None:
        ids = sorted({key.id for key in keys})
        conditions.append(f"{projection.object_column} IN ({marks(ids)})")
        parameters += ids
    if projection.subject_column is not None:
        ids = sorted({key.subject_id for key in keys})
        conditions.append(f"{projection.subject_column} IN ({marks(ids)})")
        parameters += ids
    sql = f"SELECT {_columns(projection)} FROM {projection.source} WHERE " + " AND ".join(
        conditions
    )
    for object_id, subject_id in execute(sql, parameters):
        yield projection.made(object_id, subject_id)


def _columns(projection: Projection) -> str:
    return f"{projection.object_column or 'NULL'}, {projection.subject_column or 'NULL'}"


def every(kind: str | None = None) -> Iterator[Relationship]:
    """Every relationship that follows from the rows, of one kind of object or of all.

    Read in pages, so that memory stays small; each page sees the rows as they are then.
    """
    for projection in PROJECTIONS:
        if kind in (None, projection.kind):
            yield from _pages(projection)


def _pages(projection: Projection) -> Iterator[Relationship]:
    columns = (projection.object_column, projection.subject_column)
    order = [column for column in columns if column is not None]
    position: list[Any] = []
    while True:
        condition, limit = projection.where, f" LIMIT {PAGE_ROWS}"
        if position:
            condition += f" AND ({', '.join(order)}) > ({marks(position)})"
        ordering = f" ORDER BY {', '.join(order)}{limit}" if order else ""
        rows = execute(
            f"SELECT {_columns(projection)} FROM {projection.source} WHERE {condition}{ordering}",
            position,
        )
        for object_id, subject_id in rows:
            yield projection.made(object_id, subject_id)
        if not order or len(rows) < PAGE_ROWS:
            return
        position = [value for value in rows[-1] if value is not None]
