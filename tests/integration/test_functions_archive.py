"""The tar.gz of an experiment: its entries, its narrowing, and that its memory does not grow."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from airavata_scheduler.backends import stores
from airavata_scheduler.backends.storage import CHUNK_BYTES
from airavata_scheduler.functions import experiments_streams
from airavata_scheduler.functions.archive import SHA256_HEADER
from airavata_scheduler.models.leases import Report, ReportedArtifact
from airavata_scheduler.models.tables import Artifact
from tests.api import Api, LoggedIn
from tests.work import Site, sweep


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """A user with a project called `spine`."""
    user = api.user("ada")
    api.project(user)
    return user


@pytest.fixture
def site(ada: LoggedIn) -> Site:
    """A compute resource with an agent."""
    del ada
    return Site.make()


def submit(user: LoggedIn, site: Site, total: str) -> str:
    """A submitted and planned experiment; its id."""
    document = sweep(total)
    answer = user.post("/experiments", {"project": "spine", "document": document, "submit": True})
    assert answer.status_code == 201, answer.text
    site.settle()
    return str(answer.json["id"])


def unpacked(data: bytes) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Name → (bytes, PAX headers) of a tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        found = {}
        for member in archive:
            assert member.isreg()
            content = archive.extractfile(member)
            assert content is not None
            found[member.name] = (content.read(), dict(member.pax_headers))
        return found


def test_every_published_file_is_in_it(ada: LoggedIn, site: Site) -> None:
    """Entries are <task>/<instance>/<path>, each with its SHA-256; also long and foreign names."""
    identity = submit(ada, site, "1..2")
    deep = "/".join(["folder" * 15] * 5) + "/größe.txt"
    for grant in site.claim(2):
        site.complete(grant, outputs={"result.csv": b"%d" % grant.idx, deep: b"deep"})

    answer = ada.get(f"/experiments/{identity}/archive")
    assert (answer.status_code, answer.mimetype) == (200, "application/gzip")
    assert answer.headers["Content-Disposition"].endswith('.tar.gz"')
    found = unpacked(answer.data)
    assert sorted(found) == sorted(
        f"simulate/{index}/{path}" for index in range(2) for path in ("result.csv", deep)
    )
    for data, headers in found.values():
        assert headers[SHA256_HEADER] == hashlib.sha256(data).hexdigest()


def test_it_is_narrowed(ada: LoggedIn, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By glob and by task; an experiment without files is a valid, empty archive."""
    monkeypatch.setattr(experiments_streams, "ARCHIVE_PAGE", 2)
    identity = submit(ada, site, "1..5")
    assert unpacked(ada.get(f"/experiments/{identity}/archive").data) == {}
    for grant in site.claim(5):
        site.complete(grant, outputs={"result.csv": b"1", "plots/a.png": b"2"})

    path = f"/experiments/{identity}/archive"
    assert len(unpacked(ada.get(path).data)) == 10
    assert len(unpacked(ada.get(f"{path}?path=*.png").data)) == 5
    assert len(unpacked(ada.get(f"{path}?node=simulate&path=plots/*").data)) == 5
    assert ada.get(f"{path}?node=other").status_code == 404


def test_a_retried_instance_is_in_it_once(ada: LoggedIn, site: Site) -> None:
    """After a retry the archive has the files of what completed first, and of the new run."""
    identity = submit(ada, site, "1..2")
    first, second = site.claim(2)
    site.complete(first, outputs={"result.csv": b"first"})
    site.fail(second)
    site.settle()
    ada.post(f"/experiments/{identity}/retry", {"failed_only": True})
    site.settle()
    (again,) = site.claim(2)
    site.complete(again, outputs={"result.csv": b"again"})

    found = unpacked(ada.get(f"/experiments/{identity}/archive").data)
    assert sorted(data for data, _ in found.values()) == [b"again", b"first"]


def test_a_missing_file_breaks_the_stream_off(ada: LoggedIn, site: Site) -> None:
    """When stored bytes are gone, the archive ends in the middle: it never looks whole."""
    identity = submit(ada, site, "1..2")
    for grant in site.claim(2):
        site.complete(grant, outputs={"result.csv": b"".join(_noise(1 << 20))})
    row = Artifact.select().order_by(Artifact.id.desc()).get()
    stores.store(row.storage_id).delete(row.storage_key)

    taken = b""
    answer = ada.get(f"/experiments/{identity}/archive", buffered=False)
    with pytest.raises(Exception, match="not in the storage"):
        for part in answer.response:
            assert isinstance(part, bytes)
            taken += part
    with pytest.raises((EOFError, tarfile.ReadError)):
        unpacked(taken)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_its_memory_does_not_grow(ada: LoggedIn, site: Site) -> None:
    """An archive of 192 MiB in three files is sent with a few MiB of memory."""
    identity = submit(ada, site, "1..3")
    size = 64 << 20
    for grant in site.claim(3):
        _complete_with_large_file(site, grant, size)

    tracemalloc.start()
    answer = ada.get(f"/experiments/{identity}/archive", buffered=False)
    sent = sum(len(part) for part in answer.response)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent > 3 * size * 0.9
    assert peak < 8 << 20


def _complete_with_large_file(site: Site, grant: Any, size: int) -> None:
    small = site.upload(grant, "RESULT", "result.bin", b"")
    row = Artifact.get((Artifact.task_id == grant.task_id) & (Artifact.path == "result.bin"))
    stored = stores.store(row.storage_id).put(row.storage_key, _noise(size))
    Artifact.update(size=size, sha256=stored.sha256).where(Artifact.id == row.id).execute()
    file = ReportedArtifact(output=small.output, path=small.path, size=size, sha256=stored.sha256)
    site.report(Report(lease=grant.lease, outcome="completed", exit_code=0, artifacts=(file,)))


def _noise(size: int) -> Iterator[bytes]:
    """Bytes that do not compress, made without holding them."""
    state = hashlib.sha256(b"noise").digest()
    for _ in range(size // CHUNK_BYTES):
        state = hashlib.sha256(state).digest()
        yield hashlib.shake_128(state).digest(CHUNK_BYTES)
