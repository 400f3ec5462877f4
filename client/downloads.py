"""Output files to this machine, each checked against its SHA-256 on arrival.

One tar.gz brings what is missing; single requests bring what it did not (a stream that broke, or a
few files only). A file appears under its name only when it is whole: what arrives is written beside
it first. What is there already, with the right bytes, is not fetched again.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx

from airavata_scheduler.client.api_work import Artifacts, Experiments
from airavata_scheduler.client.arrivals import (
    CHUNK_BYTES,
    Advance,
    Arrival,
    arriving,
    entry_name,
    is_there,
    write_member,
)
from airavata_scheduler.client.errors import UnreachableError
from airavata_scheduler.client.records import Artifact

# Below this many missing files single requests are cheaper than an archive of everything.
_SINGLY_BELOW_FILES = 8
_TRIES_WITHOUT_PROGRESS = 3


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which files: of one task of the file (`node`), of one instance, of paths like a glob."""

    node: str | None = None
    index: int | None = None
    glob: str | None = None

    @property
    def server_glob(self) -> str | None:
        """The glob where the server's sense of it is ours: it compares with whole paths only."""
        if self.glob is not None and ("/" in self.glob or self.glob.startswith("*")):
            return self.glob
        return None

    def matches(self, artifact: Artifact) -> bool:
        """Whether the artifact is wanted."""
        if self.node is not None and artifact.node != self.node:
            return False
        if self.index is not None and artifact.index != self.index:
            return False
        if self.glob is None:
            return True
        name = PurePosixPath(artifact.path).name
        return fnmatch.fnmatchcase(artifact.path, self.glob) or fnmatch.fnmatchcase(name, self.glob)


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """What a download did: numbers of files, and bytes that came over the wire's end."""

    files: int
    fetched: int
    bytes_fetched: int
    path: Path


def wanted_artifacts(
    experiments: Experiments, experiment: str, selection: Selection
) -> dict[str, Artifact]:
    """The selected output files by their place below the output folder."""
    found = experiments.artifacts(
        experiment, node=selection.node, index=selection.index, path=selection.server_glob
    )
    return {entry_name(artifact): artifact for artifact in found if selection.matches(artifact)}


