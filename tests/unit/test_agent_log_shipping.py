"""Shipping logs: what went out is marked on the disk before, where the disk takes the mark."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airavata_scheduler.agent.held import Held
from airavata_scheduler.agent.log_shipping import ship
from airavata_scheduler.agent.places import Places

LEASE = "t.1." + "0" * 32


@pytest.mark.parametrize("ended", [False, True])
def test_a_disk_without_room_for_the_mark(
    ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the payload runs nothing goes out unmarked; after its end the log costs no result."""
    shipped: list[str] = []

    def call(method: str, path: str, **_more: Any) -> Any:
        shipped.append(f"{method} {path}")
        return SimpleNamespace(json=lambda: {"offset": 100_000})

    def full(*_words: Any, **_more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runtime: Any = SimpleNamespace(
        places=Places(tmp_path),
        policy=SimpleNamespace(max_log_mb=16),
        api=SimpleNamespace(call=call),
    )
    folder = runtime.places.make(LEASE)
    (folder / "stdout").write_bytes(bytes(100_000))
    monkeypatch.setattr(Path, "touch", full)

    ship(runtime, Held(LEASE, {}, {}), "stdout", ended=ended, patient=ended)

    assert shipped == ([f"PATCH /leases/{LEASE}/log/stdout"] if ended else [])
