"""Locking the rows that a decision rests on, until the transaction ends."""

from __future__ import annotations

from typing import Any

from airavata_scheduler.models.database import dialect


def locked(query: Any) -> Any:
    """A `ModelSelect` with FOR UPDATE; in SQLite a write transaction is alone anyway."""
    return query if dialect() == "sqlite" else query.for_update()
