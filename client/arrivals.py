"""Files on their way to this machine: whole and checked under their name, or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from airavata_scheduler.client.errors import BadInputError, ClientError, IntegrityError
from airavata_scheduler.client.records import Artifact

CHUNK_BYTES = 1 << 20
Advance = Callable[[int], None]


def entry_name(artifact: Artifact) -> str:
    """The file's place below the output folder: <task>/<instance>/<declared path>.

    Raises `IntegrityError` for a path that would leave it.
    """
    parts = PurePosixPath(artifact.path).parts
    unsafe = (
        not parts
        or artifact.path.startswith("/")
        or ".." in parts
        or "\0" in artifact.path
        or "/" in (artifact.node or "")
        or artifact.node in (None, "", ".", "..")
    )
    if unsafe:
        raise IntegrityError(
            f"The server names an output “{artifact.path}” of “{artifact.node}”.",
            reason="Such a path would be written outside the output folder; nothing was.",
        )
    return f"{artifact.node}/{artifact.index or 0}/{PurePosixPath(*parts)}"


class Arrival:
    """A file on its way: written beside its place, hashed as it comes."""

    def __init__(self, stream: IO[bytes], artifact: Artifact) -> None:
        self._stream = stream
        self._artifact = artifact
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """The next bytes. Raises `IntegrityError` when there are more than there should be."""
        self.size += len(chunk)
        if self.size > self._artifact.size:
            raise _damaged(self._artifact, f"more than its {self._artifact.size} bytes came")
        self._digest.update(chunk)
        self._stream.write(chunk)

    def restart(self) -> None:
        """Drop what came: the server begins anew."""
        self._stream.seek(0)
        self._stream.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def check(self) -> None:
        """Raises `IntegrityError` unless size and SHA-256 are those of the artifact."""
        if self.size != self._artifact.size:
            raise _damaged(self._artifact, f"{self.size} of {self._artifact.size} bytes came")
        if self._digest.hexdigest() != self._artifact.sha256:
            raise _damaged(self._artifact, "its SHA-256 differs from the one that was recorded")


@contextlib.contextmanager
def arriving(folder: Path, name: str, artifact: Artifact) -> Iterator[Arrival]:
    """Write `name` below `folder`; it gets its name when it is whole and checked, else nothing."""
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(folder.resolve()):
            raise BadInputError(
                f"{target.parent} is a link that leaves {folder}.",
                hint="Remove the link, or name another output folder.",
            )
        descriptor, temporary = tempfile.mkstemp(prefix=".arriving-", dir=target.parent)
    except OSError as error:
        raise _not_written(target, error) from error
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            arrival = Arrival(stream, artifact)
            yield arrival
            arrival.check()
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def is_there(path: Path, artifact: Artifact) -> bool:
    """Whether `path` is a regular file with the artifact's bytes."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != artifact.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == artifact.sha256


def write_member(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    artifact: Artifact,
    folder: Path,
    count: Advance,
) -> None:
    """Write one member under the name that we computed ourselves, never the archive's."""
    if not member.isreg():
        raise IntegrityError(
            f"The archive holds “{member.name}” as a link or device.",
            reason="Only regular files are unpacked; this one was not.",
        )
    stream = archive.extractfile(member)
    with arriving(folder, entry_name(artifact), artifact) as arrival:
        while stream is not None and (chunk := stream.read(CHUNK_BYTES)):
            arrival.write(chunk)
            count(len(chunk))


def _damaged(artifact: Artifact, reason: str) -> ClientError:
    return IntegrityError(
        f"{artifact.node}[{artifact.index}] {artifact.path} did not arrive whole: {reason}.",
        hint="Run the same command again; it fetches only what is missing.",
    )


def _not_written(target: Path, error: OSError) -> ClientError:
    return BadInputError(
        f"{target} cannot be written.",
        reason=f"{error.strerror or error}.",
        hint="Name another folder: --output DIR. What is there is not fetched again.",
    )
