"""The schema that this release of the scheduler wants SpiceDB to have."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def text() -> str:
    """Who may do what, in SpiceDB's language."""
    return (Path(__file__).parent / "spicedb_schema.zed").read_text(encoding="utf-8")


def digest() -> str:
    """A short name of the text: another schema has another one."""
    return hashlib.sha256(text().encode()).hexdigest()[:16]
