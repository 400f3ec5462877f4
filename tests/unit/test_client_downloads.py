"""Downloads: whole and checked or not there; nothing outside the folder; nothing fetched twice."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from airavata_scheduler.client.api import Client
from airavata_scheduler.client.downloads import Download, Selection
from airavata_scheduler.client.errors import BadInputError, IntegrityError

COUNT = 12


@dataclass(kw_only=True)
class Files:
    """A server that has files, and counts what it sends."""

    contents: dict[str, bytes] = field(
        default_factory=lambda: {
            f"simulate/{n}/out/r{n}.csv": b"%d" % n * 100 for n in range(COUNT)
        }
    )
    listed: dict[str, bytes] = field(default_factory=dict)
    archive: bytes | None = None
    singles: list[str] = field(default_factory=list)
    archives: int = 0
    broken_at: int | None = None

    def client(self, folder: Path) -> Client:
        """A client of this server."""
        return Client(
            "http://twin",
            environ={"HOME": str(folder)},
            http=httpx.MockTransport(self._answer),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/artifacts"):
            shown = {**self.contents, **self.listed}
            items = [self._item(name, data) for name, data in shown.items()]
            return httpx.Response(200, json={"items": items, "next": None})
        if path.endswith("/archive"):
            self.archives += 1
            data = self.archive if self.archive is not None else tar_gz(self.contents)
            return httpx.Response(200, content=data)
        name = re.sub(r".*/artifacts/(.*)/content", r"\1", path).replace("|", "/")
        self.singles.append(request.headers.get("Range", "whole"))
        data = self.contents[name]
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        if self.broken_at is not None and start == 0:
            return httpx.Response(200, stream=Broken(data[: self.broken_at]))
        return httpx.Response(206 if start else 200, content=data[start:])

    def _item(self, name: str, data: bytes) -> dict[str, Any]:
        node, index, path = name.split("/", 2)
        return {
            "id": name.replace("/", "|"),
            "node": node,
            "index": int(index),
            "path": path,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }


class Broken(httpx.SyncByteStream):
    """A body whose connection breaks behind its first bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Any:
        yield self._data
        raise httpx.ReadError("gone")


def tar_gz(contents: Mapping[str, bytes], **special: tarfile.TarInfo) -> bytes:
    """An archive of files, with special members behind them."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in special.values():
            archive.addfile(info)
    return target.getvalue()


def download(files: Files, folder: Path, selection: Selection | None = None) -> Download:
    """A download of everything, or of `selection`."""
    client = files.client(folder)
    return Download(client.experiments, client.artifacts, "e", selection or Selection())


def test_the_archive_brings_all_and_the_second_run_nothing(tmp_path: Path) -> None:
    """One request for many files; afterwards none."""
    files = Files()

    first = download(files, tmp_path).extract_to(tmp_path / "out")
    second = download(files, tmp_path).extract_to(tmp_path / "out")

    assert (first.fetched, second.fetched) == (COUNT, 0)
    assert (files.archives, files.singles) == (1, [])
    assert (tmp_path / "out/simulate/3/out/r3.csv").read_bytes() == b"3" * 100


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    """What is there counts only with the right bytes, of whatever length."""
    files = Files()
    download(files, tmp_path).extract_to(tmp_path / "out")
    (tmp_path / "out/simulate/3/out/r3.csv").write_bytes(b"4" * 100)

    again = download(files, tmp_path).extract_to(tmp_path / "out")

    assert again.fetched == 1
    assert (tmp_path / "out/simulate/3/out/r3.csv").read_bytes() == b"3" * 100


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.8])
def test_an_archive_that_breaks_off_is_completed_file_by_file(tmp_path: Path, kept: float) -> None:
    """Wherever the stream breaks, every file arrives."""
    files = Files()
    whole = tar_gz(files.contents)
    files.archive = whole[: int(len(whole) * kept)]

    done = download(files, tmp_path).extract_to(tmp_path / "out")

    assert done.fetched == COUNT
    assert files.singles
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == COUNT


def test_a_broken_connection_goes_on_where_it_broke(tmp_path: Path) -> None:
    """The rest is asked for with a range."""
    files = Files(contents={"simulate/0/big": b"x" * 1000}, broken_at=300)

    download(files, tmp_path).extract_to(tmp_path / "out")

    assert files.singles == ["whole", "bytes=300-"]
    assert (tmp_path / "out/simulate/0/big").read_bytes() == b"x" * 1000


def test_wrong_bytes_never_get_the_name(tmp_path: Path) -> None:
    """The SHA-256 decides; nothing is left behind."""
    files = Files(contents={"simulate/0/a": b"right"})
    work = download(files, tmp_path)
    files.contents["simulate/0/a"] = b"wrong"

    with pytest.raises(IntegrityError, match="SHA-256"):
        work.extract_to(tmp_path / "out")

    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_the_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    """A link or device under the name of an output is never made."""
    files = Files()
    name, data = files.contents.popitem()
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    files.archive = tar_gz(files.contents, evil=info)
    files.listed[name] = data

    with pytest.raises(IntegrityError, match="link or device"):
        download(files, tmp_path).extract_to(tmp_path / "out")

    assert not (tmp_path / "out" / name).exists()


@pytest.mark.parametrize("name", ["a/0/../../x", "a/0//etc/x", "../0/x", "a/0/x\0y"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Whatever a server says."""
    files = Files(contents={name: b""})

    with pytest.raises(IntegrityError, match="nothing was"):
        download(files, tmp_path)


def test_a_linked_folder_below_the_output_is_refused(tmp_path: Path) -> None:
    """A link that was put there before does not lead the files away."""
    files = Files(contents={"simulate/0/a": b"x"})
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "simulate").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BadInputError, match="link that leaves"):
        download(files, tmp_path).extract_to(tmp_path / "out")

    assert not list((tmp_path / "elsewhere").rglob("a"))


def test_task_and_glob_narrow(tmp_path: Path) -> None:
    """By instance, by whole path and by file name."""
    files = Files()

    assert len(download(files, tmp_path, Selection(node="simulate", index=3)).wanted) == 1
    assert len(download(files, tmp_path, Selection(glob="r1*.csv")).wanted) == 3
    assert len(download(files, tmp_path, Selection(glob="out/*")).wanted) == COUNT
    assert download(files, tmp_path, Selection(node="plot")).wanted == {}


def test_a_damaged_archive_file_is_made_whole(tmp_path: Path) -> None:
    """Without --extract: what the old tar.gz still holds is kept, the rest is fetched."""
    files = Files()
    target = tmp_path / "e.tar.gz"
    download(files, tmp_path).archive_to(target)
    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) // 2])

    again = download(files, tmp_path).archive_to(target)

    assert 0 < again.fetched < COUNT
    assert download(files, tmp_path).archive_to(target).fetched == 0
    with tarfile.open(target) as archive:
        assert set(archive.getnames()) == set(files.contents)
