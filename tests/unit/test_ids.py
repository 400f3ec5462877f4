"""Ids: their form, their order, and that they differ."""

from __future__ import annotations

import threading
import time
import uuid

import pytest

from airavata_scheduler.models import ids


def test_an_id_is_a_uuid_of_version_seven() -> None:
    """The text is a canonical UUIDv7 of this millisecond."""
    before_ms = time.time_ns() // 1_000_000
    made = uuid.UUID(ids.new_id())
    after_ms = time.time_ns() // 1_000_000

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before_ms <= made.int >> 80 <= after_ms + 1
    assert ids.is_id(str(made))


def test_ids_of_one_process_ascend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within one millisecond, and when the clock steps back, later ids are greater."""
    made = ids.new_ids(5000)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    made += [ids.new_id() for _ in range(5000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_threads_never_get_the_same_id() -> None:
    """Eight threads that make ids at the same time make different ones."""
    made: list[list[str]] = [[] for _ in range(8)]
    threads = [
        threading.Thread(target=lambda mine=mine: mine.extend(ids.new_ids(2000))) for mine in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = [one for mine in made for one in mine]
    assert len(set(everything)) == len(everything) == 16_000
