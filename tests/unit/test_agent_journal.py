"""The agent's journal: what was committed is there, whatever tore at the file."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.agent import journal as journal_module
from airavata_scheduler.agent.faults import JournalBroken
from airavata_scheduler.agent.folder_marks import mark_of
from airavata_scheduler.agent.framing import compact, record, records
from airavata_scheduler.agent.journal import Journal


@pytest.fixture(autouse=True)
def _little_ballast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tests open a hundred journals, and whole folders are looked through at the end."""
    monkeypatch.setattr(journal_module, "BALLAST_BYTES", 4096)


def _offer(number: int) -> dict[str, Any]:
    lease = f"task-{number}.1.{number:032x}"
    return {"lease": lease, "task_id": f"task-{number}", "attempt": 1, "spec": "s"}


def _grant(number: int) -> dict[str, Any]:
    spec = {"s": {"kind": "script", "script": "true"}}
    return {"t": "granted", "claim": f"c{number}", "leases": [_offer(number)], "specs": spec}


def _report(number: int) -> dict[str, Any]:
    return {"t": "report", "items": [{"lease": _offer(number)["lease"], "outcome": "completed"}]}


def _acked(number: int) -> dict[str, Any]:
    return {"t": "acked", "leases": [_offer(number)["lease"]], "epoch": "e1"}


def test_a_new_start_finds_what_was_committed(tmp_path: Path) -> None:
    """States, reports and unanswered claims survive; acknowledged leases are gone."""
    journal = Journal(tmp_path)
    journal.commit({"t": "intent", "claim": "open", "seq": 7}, _grant(1), _grant(2), _grant(3))
    journal.commit({"t": "launching", "leases": [_offer(2)["lease"]], "w": "worker"})
    journal.commit(_report(3), _acked(1))
    journal.close()

    state = Journal(tmp_path).state

    assert set(state.entries) == {_offer(2)["lease"], _offer(3)["lease"]}
    assert state.entries[_offer(2)["lease"]].worker == "worker"
    assert state.entries[_offer(3)["lease"]].report is not None
    assert state.intents == {"open": 7}
    assert state.epoch == "e1"


