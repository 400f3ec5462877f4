"""Families 18 to 24: archives that a server sends, and bundles that an agent is given."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from airavata_scheduler.agent.python_function import Function, LoadError
from airavata_scheduler.client.downloads import members
from airavata_scheduler.client.errors import IntegrityError
from tests.unit.test_client_downloads import Files, download

ENTRY = "simulate/3/out/r3.csv"


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar.gz of these members."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def found_below(folder: Path) -> set[str]:
    """The files in a folder, by their paths."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize(
    "name",
    ["../escaped", "/tmp/escaped", "simulate/3/../../../escaped", "..", "a\\..\\..\\escaped"],
)
def test_a_member_that_leaves_the_folder_is_not_written(name: str, tmp_path: Path) -> None:
    """Members count only under names that we computed ourselves; the files come singly."""
    files = Files()
    files.archive = packed([(tarfile.TarInfo(name), b"evil")])

    download(files, tmp_path).extract_to(tmp_path / "out")

    assert found_below(tmp_path) == {f"out/{entry}" for entry in files.contents}
    assert len(files.singles) == len(files.contents)


def test_a_member_through_a_link_of_the_archive_is_not_written(tmp_path: Path) -> None:
    """A link first, then a file through it: the link is never made."""
    files = Files()
    link = tarfile.TarInfo("simulate")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    files.archive = packed([(link, b""), (tarfile.TarInfo(ENTRY), files.contents[ENTRY])])

    download(files, tmp_path).extract_to(tmp_path / "out")

    assert not found_below(tmp_path / "elsewhere")
    assert not (tmp_path / "out" / "simulate").is_symlink()


def test_a_member_larger_than_its_file_is_stopped(tmp_path: Path) -> None:
    """A bomb under the name of a wanted file ends at the size that was recorded."""
    files = Files()
    files.archive = packed([(tarfile.TarInfo(ENTRY), bytes(64 << 20))])

    with pytest.raises(IntegrityError, match="more than its"):
        download(files, tmp_path).extract_to(tmp_path / "out")

    assert not found_below(tmp_path / "out")


def test_a_member_that_comes_twice_counts_once(tmp_path: Path) -> None:
    """The first one is checked and kept; the second is not looked at."""
    files = Files()
    right = files.contents[ENTRY]
    files.archive = packed([(tarfile.TarInfo(ENTRY), right), (tarfile.TarInfo(ENTRY), b"2")])

    done = download(files, tmp_path).extract_to(tmp_path / "out")

    assert done.fetched == len(files.contents)
    assert (tmp_path / "out" / ENTRY).read_bytes() == right


def test_members_are_forgotten_one_by_one() -> None:
    """However many an archive has, one at a time is kept."""
    data = packed((tarfile.TarInfo(f"m{number}"), b"") for number in range(500))

    with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as archive:
        kept = [len(vars(archive)["members"]) for _ in members(archive)]

    assert len(kept) == 500
    assert max(kept) == 0


def test_owners_and_special_bits_of_an_archive_are_not_taken_over(tmp_path: Path) -> None:
    """A file is the caller's, without the set-uid bit."""
    files = Files()
    member = tarfile.TarInfo(ENTRY)
    member.mode, member.uid, member.gid = 0o6777, 4242, 4242
    files.archive = packed([(member, files.contents[ENTRY])])

    download(files, tmp_path).extract_to(tmp_path / "out")

    status = (tmp_path / "out" / ENTRY).stat()
    assert status.st_mode & 0o7000 == 0
    assert status.st_uid == tmp_path.stat().st_uid


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + bytes(18), b"PK\x03\x04" * 100])
def test_a_bundle_that_is_none_fails_with_a_sentence(data: bytes, tmp_path: Path) -> None:
    """The call fails as the function's fault; the worker goes on."""
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(data)

    with pytest.raises(LoadError, match="cannot be loaded"):
        Function.load({"blob": {}, "entry": "m:f"}, str(bundle))


def test_a_bundle_writes_nothing(tmp_path: Path) -> None:
    """Modules are read where they lie: a path that leaves the archive leads nowhere."""
    bundle = tmp_path / "folder" / "bundle.zip"
    bundle.parent.mkdir()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("bundle.json", '{"entry": "slip_module:f"}')
        archive.writestr("slip_module.py", "def f():\n    return 1\n")
        archive.writestr("../slipped.py", "raise SystemExit")

    function = Function.load({"blob": {}, "entry": "slip_module:f", "codec": "json"}, str(bundle))

    assert function.call({}, tmp_path)["result"]["data"] == 1
    assert found_below(tmp_path) == {"folder/bundle.zip"}
