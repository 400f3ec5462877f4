"""Folders of leases that are kept after their end, and given up where the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

from airavata_scheduler.agent.places import KEEP_FAILED_S, KEEP_FENCED_S, Places

FAILED, FENCED, HELD = (f"task.{number}.{'0' * 31}{number}" for number in (1, 2, 3))


def places(folder: Path) -> Places:
    """One folder of each kind."""
    made = Places(folder / "work")
    for lease in (FAILED, FENCED, HELD):
        (made.make(lease) / "work" / "output").write_text("1")
    made.keep(FAILED, KEEP_FAILED_S)
    made.keep(FENCED, KEEP_FENCED_S)
    return made


def left(made: Places) -> set[str]:
    """The leases that still have a folder."""
    return {folder.name for folder in made.root.iterdir()}


def test_only_failed_tasks_make_room(tmp_path: Path) -> None:
    """What is kept of a failed task may go; a superseded output stays, and what runs does."""
    made = places(tmp_path)

    removed = made.give_up_failed()

    assert removed == 1
    assert left(made) == {FENCED, HELD}


def test_a_sweep_removes_what_had_its_time(tmp_path: Path) -> None:
    """A mark in the future keeps a folder; one in the past does not, unless the lease is held."""
    made = places(tmp_path)
    made.keep(FAILED, -1.0)
    made.keep(HELD, -1.0)

    removed = made.sweep({HELD})

    assert removed == 1
    assert left(made) == {FENCED, HELD}


def test_the_mark_needs_no_room(tmp_path: Path) -> None:
    """How long a folder is kept stands in a file without content: a full disk takes that."""
    made = places(tmp_path)

    assert (made.of(FAILED) / "keep-until").stat().st_size == 0


def test_a_pile_of_folders_without_end_is_removed_too(tmp_path: Path) -> None:
    """Else one task that dug too deep would stop every later sweep."""
    places = Places(tmp_path)
    lease = "task-1.1." + "0" * 32
    outside = tmp_path / "outside"
    outside.mkdir()
    here = os.open(places.make(lease) / "work", os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", 0o700, dir_fd=here)
        os.symlink(outside, "link", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)

    places.remove(lease)

    assert not places.of(lease).exists()
    assert outside.exists()
