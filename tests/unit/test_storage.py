"""What every storage resource does, for the mounted directory and its twin in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from airavata_scheduler.backends.memory import MemoryStorage
from airavata_scheduler.backends.posix import PosixStorage
from airavata_scheduler.backends.storage import (
    DigestMismatch,
    OffsetMismatch,
    Storage,
    StorageFull,
    user_key,
)
from airavata_scheduler.models.errors import BadInput, Conflict, NotFound


@pytest.fixture(params=["posix", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """One empty storage resource of each kind."""
    return PosixStorage(tmp_path / "root") if request.param == "posix" else MemoryStorage()


def test_what_was_put_is_read_back(storage: Storage) -> None:
    """`put` answers with size and SHA-256 of the chunks; `open` reads the same bytes."""
    stored = storage.put("a/b/c.txt", [b"first ", b"second"])

    assert stored.size == 12
    assert stored.sha256 == hashlib.sha256(b"first second").hexdigest()
    with storage.open("a/b/c.txt") as opened:
        assert (opened.size, opened.read()) == (12, b"first second")


def test_a_range_is_clipped_to_the_object(storage: Storage) -> None:
    """`start` and `stop` cut a range out; what lies behind the end is empty, never an error."""
    storage.put("ten", [b"0123456789"])

    assert storage.open("ten", start=2, stop=5).read() == b"234"
    assert storage.open("ten", start=8, stop=99).read() == b"89"
    assert storage.open("ten", start=99).read() == b""


def test_a_reader_keeps_what_it_opened(storage: Storage) -> None:
    """Replacing a key does not change what an open reader sees."""
    storage.put("key", [b"old"])

    with storage.open("key") as opened:
        storage.put("key", [b"newer"])
        assert opened.read() == b"old"
    assert storage.size("key") == 5


def test_a_wrong_digest_or_size_keeps_nothing(storage: Storage) -> None:
    """Bytes that are not the announced ones are refused and leave no object behind."""
    with pytest.raises(DigestMismatch, match="SHA-256"):
        storage.put("key", [b"data"], expect_sha256="0" * 64)
    with pytest.raises(DigestMismatch, match="4 bytes arrived where 5"):
        storage.put("key", [b"data"], expect_size=5)

    assert storage.size("key") is None
    assert list(storage.list()) == []


def test_a_failing_source_keeps_nothing(storage: Storage) -> None:
    """When the sender breaks off, the older object stays whole."""
    storage.put("key", [b"old"])

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the sender went away")

    with pytest.raises(RuntimeError):
        storage.put("key", broken())
    assert storage.open("key").read() == b"old"


def test_appending_resumes_and_repeats(storage: Storage) -> None:
    """A chunk twice, or one that overlaps, adds only what is new; a gap says where to go on."""
    assert storage.append_at("log", 0, b"abc") == 3
    assert storage.append_at("log", 0, b"abc") == 3
    assert storage.append_at("log", 2, b"cde") == 5
    assert storage.append_at("log", 5, b"") == 5

    with pytest.raises(OffsetMismatch) as caught:
        storage.append_at("log", 9, b"x")
    assert (caught.value.size, caught.value.status) == (5, 416)
    assert storage.open("log").read() == b"abcde"


def test_a_listing_has_the_folder_only(storage: Storage) -> None:
    """A prefix is a folder, not the beginning of a name; the order is that of the names."""
    for key in ("code/b.py", "code/a/z.py", "codes/other.py", "artifacts/secret"):
        storage.put(key, [key.encode()])

    assert [entry.key for entry in storage.list("code")] == ["code/a/z.py", "code/b.py"]
    assert [entry.key for entry in storage.list()] == ["code/a/z.py", "code/b.py", "codes/other.py"]
    assert [entry.size for entry in storage.list("artifacts")] == [len("artifacts/secret")]
    assert list(storage.list("nowhere")) == []


def test_delete_takes_a_file_or_a_folder(storage: Storage) -> None:
    """Deleting says whether there was anything; a folder goes with all that is in it."""
    for key in ("a/1", "a/b/2", "c"):
        storage.put(key, [b"x"])

    assert storage.delete("a") is True
    assert storage.delete("a") is False
    assert [entry.key for entry in storage.list()] == ["c"]


def test_a_missing_object_is_said(storage: Storage) -> None:
    """Opening what is not there is a `NotFound` that names the key."""
    with pytest.raises(NotFound, match="'no/such'"):
        storage.open("no/such")
    assert storage.size("no/such") is None
    assert storage.delete("no/such") is False


def test_a_file_is_no_folder(storage: Storage) -> None:
    """One name cannot be a file and a folder; both ways are refused and change nothing."""
    storage.put("a", [b"file"])
    storage.put("b/c", [b"file"])

    with pytest.raises(Conflict):
        storage.put("a/b", [b"x"])
    with pytest.raises(Conflict):
        storage.put("b", [b"x"])
    assert storage.open("a").read() == b"file"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        "a\0b",
        "a\nb",
        "a\x1b[31m",
        "x" * 256,
        "é" * 128,
        "/".join(["x" * 100] * 40),
        "a\ud800",
        "a\uff0fb",
        "\u2024\u2024",
        "a\u2028b",
    ],
)  # fmt: skip
def test_an_unsafe_key_is_refused(storage: Storage, key: str) -> None:
    """Every method refuses a key that could lead elsewhere, hang a terminal or fit no store."""
    for use in (
        lambda: storage.put(key, [b"x"]),
        lambda: storage.append_at(key, 0, b"x"),
        lambda: storage.open(key),
        lambda: storage.size(key),
        lambda: storage.delete(key),
    ):
        with pytest.raises(BadInput) as caught:
            use()
        assert caught.value.code == "path_invalid"
        assert caught.value.detail.isprintable()


def test_names_are_kept_as_they_are(storage: Storage) -> None:
    """Case twins, composed and decomposed twins and names with a leading dash are all different."""
    keys = ["é", "e\u0301", "A", "a", "-rf", "spaces and 'quotes'", "😀"]
    for key in keys:
        storage.put(key, [key.encode()])

    assert sorted(entry.key for entry in storage.list()) == sorted(keys)
    assert all(storage.open(key).read() == key.encode() for key in keys)


def test_a_users_path_stays_out_of_the_schedulers_folders() -> None:
    """`user_key` reads the forms that users write and refuses what belongs to the scheduler."""
    assert user_key("/code/./run.py") == "code/run.py"
    assert user_key("code/") == "code"
    assert user_key("/") == ""

    for path in ("/artifacts/x", "logs", "./blobs/p/0", ".incoming/y"):
        with pytest.raises(BadInput) as caught:
            user_key(path)
        assert caught.value.code == "path_reserved"
    with pytest.raises(BadInput, match=r"\.\."):
        user_key("code/../../etc/passwd")


def test_the_twin_fills_up() -> None:
    """The twin in memory can be given a capacity, so that a full store can be tried."""
    storage = MemoryStorage(capacity=10)
    storage.put("a", [b"12345678"])

    with pytest.raises(StorageFull):
        storage.put("b", [b"123"])
    storage.put("a", [b"1234567890"])
    assert storage.size("b") is None
