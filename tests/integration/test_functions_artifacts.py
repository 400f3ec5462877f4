"""Artifacts over HTTP: listed, found, downloaded whole, in ranges or not at all."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from airavata_scheduler.models.tables import Artifact
from tests.api import Api, LoggedIn
from tests.work import Site, sweep

DATA = bytes(range(256)) * 4
DIGEST = hashlib.sha256(DATA).hexdigest()


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


@pytest.fixture
def made(ada: LoggedIn, site: Site) -> dict[str, Any]:
    """An experiment of three tasks, of which two completed with files and one runs."""
    answer = ada.post("/experiments", {"project": "spine", "document": sweep(), "submit": True})
    assert answer.status_code == 201, answer.text
    site.settle()
    grants = sorted(site.claim(3), key=lambda grant: grant.idx)
    for grant in grants[:2]:
        site.complete(grant, outputs={"result.csv": DATA, "logs/run é.txt": b"run"})
    site.upload(grants[2], "RESULT", "result.csv", b"staged")
    found: dict[str, Any] = answer.json
    return found


def file_id(user: LoggedIn, made: dict[str, Any], path: str = "result.csv") -> str:
    """The id of a file of the first task."""
    found = user.get(f"/experiments/{made['id']}/artifacts?index=0&node=simulate").json["items"]
    return next(str(item["id"]) for item in found if item["path"] == path)


def test_files_are_listed(ada: LoggedIn, made: dict[str, Any]) -> None:
    """Published files only; by task and instance, by glob of the path or the name; paged."""
    path = f"/experiments/{made['id']}/artifacts"

    everything = ada.get(path).json["items"]
    assert len(everything) == 4
    assert {item["sha256"] for item in everything} == {DIGEST, hashlib.sha256(b"run").hexdigest()}
    assert {item["index"] for item in everything} == {0, 1}
    assert len(ada.get(f"{path}?node=simulate&index=1").json["items"]) == 2
    assert len(ada.get(f"{path}?path=*.csv").json["items"]) == 2
    assert len(ada.get(f"{path}?path=run*").json["items"]) == 2
    assert ada.get(f"{path}?node=other").status_code == 404
    seen, page = [], ada.get(f"{path}?limit=3").json
    seen += page["items"]
    seen += ada.get(f"{path}?limit=3&cursor={page['next']}").json["items"]
    assert [item["id"] for item in seen] == [item["id"] for item in everything]


def test_a_glob_pages_too(
    ada: LoggedIn, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a glob a page may be short; following `next` finds each fitting file once."""
    monkeypatch.setattr("airavata_scheduler.functions.artifacts.SCAN", 1)
    path = f"/experiments/{made['id']}/artifacts?path=*.csv&limit=1"

    found, page = [], ada.get(path).json
    found += page["items"]
    for _ in range(10):
        if page["next"] is None:
            break
        page = ada.get(f"{path}&cursor={page['next']}").json
        found += page["items"]
    assert page["next"] is None
    assert [item["path"] for item in found] == ["result.csv", "result.csv"]
    assert len({item["id"] for item in found}) == 2


def test_a_file_is_downloaded(ada: LoggedIn, made: dict[str, Any]) -> None:
    """The whole file, as an attachment with its name, its SHA-256 as ETag, and no sniffing."""
    identity = file_id(ada, made)
    answer = ada.get(f"/artifacts/{identity}/content")

    assert (answer.status_code, answer.data) == (200, DATA)
    assert answer.headers["ETag"] == f'"{DIGEST}"'
    assert answer.headers["Content-Disposition"] == 'attachment; filename="result.csv"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.mimetype == "application/octet-stream"
    head = ada.request("HEAD", f"/artifacts/{identity}/content")
    assert (head.content_length, head.data) == (len(DATA), b"")
    named = ada.get(f"/artifacts/{file_id(ada, made, 'logs/run é.txt')}/content")
    assert "filename*=UTF-8''run%20%C3%A9.txt" in named.headers["Content-Disposition"]
    assert ada.get(f"/artifacts/{identity}").json["size"] == len(DATA)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=1000-", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=1020-5000", 1020, 1024),
    ],
)
def test_a_range_is_sent(
    ada: LoggedIn, made: dict[str, Any], asked: str, start: int, stop: int
) -> None:
    """One range is answered with 206 and exactly its bytes."""
    answer = ada.get(f"/artifacts/{file_id(ada, made)}/content", headers={"Range": asked})

    assert (answer.status_code, answer.data) == (206, DATA[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1024"
    assert answer.content_length == stop - start


def test_ranges_that_are_not_sent(ada: LoggedIn, made: dict[str, Any]) -> None:
    """Behind the end is 416; several, malformed, or of another version gets the whole."""
    path = f"/artifacts/{file_id(ada, made)}/content"

    behind = ada.get(path, headers={"Range": "bytes=1024-"})
    assert (behind.status_code, behind.headers["Content-Range"]) == (416, "bytes */1024")
    for asked in ("bytes=0-1,4-5", "lines=1-2", "bytes=x-y"):
        assert ada.get(path, headers={"Range": asked}).status_code == 200, asked
    stale = {"Range": "bytes=0-9", "If-Range": '"0000"'}
    assert ada.get(path, headers=stale).status_code == 200
    same = {"Range": "bytes=0-9", "If-Range": f'"{DIGEST}"'}
    assert ada.get(path, headers=same).status_code == 206


def test_what_the_client_has_is_not_sent(ada: LoggedIn, made: dict[str, Any]) -> None:
    """If-None-Match with the ETag is answered 304 and nothing else."""
    path = f"/artifacts/{file_id(ada, made)}/content"

    answer = ada.get(path, headers={"If-None-Match": f'"{DIGEST}"'})
    assert (answer.status_code, answer.data) == (304, b"")
    assert ada.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_what_is_only_staged_is_not_there(ada: LoggedIn, made: dict[str, Any]) -> None:
    """A file that no accepted report published is a 404, with its bytes and without."""
    del made
    (staged,) = Artifact.select().where(Artifact.state == "staged")

    assert ada.get(f"/artifacts/{staged.id}").status_code == 404
    assert ada.get(f"/artifacts/{staged.id}/content").status_code == 404


def test_others_do_not_see_it(api: Api, ada: LoggedIn, made: dict[str, Any]) -> None:
    """Another tenant's file is a 404."""
    identity = file_id(ada, made)
    eve = api.user("eve")

    assert eve.get(f"/artifacts/{identity}").status_code == 404
    assert eve.get(f"/artifacts/{identity}/content").status_code == 404
    assert eve.get(f"/experiments/{made['id']}/artifacts").status_code == 404
