"""Launching and stopping scripts: nothing that was taken is forgotten, whatever fails."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airavata_scheduler.agent.framing import compact
from airavata_scheduler.agent.lease_book import LAUNCHING, READY, REPORTING, Held, LeaseBook
from airavata_scheduler.agent.loop_launch import LaunchLoop
from airavata_scheduler.agent.loop_watch import WatchLoop
from airavata_scheduler.agent.machine import Capacity
from airavata_scheduler.agent.places import Places
from airavata_scheduler.agent.policy import Policy
from airavata_scheduler.agent.processes import start_ticks
from airavata_scheduler.agent.stopper import Stopper


def _held(number: int) -> Held:
    lease = f"task-{number}.1.{number:032x}"
    offer = {"lease": lease, "task_id": f"task-{number}", "attempt": 1, "name": "n", "spec": "s"}
    return Held(lease, offer, {"kind": "script", "cpu": 1, "script": "#!/bin/sh\n"}, READY)


class _Site:
    """A runtime of real folders and a real book; what goes to others is written down."""

    def __init__(self, folder: Path) -> None:
        self.log = SimpleNamespace(
            info=lambda *_a, **_k: None,
            warning=lambda *_a, **_k: None,
            error=lambda *_a, **_k: None,
        )
        self.book = LeaseBook(Capacity(4, 4096, ()))
        self.places = Places(folder)
        self.policy = Policy()
        self.base_environment: dict[str, str] = {}
        self.boot_id = "boot"
        self.stop = threading.Event()
        self.told: list[tuple[str, Any]] = []
        self.crash_point: Callable[[str], None] = lambda _name: None
        self.journal = SimpleNamespace(commit=lambda *_items: None, append=lambda *_items: 1)
        self.shepherd = SimpleNamespace(send=lambda order: self._tell("shepherd", order))
        self.beat = SimpleNamespace(news=lambda: None)
        self.scripts_run = threading.Event()
        self.history = SimpleNamespace(note=lambda *_a, **_k: None)
        self.watch = SimpleNamespace(expect=lambda held: self._tell("watch", list(held)))
        self.reports = SimpleNamespace(add=lambda held, item: self._tell("report", (held, item)))
        self.finisher = SimpleNamespace(
            script_ended=lambda held, ended: self._tell("ended", (held, ended))
        )
        self.stopper = Stopper(cast("Any", self))

    def _tell(self, whom: str, what: Any) -> None:
        self.told.append((whom, what))


@pytest.fixture
def site(tmp_path: Path) -> _Site:
    return _Site(tmp_path)


def test_a_launch_is_watched_before_the_shepherd_hears_of_it(site: _Site) -> None:
    """A shepherd that dies in between is replaced, and the new one is given what is watched."""
    site.book.add(_held(1))

    LaunchLoop(cast("Any", site)).turn()

    assert [whom for whom, _ in site.told] == ["watch", "shepherd"]


def test_a_launch_that_has_no_room_on_the_disk_is_reported(
    site: _Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease whose folder cannot be made is lost with its cause; the one behind it starts."""
    first, second = _held(1), _held(2)
    site.book.add(first)
    site.book.add(second)
    real = site.places.make

    def make(lease: str) -> Path:
        if lease == first.lease:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(lease)

    monkeypatch.setattr(site.places, "make", make)
    LaunchLoop(cast("Any", site)).turn()

    told = dict(site.told)
    assert told["watch"] == [second]
    assert [order["lease"] for order in told["shepherd"]["launch"]] == [second.lease]
    assert told["report"][0] is first
    assert told["report"][1]["outcome"] == "lost"
    assert "No space left" in told["report"][1]["failure"]["message"]
    assert (first.phase, first.reserved) == (REPORTING, False)


def test_a_cancel_before_the_folder_is_there_is_found_by_the_wrapper(site: _Site) -> None:
    """Between the journal's fsync and the launch a lease has no folder yet; its cancel stays."""
    held = _held(1)
    site.book.add(held)
    site.book.take_ready()

    site.stopper.cancel(held)

    assert held.phase == LAUNCHING
    assert (site.places.of(held.lease) / "cancel").exists()


@pytest.mark.parametrize("who", ["the wrapper", "another start", "another boot"])
def test_a_wrapper_is_known_by_more_than_its_process_id(who: str, site: _Site) -> None:
    """Its id comes round again: with another start time, or after a boot, it is somebody else."""
    held = _held(1)
    site.book.add(held)
    site.book.take_ready()
    folder = site.places.make(held.lease)
    (folder / "started").mkdir()
    payload = {
        "wrapper": os.getpid(),
        "wrapper_ticks": (start_ticks(os.getpid()) or 0) - (who == "another start"),
        "boot_id": "an earlier boot" if who == "another boot" else site.boot_id,
        "started_at": 1.0,
        "gpus": [],
    }
    (folder / "payload.json").write_bytes(compact(payload))
    watch = WatchLoop(cast("Any", site))
    watch.expect([held])

    watch._sweep()

    assert site.told == ([] if who == "the wrapper" else [("ended", (held, None))])


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("exit.json", {}),
        ("exit.json", {"started_at": "x", "ended_at": 1.0, "ended_wall": 1.0}),
        ("payload.json", {}),
        ("payload.json", {"boot_id": "boot", "wrapper": "1", "wrapper_ticks": 1}),
    ],
)
def test_files_that_a_payload_wrote_over_stop_nobody(
    name: str, document: dict[str, Any], site: _Site
) -> None:
    """A payload runs as the same user: what is not as a wrapper writes it counts as not there."""
    spoiled, other = _held(1), _held(2)
    for held in (spoiled, other):
        site.book.add(held)
        (site.places.make(held.lease) / "started").mkdir()
    site.book.take_ready()
    (site.places.of(spoiled.lease) / name).write_bytes(compact(document))
    ended = {
        "exit_code": 0,
        "signal": None,
        "started_at": 1.0,
        "ended_at": 2.0,
        "ended_wall": 3.0,
        "boot_id": "boot",
    }
    (site.places.of(other.lease) / "exit.json").write_bytes(compact(ended))
    watch = WatchLoop(cast("Any", site))
    watch.expect([spoiled, other])

    watch._sweep()

    assert site.told == [("ended", (other, ended))]
