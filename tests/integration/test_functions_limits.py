"""The rate limit, HTTPS behind trusted proxies, and what the log says."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from airavata_scheduler.functions import request_log
from tests.api import Api, MakeApi


def limited(make_api: MakeApi, count: int = 3, **settings: str) -> Api:
    """The application with a limit of `count` requests in a minute."""
    return make_api(RATE_LIMIT_ENABLED="true", MAX_REQUESTS_PER_MINUTE=str(count), **settings)


def test_beyond_the_limit_is_429(make_api: MakeApi) -> None:
    """With when to come back; the headers count down before. Redis is away in this test."""
    ada = limited(make_api).user("ada")

    answers = [ada.get("/users/me") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert answers[3].json["code"] == "rate_limited"
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 61
    assert "Retry-After" not in answers[0].headers


def test_the_limit_is_for_all_routes_together(make_api: MakeApi) -> None:
    """One bucket for each principal, not one for each route."""
    ada = limited(make_api).user("ada")

    answers = [
        ada.get(path).status_code for path in ("/users/me", "/projects", "/users", "/agents")
    ]

    assert answers == [200, 200, 200, 429]


def test_principals_are_counted_apart(make_api: MakeApi) -> None:
    """One user's flood is not another's, though both come from the same address."""
    api = limited(make_api)
    ada, eve = api.user("ada"), api.user("eve")
    for _ in range(5):
        ada.get("/users/me")

    assert ada.get("/users/me").status_code == 429
    assert eve.get("/users/me").status_code == 200


def test_a_forged_token_is_counted_by_address(make_api: MakeApi) -> None:
    """Changing an invented token at each request gives nobody a new bucket."""
    api = limited(make_api)

    answers = [
        api.nobody.get("/users/me", headers={"Authorization": f"Bearer x{number}"}).status_code
        for number in range(4)
    ]

    assert answers == [401, 401, 401, 429]


def test_probes_metrics_and_agents_are_not_limited(make_api: MakeApi) -> None:
    """A flood of a user's requests takes nothing from agents and monitoring."""
    api = limited(make_api)
    paths = ["/health", "/health/db", "/health/ready", "//metrics", "//agent/v1/lease"]

    answers = {path: {api.nobody.get(path).status_code for _ in range(6)} for path in paths}

    assert all(429 not in found for found in answers.values())


def test_processes_count_together_in_redis(make_api: MakeApi, redis_url: str) -> None:
    """Two applications with one Redis share the buckets."""
    one, two = (limited(make_api, REDIS_URL=redis_url) for _ in range(2))
    ada = one.user()
    headers = {"Authorization": f"Bearer {ada.token}"}

    answers = [
        (one, two)[number % 2].nobody.get("/users/me", headers=headers).status_code
        for number in range(5)
    ]

    assert answers == [200, 200, 200, 429, 429]


def test_no_limit_where_it_is_switched_off(make_api: MakeApi) -> None:
    """RATE_LIMIT_ENABLED=false."""
    api = make_api(RATE_LIMIT_ENABLED="false", MAX_REQUESTS_PER_MINUTE="1")
    ada = api.user("ada")

    answers = {ada.get("/users/me").status_code for _ in range(5)}

    assert answers == {200}


@pytest.mark.parametrize(
    ("hops", "forwarded", "status"),
    [
        ("0", None, 403),
        ("0", "https", 403),
        ("1", "https", 401),
        ("1", "http", 403),
        ("1", "https, http", 403),
        ("2", "https", 403),
        ("2", "https, http", 401),
    ],
)
def test_https_is_required_behind_trusted_proxies_only(
    make_api: MakeApi, hops: str, forwarded: str | None, status: int
) -> None:
    """The header counts as far as TRUSTED_PROXIES says; a client cannot add to it."""
    api = make_api(REQUIRE_HTTPS="true", TRUSTED_PROXIES=hops)
    headers = {"X-Forwarded-Proto": forwarded} if forwarded else {}

    answer = api.nobody.get("/users/me", headers=headers)

    assert answer.status_code == status
    if status == 403:
        assert answer.json["code"] == "https_required"
    else:
        assert "Strict-Transport-Security" in answer.headers
    assert api.nobody.get("/health").status_code == 200


