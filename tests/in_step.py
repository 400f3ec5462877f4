"""Whether SpiceDB holds exactly what follows from the rows of the database."""

from __future__ import annotations

from airavata_scheduler.backends.spicedb import spicedb
from airavata_scheduler.models import relations


def out_of_step() -> set[str]:
    """Relationships that are only in SpiceDB (`+ …`) or only follow from the rows (`- …`)."""
    found = set()
    for kind in relations.KINDS:
        there = {str(key) for key in spicedb().relationships(kind)}
        wanted = {str(key) for key in relations.every(kind)}
        found |= {f"+ {key}" for key in there - wanted} | {f"- {key}" for key in wanted - there}
    return found
