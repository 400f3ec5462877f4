"""The audit of the typed SDK, and the offline check of an export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airavata_scheduler.client.collection import Collection
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.records import Record

START = "0" * 64


@dataclass(frozen=True, kw_only=True)
class AuditEntry(Record):
    """One deed: who, what, to which object, when, from where."""

    id: str
    at: datetime | None = None
    actor: str = ""
    action: str = ""
    object_kind: str = ""
    object_id: str = ""
    address: str = ""
    request_id: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    seq: int | None = None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a check of an export found: the first fault in words, or none."""

    entries: int
    head: str
    fault: str | None


class Audit(Collection[AuditEntry]):
    """Who did what, as far as we may know.

    `list` gives entries newest first; filters: object, actor, action, project, since, until.
    """

    path = "/audit"
    noun = "audit"
    record = AuditEntry

    def export(self, path: Path) -> int:
        """Write every sealed entry to `path` as lines of JSON (administrators); their number."""
        count = -1  # the last line is the head
        with self.transport.stream("GET", "/audit/export") as answer, path.open("wb") as file:
            for line in answer.iter_lines():
                file.write(line.encode() + b"\n")
                count += 1
        return max(count, 0)


def verify_export(lines: Iterable[str], witness: str | None = None) -> Verified:
    """Check the chain of an export; `witness` is `SEQ:HASH` of an entry noted elsewhere.

    An entry's hash is the SHA-256 over the hash before it (64 zeros at first), a newline, and the
    entry without `hash` as JSON: keys sorted, no blanks, ASCII. Raises `BadInputError` for a file
    that is no export.
    """
    seq, last, end = 0, START, None
    for text in lines:
        entry = _read(text)
        if "head" in entry:
            end = (int(entry["head"]["seq"]), str(entry["head"]["hash"]))
            continue
        fault = _fault(seq, last, entry)
        if fault is not None:
            return Verified(entries=seq, head=f"{seq}:{last}", fault=fault)
        seq, last = int(entry["seq"]), str(entry["hash"])
        if witness is not None and witness.startswith(f"{seq}:") and witness != f"{seq}:{last}":
            fault = f"Entry {seq} is not the one that was witnessed: the chain was made anew."
            return Verified(entries=seq, head=f"{seq}:{last}", fault=fault)
    return Verified(entries=seq, head=f"{seq}:{last}", fault=_end_fault(seq, last, end, witness))


def _read(text: str) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not ({"seq", "hash"} <= entry.keys() or "head" in entry):
        raise BadInputError(
            "This is no export of the audit: a line is no entry.",
            hint="Make one: airavata audit export --output FILE",
        )
    return entry


def _fault(seq: int, last: str, entry: dict[str, Any]) -> str | None:
    if entry["seq"] != seq + 1:
        return f"Entry {seq + 1} is missing: entry {entry['seq']} follows entry {seq}."
    content = {name: value for name, value in entry.items() if name != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(f"{last}\n{text}".encode()).hexdigest() != entry["hash"]:
        return f"Entry {entry['seq']} ({entry['id']}) was changed, or put in."
    return None


def _end_fault(seq: int, last: str, end: tuple[int, str] | None, witness: str | None) -> str | None:
    if end is None:
        return "The export was cut off: its last line, the head, is missing."
    noted = int(witness.partition(":")[0]) if witness else 0
    if seq < max(end[0], noted):
        return f"The entries from {seq + 1} to {max(end[0], noted)} are missing at the end."
    if (seq, last) != end:
        return f"The head's hash is not that of entry {seq}."
    return None