@pytest.mark.parametrize("zeros", [0, 8, 4096])
def test_a_torn_end_is_cut_at_every_byte(
    zeros: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever part of the last record is there, all before it is read and writing goes on.

    Where the file had grown already when the power failed, the rest of it is zeros.
    """
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # hundreds of them
    journal = Journal(tmp_path / "whole")
    journal.commit(_grant(1))
    whole = (tmp_path / "whole" / "00000001.log").stat().st_size
    journal.commit(_grant(2))
    journal.close()
    data = (tmp_path / "whole" / "00000001.log").read_bytes()

    for cut in range(whole, len(data)):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "00000001.log").write_bytes(data[:cut] + bytes(zeros))
        torn = Journal(folder)
        torn.commit(_grant(3))
        torn.close()

        again = Journal(folder)
        assert set(again.state.entries) == {_offer(1)["lease"], _offer(3)["lease"]}
        assert torn.was_torn == (cut > whole or zeros > 0)
        assert not torn.damage
        assert not again.was_torn
        assert not again.damage
        again.close()


@pytest.mark.parametrize("position", ["length", "checksum", "body"])
def test_a_corrupt_record_ends_the_reading(position: str, tmp_path: Path) -> None:
    """A flipped bit anywhere in the last record is found by its length or its checksum."""
    journal = Journal(tmp_path)
    journal.commit(_grant(1))
    start = (tmp_path / "00000001.log").stat().st_size
    journal.commit(_grant(2))
    journal.close()
    data = bytearray((tmp_path / "00000001.log").read_bytes())
    data[start + {"length": 3, "checksum": 5, "body": 20}[position]] ^= 0x40
    (tmp_path / "00000001.log").write_bytes(bytes(data))

    found = Journal(tmp_path)

    assert set(found.state.entries) == {_offer(1)["lease"]}
    assert found.was_torn


def test_damage_costs_the_records_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit in any byte of a record in the middle: all others are read, and it is said."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # hundreds of them
    journal = Journal(tmp_path / "whole")
    journal.commit(_grant(1))
    start = (tmp_path / "whole" / "00000001.log").stat().st_size
    journal.commit(_grant(2))
    end = (tmp_path / "whole" / "00000001.log").stat().st_size
    journal.commit(_grant(3), _report(3))
    journal.close()
    data = (tmp_path / "whole" / "00000001.log").read_bytes()

    for position in range(start, end):
        folder = tmp_path / f"at-{position}"
        folder.mkdir()
        broken = bytearray(data)
        broken[position] ^= 0x10
        (folder / "00000001.log").write_bytes(broken)
        found = Journal(folder)

        assert set(found.state.entries) == {_offer(1)["lease"], _offer(3)["lease"]}
        assert len(found.damage) == 1
        assert f"{end - start} bytes" in found.damage[0]
        found.commit(_acked(3))
        found.close()
        again = Journal(folder)
        assert not again.damage
        assert [item["lease"] for item in again.history()] == [_offer(3)["lease"]]
        again.close()


@pytest.mark.parametrize("hole", [slice(0, 64), slice(8, 16), slice(200, 4000)])
def test_damage_in_an_old_segment_never_stops_a_start(hole: slice, tmp_path: Path) -> None:
    """Zeros where a segment's checkpoint or its records were: the others are told again."""
    journal = Journal(tmp_path, segment_bytes=4000)
    for number in range(40):
        journal.commit(_grant(number), _report(number), _acked(number))
    journal.commit(_grant(99))
    journal.close()
    names = sorted(tmp_path.glob("*.log"))
    assert len(names) >= 3
    for path in (names[1], names[-1]):
        data = bytearray(path.read_bytes())
        data[hole] = bytes(len(data[hole]))
        path.write_bytes(data)

    found = Journal(tmp_path)
    told = [item["lease"] for item in found.history()]

    assert _offer(0)["lease"] in told
    assert len(told) > 20
    assert len(told) == len(set(told))
    found.commit(_grant(100))
    assert _offer(100)["lease"] in Journal(tmp_path).state.entries


def test_a_torn_end_casts_doubt_until_it_is_acted_on(tmp_path: Path) -> None:
    """An agent may die right after it met the tear: the next start is no usual one either."""
    journal = Journal(tmp_path)
    journal.commit(_grant(1), _grant(2), _report(2))
    journal.close()
    with (tmp_path / "00000001.log").open("ab") as file:
        file.write(bytes(8))

    for torn in (True, False):
        found = Journal(tmp_path)
        states = {lease: entry.state for lease, entry in found.state.entries.items()}
        assert found.was_torn == torn
        assert states == {_offer(1)["lease"]: "doubted", _offer(2)["lease"]: "reported"}
        found.close()


@pytest.mark.parametrize(
    ("boot", "place", "doubted"),
    [
        ("b1", "here", []),
        ("b2", "here", [1]),
        ("b1", "a copy", [1, 2]),
        ("b2", "a copy", [1, 2]),
    ],
)
def test_another_boot_or_folder_casts_doubt(
    boot: str, place: str, doubted: list[int], tmp_path: Path
) -> None:
    """In doubt is what had not started at a reboot, and in a copy all that has no report."""
    journal = Journal(tmp_path)
    journal.commit({"t": "boot", "boot": "b1", "at": 0.0, "place": "here"})
    journal.commit(_grant(1), _grant(2), _grant(3), _report(3))
    journal.commit({"t": "launching", "leases": [_offer(2)["lease"]]})
    journal.commit({"t": "boot", "boot": boot, "at": 1.0, "place": place})
    journal.close()

    entries = Journal(tmp_path).state.entries

    states = {lease for lease, entry in entries.items() if entry.state == "doubted"}
    assert states == {_offer(number)["lease"] for number in doubted}


def test_a_folder_that_was_brought_back_is_known(tmp_path: Path) -> None:
    """A copy has another mark, also one with the old times; an old file in its place is noticed."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    journal = Journal(original)
    journal.commit(_grant(1))
    journal.close()
    shutil.copytree(original, copy)
    now = time.time()
    os.utime(copy / "00000001.log", (now - 3600, now - 3600))

    assert mark_of(copy) != mark_of(original)
    assert mark_of(original) == mark_of(original)
    assert not Journal(original).damage
    assert "brought back" in Journal(copy).damage[0]


def test_a_commit_returns_after_its_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is acknowledged survives the power, not only the process."""
    journal = Journal(tmp_path)
    synced: list[int] = []
    real = os.fsync

    def noted(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)
    journal.commit(_grant(1))

    assert synced == [(tmp_path / "00000001.log").stat().st_size]


def test_many_threads_share_fsyncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits of the same moment wait for one fsync, and none returns before it."""
    journal = Journal(tmp_path)
    syncs: list[int] = []
    first = threading.Event()
    go_on = threading.Event()
    real = os.fsync

    def slow(fd: int) -> None:
        syncs.append(fd)
        if len(syncs) == 1:
            first.set()
            assert go_on.wait(10)
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    threads = [threading.Thread(target=journal.commit, args=(_grant(n),)) for n in range(40)]
    threads[0].start()
    assert first.wait(10)
    for thread in threads[1:]:
        thread.start()
    while journal._appended < 40:
        first.wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join(10)

    assert len(syncs) == 2
    assert len(Journal(tmp_path).state.entries) == 40


def test_segments_begin_with_a_checkpoint_and_old_ones_go(tmp_path: Path) -> None:
    """A start reads the newest segments; kept bytes are bounded; open leases are never lost."""
    journal = Journal(tmp_path, segment_bytes=4000, keep_bytes=20_000)
    journal.commit(_grant(0))
    for number in range(1, 400):
        journal.commit(_grant(number))
        journal.commit(_report(number), _acked(number))
    journal.close()

    names = sorted(path.name for path in tmp_path.glob("*.log"))
    size = sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    again = Journal(tmp_path)

    assert "00000001.log" not in names
    assert size < 30_000
    assert set(again.state.entries) == {_offer(0)["lease"]}
    assert again.state.specs == {"s": {"kind": "script", "script": "true"}}


def test_a_crash_while_a_segment_begins_loses_nothing(tmp_path: Path) -> None:
    """A new segment whose checkpoint is not whole: the segment before it is read as well."""
    journal = Journal(tmp_path)
    journal.commit(_grant(1), _grant(2))
    journal.close()
    head = record(compact({"t": "checkpoint", "records": 3}))
    (tmp_path / "00000002.log").write_bytes(head + b"\x10")

    again = Journal(tmp_path)
    again.commit(_acked(1))
    again.close()

    assert set(Journal(tmp_path).state.entries) == {_offer(2)["lease"]}


def test_history_gives_acknowledged_reports_once(tmp_path: Path) -> None:
    """For a new epoch: what was acknowledged, over all segments, without what is still open."""
    journal = Journal(tmp_path, segment_bytes=500)
    for number in range(10):
        journal.commit(_grant(number), _report(number))
        if number != 4:
            journal.commit(_acked(number))

    leases = [item["lease"] for item in journal.history()]

    assert leases == [_offer(n)["lease"] for n in range(10) if n != 4]


def test_acknowledged_results_are_kept_for_seven_days(tmp_path: Path) -> None:
    """A failover may lose commits of days ago: until then the result can be reported again."""
    journal = Journal(tmp_path, segment_bytes=500)
    for number in range(6):
        journal.commit(_grant(number), _report(number), _acked(number))
    closed = sorted(tmp_path.glob("*.log"))[:-1]
    now = time.time()
    os.utime(closed[0], (now, now - 8 * 86_400))
    for path in closed[1:]:
        os.utime(path, (now, now - 6 * 86_400))
    while sorted(tmp_path.glob("*.log"))[0] == closed[0]:
        journal.commit(_grant(7), _report(7), _acked(7))

    kept = sorted(tmp_path.glob("*.log"))

    assert kept[: len(closed) - 1] == closed[1:]
    assert _offer(5)["lease"] in [item["lease"] for item in journal.history()]


def test_a_full_disk_still_takes_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ENOSPC gives the held-back room free; a second one breaks the journal for good."""
    journal = Journal(tmp_path)
    real = os.write
    full = [1]

    def write(fd: int, data: bytes) -> int:
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    assert (tmp_path / "ballast").exists()
    journal.commit(_grant(1))
    assert not (tmp_path / "ballast").exists()
    full.append(1)
    with pytest.raises(JournalBroken, match="No space left"):
        journal.commit(_grant(2))
    with pytest.raises(JournalBroken):
        journal.commit(_grant(3))

    monkeypatch.undo()
    assert set(Journal(tmp_path).state.entries) == {_offer(1)["lease"]}


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room comes: the record is there whole, once, and what was refused left nothing behind."""
    real = os.write
    full = [1, 1, 1]

    def write(fd: int, data: bytes) -> int:
        if full and len(data) > 8:
            real(fd, data[:8])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    def room_comes() -> bool:
        full.pop()
        return True

    journal = Journal(tmp_path, room_comes=room_comes)
    monkeypatch.setattr(os, "write", write)

    journal.commit(_grant(1))

    assert not full
    found = Journal(tmp_path)
    assert set(found.state.entries) == {_offer(1)["lease"]}
    assert not found.was_torn
    assert not found.damage


def test_a_segment_without_room_for_its_checkpoint_is_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk gets full within the checkpoint: the present segment goes on with everything."""
    journal = Journal(tmp_path, segment_bytes=1)
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if b"checkpoint" in bytes(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    for number in (1, 2):
        journal.commit(_grant(number))
    monkeypatch.undo()

    assert [path.name for path in tmp_path.glob("*.log")] == ["00000001.log"]
    assert set(Journal(tmp_path).state.entries) == {_offer(n)["lease"] for n in (1, 2)}


def test_a_failed_fsync_is_never_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After EIO nobody knows what is on the disk: every later commit fails too."""
    journal = Journal(tmp_path)

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(JournalBroken):
        journal.commit(_grant(1))
    monkeypatch.undo()

    with pytest.raises(JournalBroken):
        journal.commit(_grant(2))


def test_records_stop_at_the_first_bad_one() -> None:
    """The reader of records never raises, whatever the bytes are."""
    data = record(b"one") + record(b"two")

    assert [body for _, body in records(data + b"\xff" * 11)] == [b"one", b"two"]
    assert list(records(b"\xff\xff\xff\x7f")) == []
    assert [body for _, body in records(data + bytes(64))] == [b"one", b"two"]


def test_a_segment_that_cannot_begin_is_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for another file: the present segment goes on, and not one record is left out."""
    journal = Journal(tmp_path, segment_bytes=1)
    real = os.open

    def no_new_file(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", no_new_file)
    for number in (1, 2):
        journal.commit(_grant(number))
    monkeypatch.undo()
    kept = set(Journal(tmp_path).state.entries)
    journal.commit(_grant(3))

    assert kept == {_offer(n)["lease"] for n in (1, 2)}
    assert set(Journal(tmp_path).state.entries) == {_offer(n)["lease"] for n in (1, 2, 3)}
