"""Changes of grants, written in the transaction that makes them and relayed to SpiceDB after it.

An entry names relationships, not what became of them: the relay looks that up (`relations.py`), so
that entries may be relayed twice, late, or in any order. A check waits for those that concern it:
all that revoke, all about objects from which others' permissions follow, and those of its object.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from airavata_scheduler.models.database import (
    change,
    database,
    execute,
    marks,
    now_ms,
    now_sql,
    transaction,
)
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.relations import GROUP_SUBJECT, Relationship
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.tables import OutboxEntry

Named = tuple[str, str]  # kind and id
Kind = Literal["change", "repair"]

KEYS_PER_ENTRY: Final = 200
# Kinds on which nothing else depends: a change of one concerns its own checks alone.
LEAVES: Final = ("function", "experiment", "agent", "credential")
SHARED: Final = ("shared", "")  # the newest change that concerns checks of other objects as well
NEWEST: Final = ("newest", "")
# Noted before SpiceDB is written to. A SpiceDB that is further than this knows of commits that the
# database lost: it was restored, or failed over to a standby that was behind.
INTENDED: Final = ("intended", "")

_written = threading.local()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry that waits for its relay."""

    id: str
    object: Named
    revokes: bool
    keys: tuple[Relationship, ...]


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """What a check of some objects has to know first."""

    waiting: bool  # something that concerns it is not relayed yet
    token: str | None  # SpiceDB's state must be at least this new; None: ask for the newest
    position: int  # SpiceDB must have got at least this far; 0: nothing was ever written


def relationship(resource: Named, relation: str, subject: Named) -> Relationship:
    """`subject` may be `("group", id)`, which means its members, or `("group_object", id)`."""
    kind, tail = subject[0], ""
    if kind == "group":
        tail = GROUP_SUBJECT
    elif kind == "group_object":
        kind = "group"
    return Relationship(
        kind=resource[0],
        id=resource[1],
        relation=relation,
        subject_kind=kind,
        subject_id=subject[1],
        subject_relation=tail,
    )


def append(
    keys: Iterable[Relationship], *, about: Named, revokes: bool, kind: Kind = "change"
) -> None:
    """Note that `keys` may have become true or false; in the transaction that changes the rows."""
    texts = [str(key) for key in keys]
    for start in range(0, len(texts), KEYS_PER_ENTRY):
        OutboxEntry.insert(
            id=new_id(),
            kind=kind,
            object_kind=about[0],
            object_id=about[1],
            revokes=revokes,
            payload={"keys": texts[start : start + KEYS_PER_ENTRY]},
            created_at=now_ms(),
        ).execute()
    _written.any = True


def created(kind: str, object_id: str, *, project_id: str, owner_id: str) -> None:
    """Note a new function or experiment of a project's, in the transaction that makes it."""
    made = (kind, object_id)
    keys = [
        relationship(made, "project", ("project", project_id)),
        relationship(made, "owner", ("user", owner_id)),
    ]
    append(keys, about=made, revokes=False)


def resource_changed(
    resource: Named, owner_id: str | None, project_id: str | None, *, ends: bool = False
) -> None:
    """Note a new compute or storage resource, or its end."""
    keys = [
        relationship(resource, "system", ("system", "main")),
        relationship(resource, "user", ("user", "*")),
    ]
    if owner_id is not None:
        keys.append(relationship(resource, "owner", ("user", owner_id)))
    if project_id is not None:
        keys.append(relationship(resource, "project", ("project", project_id)))
    append(keys, about=resource, revokes=ends)


def take_written() -> bool:
    """Whether this thread wrote an entry since it was asked last."""
    found = bool(getattr(_written, "any", False))
    _written.any = False
    return found


def waiting(limit: int) -> list[Entry]:
    """The oldest entries that wait for their relay."""
    rows = execute(
        "SELECT id, object_kind, object_id, revokes, payload FROM outbox "
        "WHERE relayed_at IS NULL ORDER BY id LIMIT %s",
        (limit,),
    )
    return [
        Entry(
            id=str(row[0]),
            object=(row[1], row[2]),
            revokes=bool(row[3]),
            keys=keys_of(row[4]),
        )
        for row in rows
    ]


