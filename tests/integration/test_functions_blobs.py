"""Blobs over HTTP, on each database."""

from __future__ import annotations

import hashlib
import threading

import pytest

from airavata_scheduler.models.tables import Blob
from tests.api import Api, LoggedIn, MakeApi


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """A user with a project called `spine`."""
    user = api.user("ada")
    api.project(user)
    return user


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_put_is_there(ada: LoggedIn) -> None:
    """PUT stores bytes under their SHA-256: 201, then 200; HEAD and GET find them."""
    data = b"pickled" * 1000
    address = f"/projects/spine/blobs/{_digest(data)}"

    assert ada.request("HEAD", address).status_code == 404
    first, second = (ada.put(address, data=data) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json == second.json == {"sha256": _digest(data), "size": len(data)}
    head = ada.request("HEAD", address)
    assert (head.status_code, head.content_length, head.data) == (200, len(data), b"")
    assert ada.get(address).data == data


def test_other_bytes_are_refused(ada: LoggedIn) -> None:
    """Bytes that have another SHA-256 than the address are refused, and nothing is kept."""
    address = f"/projects/spine/blobs/{'0' * 64}"
    answer = ada.put(address, data=b"something else")

    assert (answer.status_code, answer.json["code"]) == (422, "digest_mismatch")
    assert ada.get(address).status_code == 404


def test_a_digest_has_its_form(ada: LoggedIn) -> None:
    """An address that is no SHA-256 in lower-case hex is refused before anything is read."""
    for name in ("abc", "F" * 64, "..%2f..%2fetc", "0" * 65):
        answer = ada.put(f"/projects/spine/blobs/{name}", data=b"x")
        assert answer.status_code in (404, 422), name


def test_a_blob_belongs_to_its_project(api: Api, ada: LoggedIn) -> None:
    """Members of the project read it; for others it is not there, nor in another project."""
    data = b"shared"
    address = f"/projects/spine/blobs/{_digest(data)}"
    ada.put(address, data=data)
    grace, eve = api.user("grace"), api.user("eve")
    ada.post("/projects/spine/members", {"user": "grace", "role": "viewer"})
    api.project(eve, "elsewhere")

    assert grace.get(address).data == data
    assert grace.put(address, data=data).status_code == 403
    assert eve.get(address).status_code == 404
    assert eve.get(f"/projects/elsewhere/blobs/{_digest(data)}").status_code == 404


def test_too_many_bytes_are_refused(make_api: MakeApi) -> None:
    """More than MAX_UPLOAD_BYTES is a 413, and nothing is kept."""
    api = make_api(MAX_UPLOAD_BYTES="65536", MAX_BODY_BYTES="65536")
    ada = api.user("ada")
    api.project(ada)
    data = b"x" * 70_000
    address = f"/projects/spine/blobs/{_digest(data)}"

    assert ada.put(address, data=data).status_code == 413
    assert ada.get(address).status_code == 404


def test_an_upload_larger_than_a_body_is_taken(make_api: MakeApi) -> None:
    """MAX_BODY_BYTES bounds JSON only; a blob may be larger."""
    api = make_api(MAX_BODY_BYTES="65536")
    ada = api.user("ada")
    api.project(ada)
    data = b"y" * 200_000

    assert ada.put(f"/projects/spine/blobs/{_digest(data)}", data=data).status_code == 201


def test_the_same_bytes_at_the_same_moment(api: Api, ada: LoggedIn) -> None:
    """Several senders of the same bytes all succeed, and one row is made."""
    data = b"z" * 100_000
    address = f"/projects/spine/blobs/{_digest(data)}"
    statuses: list[int] = []

    def send() -> None:
        client = LoggedIn(**{**vars(ada), "client": api.app.test_client()})
        statuses.append(client.put(address, data=data).status_code)

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    assert set(statuses) <= {200, 201}
    assert len(statuses) == 4
    assert Blob.select().count() == 1
