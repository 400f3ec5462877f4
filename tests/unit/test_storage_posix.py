"""What only a mounted directory can get wrong: links, pipes, a full disk, killed writers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from airavata_scheduler.backends import posix
from airavata_scheduler.backends.posix import INCOMING, STALE_INCOMING_S, PosixStorage
from airavata_scheduler.backends.storage import LinkRefused, StorageFull, StorageUnavailable
from airavata_scheduler.models.errors import AiravataError, Conflict


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the storage resource; beside it lies a secret."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> PosixStorage:
    """An empty storage resource in `root`."""
    return PosixStorage(root)


def test_a_link_is_never_followed(storage: PosixStorage, root: Path) -> None:
    """A link to a file, to a folder or in the middle of a path is refused for every deed."""
    (root / "file").symlink_to("../secret/key")
    (root / "folder").symlink_to("../secret")
    (root / "inner").mkdir()
    (root / "inner" / "up").symlink_to("../../secret/key")

    for key in ("file", "folder/key", "inner/up"):
        with pytest.raises((LinkRefused, Conflict)):
            storage.open(key)
        with pytest.raises((LinkRefused, Conflict)):
            storage.append_at(key, 0, b"overwritten")
    with pytest.raises(Conflict):
        storage.put("folder/key", [b"overwritten"])
    assert list(storage.list()) == []
    assert (root.parent / "secret" / "key").read_bytes() == b"secret"


def test_deleting_a_link_leaves_its_target(storage: PosixStorage, root: Path) -> None:
    """A link goes, alone or in a folder; what it points at stays."""
    (root / "d").mkdir()
    (root / "d" / "link").symlink_to("../../secret")

    assert storage.delete("d")
    assert (root.parent / "secret" / "key").exists()


def test_a_folder_swapped_for_a_link_leads_nowhere(storage: PosixStorage, root: Path) -> None:
    """While somebody swaps a folder and a link all the time, no read ever shows the secret."""
    storage.put("d/key", [b"public"])
    (root / "link").symlink_to("../secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "d").rename(root / "aside")
            (root / "link").rename(root / "d")
            (root / "d").rename(root / "link")
            (root / "aside").rename(root / "d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    for _ in range(3000):
        try:
            seen.add(storage.open("d/key").read())
        except AiravataError:
            continue
    stop.set()
    swapper.join()

    assert seen == {b"public"}


def test_a_pipe_does_not_hang(storage: PosixStorage, root: Path) -> None:
    """A FIFO, as a file to read or to append to, is refused at once and not listed."""
    os.mkfifo(root / "pipe")

    for use in (lambda: storage.open("pipe"), lambda: storage.append_at("pipe", 0, b"x")):
        with pytest.raises(LinkRefused, match="no regular file"):
            use()
    assert list(storage.list()) == []
    assert storage.size("pipe") is None


def test_a_full_disk_is_said_and_keeps_the_old(
    storage: PosixStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC becomes `storage_full`; the old object is whole, a log goes back to its old size."""
    storage.put("file", [b"old"])
    storage.append_at("log", 0, b"old")
    whole = posix._write_all

    def fills_up(descriptor: int, data: bytes) -> None:
        whole(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(posix, "_write_all", fills_up)
    with pytest.raises(StorageFull) as caught:
        storage.put("file", [b"newer"])
    with pytest.raises(StorageFull):
        storage.append_at("log", 3, b"newer")

    assert (caught.value.code, caught.value.status) == ("storage_full", 503)
    assert storage.open("file").read() == b"old"
    assert storage.open("log").read() == b"old"
    assert list((root / INCOMING).iterdir()) == []


def test_a_killed_writer_leaves_no_object(root: Path, storage: PosixStorage) -> None:
    """SIGKILL in the middle of a put leaves only a temporary file, which a later start removes."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from airavata_scheduler.backends.posix import PosixStorage\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "PosixStorage(Path(sys.argv[1])).put('key', chunks())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(root)], check=False)

    assert ended.returncode == -9
    assert storage.size("key") is None
    (left,) = (root / INCOMING).iterdir()
    PosixStorage(root)
    assert left.exists()
    os.utime(left, (0, left.stat().st_mtime - STALE_INCOMING_S - 60))
    PosixStorage(root)
    assert not left.exists()


def test_files_are_private_and_durable(
    storage: PosixStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is 0600 in folders of 0700, and both are fsynced before `put` returns."""
    synced = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    storage.put("a/key", [b"x"])

    assert (root / "a" / "key").stat().st_mode & 0o777 == 0o600
    assert (root / "a").stat().st_mode & 0o777 == 0o700
    assert str(root) in synced
    assert str(root / "a") in synced
    assert any(INCOMING in path for path in synced)


def test_a_root_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A storage path below a file stops with a sentence, not with a traceback of the system's."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageUnavailable, match="cannot be made"):
        PosixStorage(tmp_path / "file" / "root")


def test_two_appenders_never_tear_a_log(storage: PosixStorage) -> None:
    """Two senders of the same chunks, at the same time, leave each byte once and in order."""
    chunks = [bytes([65 + number % 26]) * 1000 for number in range(40)]

    def send() -> None:
        for number, chunk in enumerate(chunks):
            storage.append_at("log", number * 1000, chunk)

    senders = [threading.Thread(target=send) for _ in range(2)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    assert storage.open("log").read() == b"".join(chunks)


def test_appends_to_one_log_exclude_each_other(
    storage: PosixStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one sender writes to a log, another one waits for it, whatever process it is in."""
    grow = posix._grow
    entered, let_go = threading.Semaphore(0), threading.Event()

    def slow(descriptor: int, folder: int, offset: int, data: bytes) -> int:
        entered.release()
        let_go.wait(10)
        return grow(descriptor, folder, offset, data)

    monkeypatch.setattr(posix, "_grow", slow)
    senders = [
        threading.Thread(target=storage.append_at, args=("log", 0, b"chunk")) for _ in range(2)
    ]
    for sender in senders:
        sender.start()
    assert entered.acquire(timeout=10)

    assert not entered.acquire(timeout=0.3)  # the second one stands before the lock
    let_go.set()
    for sender in senders:
        sender.join()
    assert storage.open("log").read() == b"chunk"


def test_descriptors_do_not_leak(storage: PosixStorage) -> None:
    """After many deeds, good and failing ones, as many descriptors are open as before."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        storage.put("a/b/c", [b"x"])
        storage.open("a/b/c").close()
        storage.append_at("a/log", 0, b"x")
        for key in ("a/b/c/d", "a", "nowhere/x"):
            with pytest.raises(AiravataError):
                storage.open(key)
        list(storage.list())

    assert len(list(Path("/proc/self/fd").iterdir())) == before
