"""Filling SpiceDB from the database, and comparing the two.

A rebuild is fenced by its own mark: each of its writes demands that it still is *the* rebuild, so
a second one that starts takes over, and what the first one had read can no longer be written. The
mark that makes checks pass comes last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from airavata_scheduler.backends import relay, spicedb_schema
from airavata_scheduler.backends.relay import RELAY, Marks, ProjectionMissing, mark
from airavata_scheduler.backends.spicedb import Fence, Fenced, SpiceDB, spicedb
from airavata_scheduler.models import deployment, outbox, relations
from airavata_scheduler.models.database import execute, now_ms, transaction
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.relations import Relationship

BATCH: Final = 900
STALE_REBUILD_MS: Final = 15_000  # a rebuild that wrote nothing for so long has died
RECENT_MS: Final = 300_000  # a difference that an entry of this age explains is none

_REBUILD: Final = "authz:rebuild"  # which rebuild is under way, and when it wrote last
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What a comparison found and mended."""

    missing: int
    extra: int
    schema: bool


def ensure() -> bool:
    """Fill SpiceDB if it does not hold our relationships; whether it did.

    Raises PermissionsUnavailable while SpiceDB is away, ProjectionForeign if it is another's.
    """
    try:
        relay.check_marks(relay.read_marks(spicedb()))
    except ProjectionMissing:
        if _rebuild_is_alive():
            raise
        rebuild()
        return True
    return False


def _rebuild_is_alive() -> bool:
    """Whether some process is at it: a second one would only take over what the first has done."""
    return deployment.written_within(_REBUILD, STALE_REBUILD_MS) and bool(deployment.read(_REBUILD))


def rebuild(
    *, take_over: bool = False, progress: Callable[[int], None] = lambda _count: None
) -> int:
    """Write schema and every relationship anew; how many. Checks fail until it is done.

    `take_over` also replaces what another deployment wrote. Raises Fenced if another rebuild took
    over, ProjectionForeign, PermissionsUnavailable.
    """
    database = spicedb()
    marks = relay.read_marks(database)
    if not take_over and marks.deployment not in (None, relay.deployment_id()):
        relay.check_marks(marks)
    projection = relay.new_projection()
    try:
        count = _fill(database, marks, projection, progress)
    except Fenced:
        relay.adopt_projection(database, instead_of=projection)
        raise
    _log.info("permissions: SpiceDB was filled with %d relationships", count)
    return count


def _fill(database: SpiceDB, marks: Marks, projection: str, progress: Callable[[int], None]) -> int:
    mine = mark("rebuild", new_id())
    if not marks.relationships():
        # Nothing of ours: an empty SpiceDB, or one that refuses because of what others have there.
        database.write_schema(spicedb_schema.text())
    deployment.write(_REBUILD, mine.subject_id)
    database.write([mine], [old for old in marks.relationships() if old != mine], marks.fences())
    fence = Fence(relationship=mine)
    # Not the position as it was read: a relayer may have got on since then, and one that has that
    # newer position in mind must be refused as well.
    _clear(database, RELAY[0], fence, relation="position")
    # All that there is by the schema there: SpiceDB gives up no relation that is still used.
    for kind in database.kinds():
        if kind != RELAY[0]:
            _clear(database, kind, fence)
    database.write_schema(spicedb_schema.text())
    count = 0
    for batch in _batches(relations.every()):
        database.write(batch, [], [fence])
        count += len(batch)
        deployment.write(_REBUILD, mine.subject_id)
        progress(count)
    # Never a position that was there before: a relayer that still has it in mind must fail.
    position = max(outbox.newest_position() + 1, now_ms())
    outbox.intend(position)
    # Before the mark that makes checks pass: who dies behind it must leave none that an emptied
    # SpiceDB does not know, for by such a token nobody could ask, and nothing would look amiss.
    outbox.forget_tokens()
    final = [mark("projection", projection), mark("position", str(position))]
    token = database.write(final, [mine], [fence])
    with transaction():
        named = [outbox.NEWEST, outbox.SHARED, outbox.INTENDED]
        outbox.keep_tokens(named, token=token, position=position)
        relay.note_projection(projection)
        deployment.write(_REBUILD, "")
    return count


def _clear(database: SpiceDB, kind: str, fence: Fence, *, relation: str = "") -> None:
    done = False
    while not done:
        done = database.clear_some(kind, fence, relation=relation)
        deployment.write(_REBUILD, fence.relationship.subject_id)


def _batches(found: Iterable[Relationship]) -> Iterator[list[Relationship]]:
    iterator = iter(found)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def reconcile() -> Repaired:
    """Compare SpiceDB with the database and mend both directions through the outbox.

    What is missing is written; what is too much was written by somebody else: it is taken away and
    an alarm is raised. By another schema than ours SpiceDB is filled anew. Raises as `relay.relay`.
    """
    relay.relay()
    database = spicedb()
    relay.check_marks(relay.read_marks(database))
    # The marks say by which schema SpiceDB was filled. It takes one from anybody all the same: by
    # hand, from another release's command, or late from a rebuild that was outrun.
    foreign = not database.has_schema(spicedb_schema.text())
    if foreign:
        _log.error("permissions: SpiceDB had another schema than ours; it is filled again")
        try:
            rebuild()
        except Fenced:  # another one is at it, by now
            raise relay.missing() from None
    missing = extra = 0
    for kind in relations.KINDS:
        absent, surplus = _differences(database, kind)
        missing, extra = missing + len(absent), extra + len(surplus)
        _repair(kind, absent, surplus)
    relay.relay()
    for name, count in (("authz:missing", missing), ("authz:extra", extra)):
        if count:
            deployment.write(name, str(int(deployment.read(name) or "0") + count))
    return Repaired(missing=missing, extra=extra, schema=foreign)


def _differences(database: SpiceDB, kind: str) -> tuple[list[Relationship], list[Relationship]]:
    """What of one kind is missing in SpiceDB and what is too much, beyond what is on its way."""
    there = set(database.relationships(kind))
    wanted = set(relations.every(kind))
    suspects = (there ^ wanted) - _recent_keys()
    true = relations.true_among(suspects)
    absent = sorted(key for key in suspects & true if key not in there)
    surplus = sorted(key for key in suspects - true if key in there)
    return absent, surplus


def _recent_keys() -> set[Relationship]:
    rows = execute(
        "SELECT payload FROM outbox WHERE relayed_at IS NULL OR created_at > "
        "(SELECT MAX(created_at) FROM outbox) - %s",
        (RECENT_MS,),
    )
    return {key for row in rows for key in outbox.keys_of(row[0])}


def _repair(kind: str, absent: list[Relationship], surplus: list[Relationship]) -> None:
    for key in surplus:
        _log.error("permissions: SpiceDB had %s, which no row grants; it is taken away", key)
    for key in absent:
        _log.warning("permissions: SpiceDB lacked %s; it is written", key)
    with transaction():
        if surplus:
            outbox.append(surplus, about=(kind, ""), revokes=True, kind="repair")
        if absent:
            outbox.append(absent, about=(kind, ""), revokes=False, kind="repair")
