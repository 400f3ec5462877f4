"""The relay: from the outbox to SpiceDB, fenced.

Each write swaps the relay's position in SpiceDB from n to n + 1 in the same transaction and demands
that it still was n. A relayer reads the position first and the rows after it; so whatever was
written between is noticed, and no relayer ever writes an older view over a newer one. The marks
beside the position tell an empty SpiceDB, one that was restored to an older state, and one that
another deployment filled, from ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from airavata_scheduler.backends import spicedb_schema
from airavata_scheduler.backends.spicedb import (
    CHECK_TIMEOUT_S,
    Fence,
    Fenced,
    PermissionsUnavailable,
    Question,
    SpiceDB,
    StoreForeign,
    spicedb,
)
from airavata_scheduler.models import deployment, outbox, relations
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.outbox import Entry
from airavata_scheduler.models.relations import Relationship

RELAY: Final = ("relay", "outbox")
MAX_KEYS: Final = 900  # of one write; SpiceDB takes 1,000 updates
BATCH_ENTRIES: Final = 200
TRIES: Final = 20  # against other relayers; each failure means that another one got on
LOCK_WAIT_S: Final = 3.0
WITHIN_S: Final = 10.0  # a longer backlog is relayed in several turns

_DEPLOYMENT: Final = "authz:deployment"  # who we are, for ever
_PROJECTION: Final = "authz:projection"  # which filling of SpiceDB is ours


class ProjectionMissing(PermissionsUnavailable):
    """SpiceDB does not hold our relationships, or another state of them; it is filled again."""

    code = "permissions_rebuilding"


class ProjectionForeign(PermissionsUnavailable):
    """SpiceDB holds the relationships of another deployment."""

    code = "permissions_foreign"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What stands at `relay:outbox`, and what the database had noted just before."""

    noted: int
    position: int | None
    projection: str | None
    rebuild: str | None

    @property
    def deployment(self) -> str | None:
        """The deployment that filled this SpiceDB."""
        return self.projection.partition("/")[0] if self.projection else None

    def fences(self) -> list[Fence]:
        """That the marks still are what was read."""
        return [
            Fence(
                relationship=mark("projection", self.projection or ""), absent=not self.projection
            ),
            Fence(relationship=mark("rebuild", self.rebuild or ""), absent=not self.rebuild),
        ]

    def relationships(self) -> list[Relationship]:
        """The marks as they stand in SpiceDB."""
        found = [
            (name, value)
            for name, value in (("projection", self.projection), ("rebuild", self.rebuild))
            if value is not None
        ]
        if self.position is not None:
            found.append(("position", str(self.position)))
        return [mark(name, value) for name, value in found]


_lock = threading.Lock()  # one relayer in a process


def mark(relation: str, value: str) -> Relationship:
    """A mark of the relay."""
    return Relationship(
        kind=RELAY[0], id=RELAY[1], relation=relation, subject_kind="mark", subject_id=value
    )


def deployment_id() -> str:
    """The id of this deployment, made once."""
    return deployment.read(_DEPLOYMENT) or deployment.write_once(_DEPLOYMENT, new_id())


def projection_id() -> str | None:
    """The mark of the filling of SpiceDB that belongs to this database and to this schema.

    None before the first, and where a release with another schema filled it: by its rules nobody
    may be let in, so it is filled again.
    """
    name = deployment.read(_PROJECTION)
    return name if name is not None and name.endswith(f"/{spicedb_schema.digest()}") else None


def new_projection() -> str:
    """A new mark, noted in the database before SpiceDB has it: until then every check fails."""
    name = f"{deployment_id()}/{new_id()}/{spicedb_schema.digest()}"
    note_projection(name)
    return name


def note_projection(name: str) -> None:
    """Note whose relationships SpiceDB holds; once more at a rebuild's end, see below."""
    deployment.write(_PROJECTION, name)


def adopt_projection(database: SpiceDB, *, instead_of: str) -> None:
    """What a rebuild does that was fenced off: the one that got on counts, not its own mark.

    It may have noted its own after the other one was through; while the other one still runs, that
    one notes its own at its end.
    """
    there = read_marks(database)
    if there.projection is not None and there.deployment == deployment_id():
        deployment.swap(_PROJECTION, instead_of, there.projection)


def whole(projection: str) -> Question:
    """Asks SpiceDB whether it holds our relationships, wholly; goes along with every check."""
    return Question(
        kind=RELAY[0], id=RELAY[1], permission="whole", user_kind="mark", user_id=projection
    )


def reached(position: int) -> Question:
    """Asks SpiceDB whether its state is the one of this position; so does this with each check."""
    return Question(
        kind=RELAY[0], id=RELAY[1], permission="position", user_kind="mark", user_id=str(position)
    )


