"""Errors are problems: always the same form, a stable code, the field, the next step."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from airavata_scheduler.functions import projects
from airavata_scheduler.models import database as db
from tests.api import Api, MakeApi

PROJECT = "/projects"


def send(api: Api, data: bytes, **headers: str) -> Any:
    """POST these bytes as JSON to create a project."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.user().post(
        PROJECT, data=data, headers={"Content-Type": "application/json", **named}
    )


def test_the_form_of_a_problem(api: Api) -> None:
    """RFC 9457, with the request's id also in the header."""
    answer = api.user().post(PROJECT, {"nam": "x"})

    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    body = answer.json
    assert body["type"] == "urn:airavata:problem:unknown_field"
    assert body["status"] == 422
    assert body["request_id"] == answer.headers["X-Request-Id"]
    found = {(item["field"], item["code"]) for item in body["errors"]}
    assert found == {("nam", "unknown_field"), ("name", "missing_field")}
    assert "Did you mean name?" in answer.text


BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"{name: x}", 400, "bad_json"),
    "cut off": (b'{"name": "x"', 400, "bad_json"),
    "invalid UTF-8": (b'{"name": "\xff"}', 400, "bad_json"),
    "UTF-16": ('{"name": "x"}'.encode("utf-16"), 400, "bad_json"),
    "BOM": (b'\xef\xbb\xbf{"name": "x"}', 400, "bad_json"),
    "a list": (b"[1]", 422, "not_an_object"),
    "a text of JSON": (b'"{\\"name\\": \\"x\\"}"', 422, "not_an_object"),
    "null": (b"null", 422, "not_an_object"),
    "duplicate keys": (b'{"name": "x", "name": "y"}', 422, "duplicate_key"),
    "NaN": (b'{"name": NaN}', 422, "number_out_of_range"),
    "Infinity": (b'{"name": -Infinity}', 422, "number_out_of_range"),
    "1e999": (b'{"name": 1e999}', 422, "number_out_of_range"),
    "5000 digits": (b'{"name": ' + b"9" * 5000 + b"}", 422, "number_out_of_range"),
    "lone surrogate": (b'{"name": "\\ud800"}', 422, "lone_surrogate"),
    "NUL": (b'{"name": "a\\u0000b"}', 422, "nul"),
    "NUL in a key": (b'{"a\\u0000b": 1}', 422, "nul"),
    "depth": (b'{"name": ' + b"[" * 2000 + b"]" * 2000 + b"}", 422, "too_deep"),
    "mixed depth": (b'{"a":' * 70 + b"1" + b"}" * 70, 422, "too_deep"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bodies_that_are_refused(api: Api, name: str) -> None:
    """Each is a 4xx with its own code, and makes nothing."""
    data, status, code = BAD_BODIES[name]

    answer = send(api, data)

    assert answer.status_code == status, answer.text
    assert answer.json["code"] == code
    assert answer.mimetype == "application/problem+json"


def test_brackets_in_texts_are_not_depth(api: Api) -> None:
    """A text with many brackets is only a text."""
    answer = send(api, json.dumps({"name": "x", "description": '["' * 200}).encode())

    assert answer.status_code == 201


def test_a_body_that_is_no_json_is_415(api: Api) -> None:
    """Forms and texts are not guessed at; neither is an unknown encoding."""
    form = api.user().post(PROJECT, data={"name": "x"})
    brotli = send(api, b"x", Content_Encoding="br")

    assert form.status_code == brotli.status_code == 415
    assert form.json["code"] == "unsupported_media_type"


def test_gzip_is_taken_and_a_bomb_is_not(make_api: MakeApi) -> None:
    """The limit holds for what comes out, and a lie about the encoding is told."""
    api = make_api(MAX_BODY_BYTES="100000")
    good = gzip.compress(b'{"name": "packed"}')
    bomb = gzip.compress(b'{"name": "' + b"x" * 10_000_000 + b'"}')

    assert send(api, good, Content_Encoding="gzip").status_code == 201
    assert len(bomb) < 100_000
    assert send(api, bomb, Content_Encoding="gzip").status_code == 413
    assert send(api, good[:-4], Content_Encoding="gzip").status_code == 400
    assert send(api, b'{"name": "x"}', Content_Encoding="gzip").status_code == 400


def test_too_large_a_body_is_413(make_api: MakeApi) -> None:
    """With the limit in the sentence."""
    api = make_api(MAX_BODY_BYTES="65536")

    answer = send(api, b'{"name": "' + b"x" * 70_000 + b'"}')

    assert answer.status_code == 413
    assert "65536" in answer.json["detail"]


def test_addresses_that_do_not_exist(api: Api) -> None:
    """404 and 405 are problems too, and say what would be possible."""
    missing = api.nobody.get("/nothing")
    root = api.nobody.get("//nothing/else")
    method = api.nobody.delete("/health")

    assert missing.status_code == root.status_code == 404
    assert missing.json["code"] == "no_route"
    assert method.status_code == 405
    assert method.json["code"] == "method_not_allowed"
    assert "GET" in method.headers["Allow"]


def test_an_error_of_our_own_tells_nothing_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 has the request's id, and neither a traceback nor the message."""

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("the secret of /etc/shadow")

    monkeypatch.setattr(projects, "_answer", broken)
    ada = api.user("ada")
    api.project(ada)

    answer = ada.get("/projects/spine")

    assert answer.status_code == 500
    assert answer.json["code"] == "internal_error"
    assert "shadow" not in answer.text
    assert "request_id" in answer.json["hint"]


def test_a_database_that_is_away_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Retry-After, and without the driver's words."""
    ada = api.user("ada")

    def away(*_args: Any, **_kwargs: Any) -> Any:
        raise db.DatabaseAway("password authentication failed for user scheduler")

    monkeypatch.setattr(db.database.obj, "execute_sql", away)

    answer = ada.get("/projects")

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["/projects?q=%00", "/agents?compute=a%00b", "/x?a%00=1"])
def test_nul_in_a_query_is_refused(api: Api, path: str) -> None:
    """PostgreSQL would choke on it; nobody gets a 5xx."""
    answer = api.user().get(path)

    assert 400 <= answer.status_code < 500


def test_answers_are_safe_for_browsers(api: Api) -> None:
    """Whatever a client put in, no browser takes our JSON for a page or shows it in a frame."""
    answer = api.user().get("/projects/<script>alert(1)</script>")

    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_request_id_is_taken_over_only_if_it_is_one(api: Api) -> None:
    """A caller may name its request; a forged log line is not a name."""
    good = api.nobody.get("/health", headers={"X-Request-Id": "abc-123-def"})
    bad = api.nobody.get("/health", headers={"X-Request-Id": "a b\x1b[31m"})

    assert good.headers["X-Request-Id"] == "abc-123-def"
    assert bad.headers["X-Request-Id"].isalnum()


@pytest.mark.parametrize("missing", [1, 5_000_000])
def test_a_body_that_breaks_off_does_nothing(missing: int, api: Api) -> None:
    """Half a document may be a whole one: what ends before its length is refused."""
    ada = api.user("ada")
    body = b'{"name": "half"}'
    as_in_gunicorn = {
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": str(len(body) + missing),
    }

    answer = ada.post(
        "/projects",
        data=body,
        content_type="application/json",
        environ_overrides=as_in_gunicorn,
    )

    assert (answer.status_code, answer.json["code"]) == (400, "body_incomplete")
    assert ada.get("/projects").json["items"] == []
