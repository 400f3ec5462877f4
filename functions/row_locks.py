"""Locking the rows that a decision rests on, until the transaction ends."""

from __future__ import annotations

import peewee

from airavata_scheduler.models.database import dialect


def locked(query: peewee.ModelSelect) -> peewee.ModelSelect:
    """`query` with FOR UPDATE; in SQLite a write transaction is alone anyway."""
    return query if dialect() == "sqlite" else query.for_update()
