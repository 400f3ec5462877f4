"""The warm pool's decisions, without processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airavata_scheduler.agent.lease_book import LAUNCHING, Held, LeaseBook
from airavata_scheduler.agent.machine import Capacity
from airavata_scheduler.agent.places import Places
from airavata_scheduler.agent.policy import Policy
from airavata_scheduler.agent.pool import Pool
from airavata_scheduler.agent.warm_worker import WarmWorker


def _call(number: int) -> Held:
    lease = f"task-{number}.1.{number:032x}"
    offer = {"lease": lease, "task_id": f"task-{number}", "attempt": 1, "spec": "s"}
    spec = {"kind": "python", "cpu": 1, "python": {"entry": "f", "source": ""}}
    return Held(lease, offer, spec, LAUNCHING)


class _Site:
    """A runtime that writes down what the pool journals, starts and reports."""

    def __init__(self, folder: Path) -> None:
        self.book = LeaseBook(Capacity(4, 4096, ()))
        self.folder = SimpleNamespace(path=folder)
        self.places = Places(folder / "work")
        self.policy = Policy()
        self.base_environment: dict[str, str] = {}
        self.boot_id = "boot"
        self.stop = threading.Event()
        self.told: list[tuple[str, Any]] = []
        self.crash_point = lambda _name: None
        self.log = SimpleNamespace(error=lambda *_a, **_k: None)
        self.journal = SimpleNamespace(commit=lambda *items: self._tell("journal", items))
        self.shepherd = SimpleNamespace(send=lambda order: self._tell("shepherd", order))
        self.finisher = SimpleNamespace(
            call_is_over=lambda held, item: self._tell("over", (held, item))
        )

    def _tell(self, whom: str, what: Any) -> None:
        self.told.append((whom, what))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[_Site]:
    yield _Site(tmp_path)


def test_a_worker_that_has_no_room_on_the_disk_costs_its_call_only(
    site: _Site, tmp_path: Path
) -> None:
    """The call is lost with its cause, and the cores that were set aside are free again."""
    (tmp_path / "pool").touch()  # where the workers' folders should be made
    held = _call(1)
    site.book.add(held)
    pool = Pool(cast("Any", site))

    pool.submit([held])
    pool.turn()

    assert [whom for whom, _ in site.told] == ["over"]
    over, item = site.told[0][1]
    assert over is held
    assert (item["outcome"], item["failure"]["code"]) == ("lost", "wrapper_lost")
    assert site.book.free()["cpu"] == 4


def test_a_call_that_began_before_it_could_be_given_back_is_stopped(
    site: _Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker gives back what has not begun; a cancelled call that is missing there runs."""
    pool = Pool(cast("Any", site))
    worker = WarmWorker("w", "s", tmp_path, {"cpu": 0})
    cancelled, other = _call(1), _call(2)
    cancelled.reason = "cancel"
    worker.calls = {held.lease: held for held in (cancelled, other)}
    killed: list[tuple[str, str]] = []
    monkeypatch.setattr(worker, "hear", lambda: [{"given_back": [other.lease]}])

    def note(lease: str, why: str) -> list[str]:
        killed.append((lease, why))
        return []

    monkeypatch.setattr(worker, "kill_if_in", note)

    pool._hear(worker)

    assert killed == [(cancelled.lease, "cancelled")]
