"""Rows of a query as plain dicts or tuples: no row object is made for a page of a list.

peewee types every query as one of model objects; these functions say what `.dicts()` and
`.tuples()` give.
"""

from __future__ import annotations

from typing import Any

from airavata_scheduler.models.errors import NotFound

Row = dict[str, Any]


def dict_rows(query: Any) -> list[Row]:
    """All rows, each as a dict by column."""
    return list(query.dicts())


def dict_row(query: Any) -> Row | None:
    """The first row as a dict by column, or None."""
    found = list(query.limit(1).dicts())
    return found[0] if found else None


def tuple_rows(query: Any) -> list[tuple[Any, ...]]:
    """All rows, each as a tuple."""
    return list(query.tuples())


def tuple_row(query: Any) -> tuple[Any, ...] | None:
    """The first row as a tuple, or None."""
    found = list(query.limit(1).tuples())
    return found[0] if found else None


def dict_one(query: Any) -> Row:
    """The one row as a dict by column. Raises NotFound if it was deleted meanwhile."""
    found = dict_row(query)
    if found is None:
        raise NotFound
    return found


def tuple_one(query: Any) -> tuple[Any, ...]:
    """The one row as a tuple. Raises NotFound if it was deleted meanwhile."""
    found = tuple_row(query)
    if found is None:
        raise NotFound
    return found