def read_marks(database: SpiceDB) -> Marks:
    """The relay's marks in SpiceDB; all None where it is empty or knows no schema."""
    # Before SpiceDB is asked: whatever was noted by now, SpiceDB has got at least as far. What
    # another relayer notes meanwhile would make it look as if SpiceDB were behind.
    noted = outbox.newest_position()
    try:
        found = {
            relationship.relation: relationship.subject_id
            for relationship in database.relationships(*RELAY, timeout_s=CHECK_TIMEOUT_S)
        }
    except StoreForeign:
        found = {}
    position = found.get("position")
    return Marks(
        noted=noted,
        position=None if position is None else int(position),
        projection=found.get("projection"),
        rebuild=found.get("rebuild"),
    )


def check_marks(marks: Marks) -> int:
    """The position, if the marks are ours and whole. Raises ProjectionMissing or …Foreign."""
    if marks.deployment not in (None, deployment_id()):
        raise ProjectionForeign(
            "SpiceDB holds the permissions of another deployment.",
            hint="The operator sets SPICEDB_ENDPOINT to our own, or takes this one over: "
            "airavata-scheduler authz rebuild --take-over",
            retry_after_s=30.0,
        )
    ours = projection_id()
    if marks.position is None or ours is None or marks.projection != ours:
        raise missing()
    # Behind what we noted: SpiceDB was restored. Ahead of what we ever intended: the database was,
    # and what was revoked or never granted by its rows may still stand in SpiceDB.
    if not marks.noted <= marks.position <= outbox.intended_position():
        raise missing()
    return marks.position


def missing() -> ProjectionMissing:
    """The error for a SpiceDB that is being filled."""
    return ProjectionMissing(
        "The permissions are being written to SpiceDB again; until that is done nobody may do "
        "anything.",
        hint="Try again in a moment; running tasks go on.",
        retry_after_s=2.0,
    )


def relay(before_mark: Callable[[], None] = lambda: None) -> int:
    """Relay everything that waits; how many entries. `before_mark` runs between write and mark.

    Not inside a transaction. Raises PermissionsUnavailable, ProjectionMissing, ProjectionForeign.
    """
    if not _lock.acquire(timeout=LOCK_WAIT_S):
        raise PermissionsUnavailable(
            "SpiceDB, which decides who may do what, answers too slowly.", retry_after_s=2.0
        )
    try:
        return _relay_all(before_mark)
    finally:
        _lock.release()


def _relay_all(before_mark: Callable[[], None]) -> int:
    total = failures = 0
    until_s = time.monotonic() + WITHIN_S
    while outbox.waiting(1):
        if failures == TRIES or time.monotonic() > until_s:
            # Never go on as if all were done: what still waits may be a revoke.
            raise PermissionsUnavailable(
                "Many changes of grants are on their way to SpiceDB.",
                hint="Try again in a moment; running tasks go on.",
                retry_after_s=2.0,
            )
        try:
            total += _relay_batch(before_mark)
            failures = 0
        except (Fenced, StoreForeign):
            # Another relayer got on, or SpiceDB lost even its schema: the marks will tell.
            failures += 1
    return total


def _relay_batch(before_mark: Callable[[], None]) -> int:
    database = spicedb()
    # The order matters: first the position, then the entries, then the rows (see above). It is
    # asked each time and never remembered: who intends the next one by an older memory makes the
    # position of a commit that the database lost look like one that it knows.
    position = check_marks(read_marks(database))
    outbox.intend(position + 1)
    entries = _bounded(outbox.waiting(BATCH_ENTRIES))
    if not entries:
        return 0
    token = _write(database, {key for entry in entries for key in entry.keys}, position)
    before_mark()
    outbox.relayed(entries, token=token, position=position + 1)
    return len(entries)


def _write(database: SpiceDB, keys: set[Relationship], position: int) -> str:
    """Bring `keys` to what the rows say, and the position on by one; the ZedToken."""
    true = relations.true_among(keys)
    here, next_one = mark("position", str(position)), mark("position", str(position + 1))
    touch, fence = [*true, next_one], Fence(relationship=here)
    try:
        return database.write(touch, [*(keys - true), here], [fence])
    except StoreForeign:
        # Another release's entry may name a relation that the schema no longer has: then no such
        # relationship is there either. Should the schema be lost altogether, this fails as well.
        known = {key for key in keys if relations.is_known(key)}
        return database.write(touch, [*(known - true), here], [fence])


def _bounded(entries: list[Entry]) -> list[Entry]:
    """As many of the entries, from the first on, as fit into one write."""
    keys = 0
    for number, entry in enumerate(entries):
        keys += len(entry.keys)
        if keys > MAX_KEYS:
            return entries[:number]
    return entries
