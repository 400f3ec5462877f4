"""A warm worker's ledger: a result that was made is written down, also on a full disk."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from airavata_scheduler.agent.pool_worker import Ledger, read_ledger


def test_a_result_waits_for_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written of it is taken back, and it is whole once there is room again."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.begins("a")
    real, fits = os.write, [4, 0]
    waits: list[float] = []

    def write(fd: int, data: bytes) -> int:
        if not fits:
            return real(fd, data)
        room = fits.pop(0)
        if room:
            return real(fd, bytes(data[:room]))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(time, "sleep", waits.append)
    ledger.ends("a", {"result": 1})
    monkeypatch.undo()

    raw = (tmp_path / "ledger").read_bytes()
    entries, end = read_ledger(raw)
    assert [(entry["k"], entry["l"]) for entry in entries] == [("S", "a"), ("E", "a")]
    assert end == len(raw)
    assert len(waits) == 1