def keys_of(payload: str) -> tuple[Relationship, ...]:
    """The relationships that an entry's payload names."""
    return tuple(Relationship.read(text) for text in json.loads(payload)["keys"])


def newest_position() -> int:
    """The relay's position that was noted last; 0 before the first."""
    rows = execute(
        "SELECT position FROM zed_tokens WHERE object_kind = %s AND object_id = %s", NEWEST
    )
    return int(rows[0][0]) if rows else 0


def intend(position: int) -> None:
    """Note, and commit, that SpiceDB will be brought to `position`."""
    keep_tokens([INTENDED], token="", position=position)


def intended_position() -> int:
    """How far SpiceDB can be at most; 0 before the first."""
    rows = execute(
        "SELECT position FROM zed_tokens WHERE object_kind = %s AND object_id = %s", INTENDED
    )
    return int(rows[0][0]) if rows else 0


def relayed(entries: Sequence[Entry], *, token: str, position: int) -> None:
    """Mark `entries` as relayed and keep SpiceDB's token for what they are about."""
    objects = {entry.object for entry in entries} | {NEWEST}
    objects |= {(key.kind, key.id) for entry in entries for key in entry.keys}
    if any(entry.revokes or entry.object[0] not in LEAVES for entry in entries):
        objects.add(SHARED)
    with transaction():
        keep_tokens(sorted(objects), token=token, position=position)
        ids = [entry.id for entry in entries]
        change(f"UPDATE outbox SET relayed_at = {now_sql()} WHERE id IN ({marks(ids)})", ids)


def keep_tokens(objects: Sequence[Named], *, token: str, position: int) -> None:
    """Keep `token` for `objects` unless they have a newer one."""
    insert_rows(
        "zed_tokens",
        ("object_kind", "object_id", "token", "position"),
        [(kind, object_id, token, position) for kind, object_id in objects],
        on_conflict="nothing",
    )
    for kind, object_id in objects:
        change(
            "UPDATE zed_tokens SET token = %s, position = %s "
            "WHERE object_kind = %s AND object_id = %s AND position < %s",
            (token, position, kind, object_id, position),
        )


def forget_tokens() -> None:
    """Drop every token: SpiceDB is being filled anew and may know none of them.

    How far SpiceDB got, and will get at most, stays noted. Until there are new tokens checks ask
    for the newest state.
    """
    with transaction():
        kept = (NEWEST[0], INTENDED[0])
        change("DELETE FROM zed_tokens WHERE object_kind NOT IN (%s, %s)", kept)
        change("UPDATE zed_tokens SET token = ''")


_FRESHNESS: Final = """
SELECT 0, NULL, COUNT(*) FROM (
  SELECT 1 AS one FROM outbox WHERE relayed_at IS NULL {about} LIMIT 1) AS w
UNION ALL
SELECT 1, token, position FROM zed_tokens WHERE (object_kind = %s AND object_id = %s) {objects}
UNION ALL
SELECT 2, NULL, position FROM zed_tokens WHERE object_kind = %s AND object_id = %s
"""


def freshness(objects: Sequence[Named]) -> Freshness:
    """What a check of `objects` has to know first, in one query; none: any object at all."""
    either = "".join(" OR (object_kind = %s AND object_id = %s)" for _ in objects)
    about = f"AND (revokes = TRUE OR object_kind NOT IN {LEAVES}{either})" if objects else ""
    names = [text for named in objects for text in named]
    base = SHARED if objects else NEWEST
    rows = execute(_FRESHNESS.format(about=about, objects=either), [*names, *base, *names, *NEWEST])
    tokens = [(int(row[2]), str(row[1])) for row in rows if row[0] == 1 and row[1]]
    return Freshness(
        waiting=any(row[0] == 0 and row[2] for row in rows),
        token=max(tokens)[1] if tokens else None,
        position=max((int(row[2]) for row in rows if row[0] == 2), default=0),
    )


def in_transaction() -> bool:
    """Whether this thread is inside a transaction, where nothing may be relayed."""
    return bool(database.in_transaction())
