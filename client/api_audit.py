"""The audit of the typed SDK, and the offline check of an export."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airavata_scheduler.client.collection import Collection
from airavata_scheduler.client.errors import BadInputError, IntegrityError
from airavata_scheduler.client.records import Record

START = "0" * 64
_HEAD = re.compile(r"(0|[1-9][0-9]{0,18}):([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class AuditEntry(Record):
    """One deed: who, what, to which object, when, from where."""

    id: str
    at: datetime | None = None
    actor: str = ""
    actor_kind: str = ""
    actor_id: str = ""
    action: str = ""
    object_kind: str = ""
    object_id: str = ""
    project_id: str | None = None
    address: str = ""
    request_id: str = ""
    detail: dict[str, Any] | str = field(default_factory=dict)  # a text: the row was changed
    seq: int | None = None
    hash: str | None = None


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
        """Write every sealed entry to `path` as lines of JSON (administrators); their number.

        Raises `IntegrityError` where the answer ended before its last line, which names the head.
        """
        count, line = 0, ""
        with self.transport.stream("GET", "/audit/export") as answer, path.open("wb") as file:
            for line in answer.iter_lines():
                file.write(line.encode() + b"\n")
                count += 1
        if not line.startswith('{"head"'):
            raise IntegrityError(
                f"The export was cut off after {count} lines.", hint="Type the command again."
            )
        return count - 1


def verify_export(lines: Iterable[str], witness: str | None = None) -> Verified:
    """Check the chain of an export; `witness` is `SEQ:HASH` of an entry noted elsewhere.

    An entry's hash is the SHA-256 over the hash before it (64 zeros at first), a newline, and the
    entry without `hash` as JSON: keys sorted, no blanks, ASCII. Raises `BadInputError` for a file
    that is no export, and for a witness that is none.
    """
    seq, last, end = 0, START, None
    noted = _place(witness) if witness is not None else None
    for text in lines:
        entry = _read(text)
        fault = "Lines follow the head, which is an export's last." if end is not None else None
        if fault is None and "head" in entry:
            end = (entry["head"]["seq"], entry["head"]["hash"])
            continue
        fault = fault or _fault(seq, last, entry)
        if fault is not None:
            return Verified(entries=seq, head=f"{seq}:{last}", fault=fault)
        seq, last = entry["seq"], entry["hash"]
        if noted is not None and noted[0] == seq and noted[1] != last:
            fault = f"Entry {seq} is not the one that was witnessed: the chain was made anew."
            return Verified(entries=seq, head=f"{seq}:{last}", fault=fault)
    fault = _end_fault(seq, last, end, noted[0] if noted is not None else 0)
    return Verified(entries=seq, head=f"{seq}:{last}", fault=fault)


def _place(witness: str) -> tuple[int, str]:
    found = _HEAD.fullmatch(witness)
    if found is None:
        raise BadInputError("--head must be SEQ:HASH, as `audit: head` in the server's log has it.")
    return int(found[1]), found[2]


def _read(text: str) -> dict[str, Any]:
    """One line: an entry, or `{"head": {"seq": …, "hash": …}}`."""
    try:
        line = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        line = None
    place = line.get("head", line) if isinstance(line, dict) else None
    if (
        not isinstance(place, dict)
        or type(place.get("seq")) is not int
        or not isinstance(place.get("hash", 0), str | None)
    ):
        raise BadInputError(
            "This is no export of the audit: a line is no entry.",
            hint="Make one: airavata audit export --output FILE",
        )
    return dict(line)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key stands twice: who reads the first and who the last would differ."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _fault(seq: int, last: str, entry: dict[str, Any]) -> str | None:
    if entry["seq"] <= seq:
        return f"Entry {entry['seq']} ({entry.get('id')}) was put in: entry {seq} is before it."
    if entry["seq"] != seq + 1:
        return f"Entry {seq + 1} is missing: entry {entry['seq']} follows entry {seq}."
    content = {name: value for name, value in entry.items() if name != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(f"{last}\n{text}".encode()).hexdigest() != entry["hash"]:
        return f"Entry {entry['seq']} ({entry.get('id')}) was changed, or put in."
    return None


def _end_fault(seq: int, last: str, end: tuple[int, str] | None, noted: int) -> str | None:
    if end is None:
        return "The export was cut off: its last line, the head, is missing."
    if seq < max(end[0], noted):
        return f"The entries from {seq + 1} to {max(end[0], noted)} are missing at the end."
    if (seq, last) != end:
        return f"The head's hash is not that of entry {seq}."
    return None
