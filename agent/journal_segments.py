"""Reading a segment of the journal, whatever has happened to its bytes.

A record counts where its length, its checksum and its form are right. Behind one that is damaged
the reading goes on at the next whole one: every record begins with the same letters, and no record
holds the zero byte that each header has, so nothing inside of a record is ever taken for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from airavata_scheduler.agent.framing import HEADER_BYTES, records
from airavata_scheduler.agent.journal_state import Record

_BEGINS = b'{"t":'


class SegmentReader:
    """Iterates over the records of a segment; afterwards `end` and `damaged` are known."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.end = 0  # behind the last whole record; what follows is a torn end
        self.damaged = 0  # bytes before `end` that are no records

    def __iter__(self) -> Iterator[Record]:
        start: Optional[int] = 0
        while start is not None:
            for end, body in records(self._data, start):
                item = _as_record(body)
                if item is None:
                    break
                self.damaged += start - self.end
                self.end = start = end
                yield item
            start = self._next_whole(start)

    def _next_whole(self, behind: int) -> Optional[int]:
        """Where the next whole record begins after `behind`; None when there is none."""
        found = self._data.find(_BEGINS, behind + HEADER_BYTES + 1)
        while found >= 0:
            start = found - HEADER_BYTES
            first = next(records(self._data, start), None)
            if first is not None and _as_record(first[1]) is not None:
                return start
            found = self._data.find(_BEGINS, found + 1)
        return None


def has_checkpoint(path: Path) -> bool:
    """Whether the segment begins with a checkpoint that was written to its end."""
    wanted = -1
    found = 0
    for _, body in records(path.read_bytes()):
        item = _as_record(body)
        if item is None:
            return False
        if wanted < 0:
            if item.get("t") != "checkpoint":
                return False
            wanted = item["records"]
        else:
            found += 1
        if found >= wanted >= 0:
            return True
    return False


def reports(data: bytes) -> Iterator[Record]:
    """The results that are reported in a segment, in order."""
    for item in SegmentReader(data):
        if item["t"] == "report":
            yield from item["items"]


def _as_record(body: bytes) -> Optional[Record]:
    if not body.startswith(_BEGINS):
        return None
    try:
        item = json.loads(body)
    except ValueError:
        return None
    return item if isinstance(item, dict) else None
