"""The chain of the audit: each entry's hash holds the one before, so that nothing can be changed,
taken out or put in between without breaking it.

Entries are written in the transactions of the deeds, unchained, so that no lock stands in the way
of every write. A moment later one process gives them numbers and hashes: `seal`. Whoever can change
the database within that moment can still deny what was not sealed yet; the head is written to the
log from time to time, so that a chain that was made anew as a whole is found out as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from airavata_scheduler.models import deployment
from airavata_scheduler.models.database import change, dialect, execute, retried, transaction
from airavata_scheduler.models.fields import canonical_json, ours_or_text
from airavata_scheduler.models.rows import update_rows

BATCH: Final = 500
PAGE: Final = 1000
START: Final = "0" * 64  # stands before the first entry

_HEAD: Final = "audit:head"
COLUMNS: Final = (
    *("id", "at", "actor_kind", "actor_id", "action", "object_kind", "object_id"),
    *("project_id", "request_id", "address", "detail"),
)
_SELECT: Final = ", ".join(COLUMNS)
_HEAD_TEXT: Final = re.compile(r"(0|[1-9][0-9]{0,18}):([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest sealed entry."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def read(cls, text: str) -> Head:
        """The head that `seq:hash` says. Raises ValueError."""
        found = _HEAD_TEXT.fullmatch(text)
        if found is None:
            raise ValueError("a head is SEQ:HASH")
        return cls(seq=int(found[1]), hash=found[2])


class HeadDamaged(Exception):
    """The head in the database was changed: it is no SEQ:HASH."""

    def __str__(self) -> str:
        return str(self.__doc__)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a walk along the chain found: the first fault in words, or none."""

    entries: int
    head: Head
    fault: str | None


def entry_hash(previous: str, entry: Mapping[str, Any]) -> str:
    """SHA-256 over the hash before, a newline, and the entry as canonical JSON, in hexadecimal.

    `entry` has `seq` and every column but `hash`; `at` in milliseconds, `detail` as a JSON object,
    or as the column's text where somebody made that none of ours.
    """
    return hashlib.sha256(f"{previous}\n{canonical_json(dict(entry))}".encode()).hexdigest()


def head() -> Head:
    """The newest sealed entry; `0` and `START` before the first.

    Raises HeadDamaged if somebody wrote something else into its row.
    """
    return _stored(deployment.read(_HEAD) or f"0:{START}")


def _stored(text: str) -> Head:
    try:
        return Head.read(text)
    except ValueError:
        raise HeadDamaged from None


def sealed_count() -> int:
    """How many entries are sealed, as the head says; 0 if its row was damaged."""
    try:
        return head().seq
    except HeadDamaged:
        return 0


@retried
def seal(limit: int = BATCH) -> int:
    """Number and hash the oldest entries that are not sealed yet; how many.

    Any number of processes may call it at once: the head's row lets one work at a time. Raises
    HeadDamaged.
    """
    if unsealed_since() is None:
        return 0  # an idle deployment writes nothing
    deployment.write_once(_HEAD, f"0:{START}")
    with transaction():
        last = _locked_head()
        rows = execute(
            f"SELECT {_SELECT} FROM audit WHERE seq IS NULL ORDER BY id LIMIT %s", (limit,)
        )
        sealed = []
        for row in rows:
            entry = {**_entry(row), "seq": last.seq + 1}
            last = Head(seq=last.seq + 1, hash=entry_hash(last.hash, entry))
            sealed.append((entry["id"], last.seq, last.hash))
        if sealed:
            update_rows("audit", ("id",), ("seq", "hash"), sealed, where_sql="t.seq IS NULL")
            change("UPDATE deployment SET value = %s WHERE name = %s", (str(last), _HEAD))
    return len(sealed)


def _locked_head() -> Head:
    lock = "" if dialect() == "sqlite" else " FOR UPDATE"
    rows = execute(f"SELECT value FROM deployment WHERE name = %s{lock}", (_HEAD,))
    return _stored(str(rows[0][0]))


def _entry(row: tuple[Any, ...]) -> dict[str, Any]:
    found = dict(zip(COLUMNS, row, strict=True))
    return {
        **found,
        "id": str(found["id"]),
        "project_id": None if found["project_id"] is None else str(found["project_id"]),
        "detail": ours_or_text(found["detail"]),
    }


def entries() -> Iterator[dict[str, Any]]:
    """Every entry with `seq` and `hash`, oldest first, read in pages.

    Also one whose number no sealer gives, so that it is found out.
    """
    condition, behind = "seq IS NOT NULL", list[int]()
    while True:
        rows = execute(
            f"SELECT {_SELECT}, seq, hash FROM audit WHERE {condition} ORDER BY seq LIMIT %s",
            [*behind, PAGE],
        )
        for *columns, seq, digest in rows:
            yield {**_entry(tuple(columns)), "seq": int(seq), "hash": digest}
        if len(rows) < PAGE:
            return
        condition, behind = "seq > %s", [int(rows[-1][-2])]


def verify(witness: Head | None = None) -> Verdict:
    """Walk the whole chain of this database.

    `witness` is a head that was noted elsewhere (the log, an export): the chain must contain it.
    Entries may be sealed meanwhile: the chain must reach the head as it was before the walk, and
    may not go beyond the head as it is afterwards.
    """
    try:
        end = head()
    except HeadDamaged as error:
        return Verdict(entries=0, head=Head(seq=0, hash=START), fault=str(error))
    found = judge(entries(), end, witness)
    if found.fault is None and found.head.seq > (end := head()).seq:
        fault = (
            f"The head is at entry {end.seq}, and the chain goes on to {found.head.seq}: entries "
            "were put in, or the head was set back."
        )
        return replace(found, fault=fault)
    return found


def judge(found: Iterator[Mapping[str, Any]], end: Head, witness: Head | None = None) -> Verdict:
    """The first fault of a chain that should end with `end` and contain `witness`."""
    last, fault = Head(seq=0, hash=START), None
    for entry in found:
        fault = _fault(last, entry)
        if fault is not None:
            return Verdict(entries=last.seq, head=last, fault=fault)
        last = Head(seq=entry["seq"], hash=entry["hash"])
        if witness is not None and last.seq == witness.seq and last.hash != witness.hash:
            fault = f"Entry {last.seq} is not the one that was witnessed: the chain was made anew."
        elif last.seq == end.seq and last.hash != end.hash:
            fault = f"The head's hash is not that of entry {last.seq}."
        if fault is not None:
            return Verdict(entries=last.seq, head=last, fault=fault)
    newest = max(end.seq, witness.seq if witness is not None else 0)
    if last.seq < newest:
        fault = f"The entries from {last.seq + 1} to {newest} are missing at the end."
    return Verdict(entries=last.seq, head=last, fault=fault)


def _fault(last: Head, entry: Mapping[str, Any]) -> str | None:
    if entry["seq"] <= last.seq:
        return f"Entry {entry['seq']} ({entry['id']}) was put in: entry {last.seq} is before it."
    if entry["seq"] != last.seq + 1:
        return f"Entry {last.seq + 1} is missing: entry {entry['seq']} follows entry {last.seq}."
    content = {name: value for name, value in entry.items() if name != "hash"}
    if entry_hash(last.hash, content) != entry["hash"]:
        return f"Entry {entry['seq']} ({entry['id']}) was changed, or put in."
    return None


def unsealed_since() -> int | None:
    """When the oldest entry that is not sealed was written, in milliseconds; None: all are."""
    rows = execute("SELECT at FROM audit WHERE seq IS NULL ORDER BY id LIMIT 1")
    return int(rows[0][0]) if rows else None