def test_a_forged_address_makes_no_new_bucket(make_api: MakeApi) -> None:
    """`X-Forwarded-For` is ignored unless a trusted proxy wrote it."""
    api = limited(make_api)

    answers = [
        api.nobody.get("/users/me", headers={"X-Forwarded-For": f"192.0.2.{number}"}).status_code
        for number in range(4)
    ]

    assert answers[-1] == 429


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the log writes, as in production."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    before = structlog.get_config()
    request_log.configure("info", redirect=False)
    try:
        yield written
    finally:
        structlog.configure(**before)


def logged(lines: io.StringIO) -> list[dict[str, Any]]:
    """The lines, each of them JSON."""
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_each_request_is_one_json_line(api: Api, lines: io.StringIO) -> None:
    """Who, which route, how it ended; the route as a pattern, the query never."""
    ada = api.user("ada")

    ada.get("/projects/secret-name?token=abc", headers={"X-Request-Id": "request-0001"})

    line = logged(lines)[-1]
    assert line["event"] == "request"
    assert line["route"] == "/api/v1/projects/<project>"
    assert line["status"] == 404
    assert line["code"] == "project_not_found"
    assert line["user"] == ada.id
    assert line["request_id"] == "request-0001"
    assert line["ms"] >= 0
    assert "secret-name" not in lines.getvalue()
    assert "abc" not in lines.getvalue()


def test_nobody_forges_a_line(api: Api, lines: io.StringIO) -> None:
    """Line breaks and escape sequences in anything that is echoed stay inside their line."""
    evil = 'x\r\n{"event":"forged"}\x1b[31m'

    api.nobody.request("GET", "/projects/x", headers={"User-Agent": "ok"}, query_string={"a": evil})
    structlog.get_logger("test").info(evil, path=evil)

    events = [line["event"] for line in logged(lines)]
    assert events[-1] == evil
    assert "forged" not in events
    assert "\x1b" not in lines.getvalue()


def test_no_secret_is_logged(api: Api, lines: io.StringIO) -> None:
    """Passwords and tokens of a login are in no line, and neither are members that say so."""
    password = "a very good password"
    ada = api.user("ada")

    api.nobody.post("/auth/login", {"username": "ada", "password": password})
    api.nobody.post("/auth/refresh", {"refresh_token": ada.tokens["refresh_token"]})
    structlog.get_logger("test").info("event", refresh_token="asl_123", password=password)

    text = lines.getvalue()
    assert [line["status"] for line in logged(lines) if "status" in line] == [401, 200]
    assert password not in text
    assert ada.tokens["refresh_token"] not in text
    assert "asl_123" not in text


def test_what_stands_in_an_address_is_not_logged(api: Api, lines: io.StringIO) -> None:
    """The way back from an OpenID provider carries a code and a state; tokens stand in headers."""
    ada = api.user("ada")
    body = {"name": "ci", "scopes": ["read"]}
    token = ada.post("/users/me/tokens", body).json["token"]

    api.nobody.get("/auth/oidc/callback?state=aof_canary-1&code=canary-2")
    api.nobody.get("/auth/oidc/start?redirect=http://127.0.0.1:1/canary-3&challenge=x")
    api.nobody.get("/users/me", headers={"Authorization": f"Bearer {token}"})
    api.nobody.post("/auth/oidc/token", {"code": "canary-4", "verifier": "canary-5" * 6})
    api.nobody.post("/auth/login", {"username": "ada", "password": "x", "code": "canary-6"})

    assert len(logged(lines)) >= 6
    assert "canary" not in lines.getvalue()
    assert token not in lines.getvalue()