class Download:
    """One download of an experiment's files; `advance(bytes)` hears of the progress."""

    def __init__(
        self,
        experiments: Experiments,
        artifacts: Artifacts,
        experiment: str,
        selection: Selection,
        *,
        advance: Advance = lambda _: None,
    ) -> None:
        self._experiments = experiments
        self._artifacts = artifacts
        self._experiment = experiment
        self._selection = selection
        self._advance = advance
        self._bytes = 0
        self.wanted = wanted_artifacts(experiments, experiment, selection)

    @property
    def size(self) -> int:
        """Bytes of all wanted files."""
        return sum(artifact.size for artifact in self.wanted.values())

    def extract_to(self, folder: Path) -> Downloaded:
        """Bring every wanted file to `folder`/<task>/<instance>/<declared path>."""
        folder.mkdir(parents=True, exist_ok=True)
        missing = {}
        for name, artifact in self.wanted.items():
            if is_there(folder / name, artifact):
                self._advance(artifact.size)
            else:
                missing[name] = artifact
        count = len(missing)
        if count >= _SINGLY_BELOW_FILES and self._selection.index is None:
            for name in self._from_archive(folder, missing):
                missing.pop(name)
        for name, artifact in missing.items():
            self._one(folder, name, artifact)
        return Downloaded(
            files=len(self.wanted), fetched=count, bytes_fetched=self._bytes, path=folder
        )

    def archive_to(self, path: Path) -> Downloaded:
        """Bring every wanted file into one tar.gz at `path`; files that it has already stay."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = set(checked_members(path, self.wanted)) if path.is_file() else set()
        if kept == set(self.wanted) and path.is_file():
            self._advance(self.size)
            return Downloaded(files=len(kept), fetched=0, bytes_fetched=0, path=path)
        with tempfile.TemporaryDirectory(prefix=".airavata-", dir=path.parent) as name:
            folder = Path(name)
            if kept:
                unpack_members(path, {entry: self.wanted[entry] for entry in kept}, folder)
            fetched = self.extract_to(folder).fetched
            packed = folder / ".tar.gz"
            pack(folder, sorted(self.wanted), packed)
            packed.replace(path)
        return Downloaded(
            files=len(self.wanted), fetched=fetched, bytes_fetched=self._bytes, path=path
        )

    def _from_archive(self, folder: Path, missing: dict[str, Artifact]) -> list[str]:
        """Extract what is missing from the server's tar.gz as it streams; the names that came."""
        came: dict[str, None] = {}
        query = {"node": self._selection.node, "path": self._selection.server_glob}
        # A broken stream is no loss: what is still missing is fetched file by file.
        with (
            contextlib.suppress(tarfile.TarError, EOFError, zlib.error, UnreachableError, OSError),
            self._experiments.archive(self._experiment, **query) as response,
            tarfile.open(fileobj=_Reader(response), mode="r|gz") as archive,
        ):
            for member in members(archive):
                artifact = missing.get(member.name)
                if artifact is None or member.name in came:
                    continue
                write_member(archive, member, artifact, folder, self._count)
                came[member.name] = None
        return list(came)

    def _one(self, folder: Path, name: str, artifact: Artifact) -> None:
        """Fetch one file; a connection that breaks goes on where it broke."""
        with arriving(folder, name, artifact) as arrival:
            tries_left = _TRIES_WITHOUT_PROGRESS
            while tries_left:
                before = arrival.size
                try:
                    self._receive(artifact, arrival)
                    return
                except UnreachableError:
                    moved = arrival.size > before
                    tries_left = _TRIES_WITHOUT_PROGRESS if moved else tries_left - 1
                    if not tries_left:
                        raise

    def _receive(self, artifact: Artifact, arrival: Arrival) -> None:
        with self._artifacts.content(artifact.id, offset=arrival.size) as response:
            if arrival.size and response.status_code != 206:
                arrival.restart()
            try:
                for chunk in response.iter_bytes():
                    arrival.write(chunk)
                    self._count(len(chunk))
            except httpx.TransportError as error:
                raise UnreachableError(reason=str(error)) from error

    def _count(self, count: int) -> None:
        self._bytes += count
        self._advance(count)


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a streamed archive, each forgotten when the next one comes.

    `tarfile` itself keeps them all: an archive of a million empty ones would fill the memory.
    """
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # its list, which typeshed leaves out
        yield member


class _Reader(io.RawIOBase):
    """A response's body as a file, for `tarfile`."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.iter_bytes()
        self._rest = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes, b"" at the end."""
        try:
            while not self._rest:
                self._rest = next(self._chunks)
        except StopIteration:
            return b""
        except httpx.TransportError as error:
            raise UnreachableError(reason=str(error)) from error
        taken = self._rest if count < 0 else self._rest[:count]
        self._rest = self._rest[len(taken) :]
        return taken


def checked_members(path: Path, wanted: dict[str, Artifact]) -> Iterator[str]:
    """The wanted files that the archive at `path` holds whole, up to where it is damaged."""
    with (
        contextlib.suppress(tarfile.TarError, EOFError, zlib.error, OSError),
        tarfile.open(path, mode="r|gz") as archive,
    ):
        for member in members(archive):
            artifact = wanted.get(member.name)
            stream = archive.extractfile(member) if artifact and member.isreg() else None
            if artifact is None or stream is None or member.size != artifact.size:
                continue
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
            if digest.hexdigest() == artifact.sha256:
                yield member.name


def unpack_members(path: Path, wanted: dict[str, Artifact], folder: Path) -> None:
    """Unpack the wanted files of the archive at `path`, each checked, links refused.

    Ends where the archive is damaged: what lies behind is fetched anew.
    """
    with (
        contextlib.suppress(tarfile.TarError, EOFError, zlib.error),
        tarfile.open(path, mode="r|gz") as archive,
    ):
        for member in members(archive):
            artifact = wanted.get(member.name)
            if artifact is not None:
                write_member(archive, member, artifact, folder, lambda _: None)


def pack(folder: Path, names: Sequence[str], target: Path) -> None:
    """A tar.gz of the files `names` of `folder`, owned by nobody in particular."""
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        for name in names:
            archive.add(folder / name, arcname=name, recursive=False, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
