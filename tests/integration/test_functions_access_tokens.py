"""Personal access tokens and service accounts: scopes, ends, and what no token may do."""

from __future__ import annotations

from typing import Any

import pytest

from airavata_scheduler.functions import scopes
from airavata_scheduler.functions.bootstrap import new_password_link
from airavata_scheduler.functions.logins import open_login
from airavata_scheduler.functions.route_table import ROUTES
from airavata_scheduler.models import database
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.errors import Conflict, Unauthenticated
from airavata_scheduler.models.ids import new_id, secret_digest
from airavata_scheduler.models.tables import AccessToken, AuditEntry, IdempotencyKey, User
from tests.api import Api, Caller, LoggedIn, MakeApi, with_headers


def made(owner: LoggedIn, *granted: str, path: str = "/users/me/tokens", **more: Any) -> Any:
    """The answer of a new token with these scopes."""
    body = {"name": "ci", "scopes": list(granted) or ["read"], **more}
    answer = owner.post(path, body)
    assert answer.status_code == 201, answer.text
    return answer.json


def by_token(api: Api, token: str) -> Caller:
    """A caller with this token."""
    return Caller(client=api.app.test_client(), token=token)


def test_a_token_is_shown_once_and_works(api: Api) -> None:
    """Only its digest is kept; it acts as its user; it lives for 30 days unless said."""
    ada = api.user("ada")

    answer = made(ada, "work", "read")
    status = by_token(api, answer["token"]).get("/auth/status").json
    listed = ada.get("/users/me/tokens").json["items"]

    row = AccessToken.get()
    assert answer["token"].startswith("aat_")
    assert len(answer["token"]) == 4 + 43
    assert row.token_hash == secret_digest(answer["token"])
    assert row.expires_at - row.created_at == 30 * 86_400_000
    assert (status["user"]["name"], status["login_id"]) == ("ada", None)
    assert status["scopes"] == ["read", "work"]
    assert status["token_id"] == answer["id"] == listed[0]["id"]
    assert "token" not in listed[0]
    assert answer["token"] not in str(list(AuditEntry.select().dicts()))


def test_the_same_request_again_shows_the_same_token(api: Api) -> None:
    """A lost answer loses no token, and the kept answer is sealed."""
    careful = with_headers(api.user("ada"), Idempotency_Key="one")

    first, second = made(careful), made(careful)

    assert first == second
    assert AccessToken.select().count() == 1
    assert first["token"] not in str(list(IdempotencyKey.select().dicts()))


# What a token of each single scope may do.
_CASES: dict[tuple[str, str], set[str]] = {
    ("GET", "/projects"): {"read", "projects"},
    ("POST", "/projects"): {"projects"},
    ("GET", "/experiments"): {"read", "work"},
    ("POST", "/calls/results"): {"work"},
    ("PATCH", "/users/me"): {"account"},
    ("GET", "/auth/sessions"): {"read", "account"},
    ("GET", "/users"): {"read", "admin"},
    ("POST", "/compute-resources"): {"resources"},
    ("GET", "/agents"): {"read", "resources"},
    ("GET", "/users/me"): set(scopes.SCOPES),
}


@pytest.mark.parametrize("scope", scopes.SCOPES)
def test_a_token_may_do_what_its_scope_says(api: Api, scope: str) -> None:
    """`read` gets everything; the others their own nouns; a refusal names the scope."""
    caller = by_token(api, made(api.user("ada"), scope)["token"])

    refused = set()
    for method, path in _CASES:
        answer = caller.request(method, path, None if method == "GET" else {})
        if answer.status_code == 403:
            assert answer.json["code"] == "scope_missing"
            assert scopes.SCOPE_OF[f"{method} /api/v1{path}"] in answer.json["detail"]
            refused.add((method, path))

    assert refused == {case for case, allowed in _CASES.items() if scope not in allowed}


def test_every_users_route_has_a_scope() -> None:
    """A route whose noun no scope has stops the start; a credential's value is not `read`."""
    users = {name for name, rule in ROUTES.items() if rule.who == "user"}

    assert set(scopes.SCOPE_OF) == users
    assert set(scopes.SCOPE_OF.values()) <= set(scopes.SCOPES)
    with pytest.raises(LookupError, match="has no scope"):
        scopes.scope_of("GET /api/v1/unicorns/{unicorn}")
    assert scopes._reads("GET /api/v1/credentials/{credential}")
    assert not scopes._reads("GET /api/v1/credentials/{credential}/value")


def test_no_token_makes_itself_immortal(api: Api) -> None:
    """Every scope together makes no token, password, factor, login or administrator."""
    admin, robot = api.admin("root"), api.user("eve")
    token = made(admin, *scopes.SCOPES)["token"]
    caller = by_token(api, token)
    password = {"current": "x", "new": "x"}
    other = new_id()
    tries = {
        ("POST", "/users/me/tokens"): {"name": "more", "scopes": ["read"]},
        ("DELETE", f"/users/me/tokens/{other}"): None,
        ("POST", f"/users/{robot.id}/tokens"): {"name": "more", "scopes": ["read"]},
        ("DELETE", f"/users/{robot.id}/tokens/{other}"): None,
        ("POST", "/users/me/password"): password,
        ("POST", "/users/root/password-link"): {},
        ("POST", "/users/me/totp"): {"password": "x"},
        ("POST", "/users/me/totp/confirm"): {"code": "000000"},
        ("DELETE", "/users/me/totp"): {"password": "x"},
        ("DELETE", f"/users/{robot.id}/totp"): None,
        ("DELETE", "/auth/sessions"): None,
        ("DELETE", f"/auth/sessions/{admin.tokens['user']['id']}"): None,
        ("POST", "/auth/logout"): {},
        ("POST", "/users"): {"name": "second", "is_admin": True},
        ("PATCH", "/users/eve"): {"is_admin": True},
    }

    codes = {case: caller.request(*case, body).json["code"] for case, body in tries.items()}

    assert codes == dict.fromkeys(tries, "login_required")
    assert AccessToken.select().count() == 1
    assert admin.get("/auth/status").status_code == 200
    assert caller.post("/users", {"name": "third"}).status_code == 201


def test_login_only_routes_are_those_that_prove_who_one_is() -> None:
    """The rule is a pattern; this is what it means today."""
    assert {name.replace("/api/v1", "") for name in scopes.LOGIN_ONLY} >= {
        "POST /auth/logout",
        "DELETE /auth/sessions",
        "POST /users/me/password",
        "POST /users/me/tokens",
        "POST /users/{user}/tokens",
        "POST /users/{user}/password-link",
        "POST /users/me/totp",
        "DELETE /users/{user}/totp",
    }
    assert not [name for name in scopes.LOGIN_ONLY if name.startswith("GET ")]


def test_a_token_stops_at_its_next_request(api: Api) -> None:
    """Revoked, ended, its user disabled: each at once, with one sentence."""
    admin, ada, bob = api.admin(), api.user("ada"), api.user("bob")
    revoked, ended, kept = (made(ada) for _ in range(3))
    disabled = made(bob)
    callers = [by_token(api, one["token"]) for one in (revoked, ended, disabled, kept)]
    assert {caller.get("/users/me").status_code for caller in callers} == {200}

    assert ada.delete(f"/users/me/tokens/{revoked['id']}").status_code == 204
    AccessToken.update(expires_at=now_ms() - 1).where(AccessToken.id == ended["id"]).execute()
    admin.patch("/users/bob", {"state": "disabled"})
    answers = [caller.get("/users/me") for caller in callers]
    admin.patch("/users/bob", {"state": "active"})

    assert [answer.status_code for answer in answers] == [401, 401, 401, 200]
    assert {answer.json.get("code") for answer in answers[:3]} == {"token_ended"}
    assert callers[2].get("/users/me").status_code == 401
    assert [item["id"] for item in ada.get("/users/me/tokens").json["items"]] == [kept["id"]]


def test_the_users_own_state_is_read_at_each_request(api: Api) -> None:
    """Also where a disabling did not reach the tokens."""
    ada = api.user("ada")
    caller = by_token(api, made(ada)["token"])

    User.update(state="disabled").where(User.id == ada.id).execute()

    assert caller.get("/users/me").status_code == 401


def test_forged_tokens_are_nobodys(api: Api) -> None:
    """One character more or less, another prefix, nothing behind it."""
    token = made(api.user("ada"))["token"]
    forged = ["aat_", token[:-1], token + "x", token.upper(), "aat_" + "A" * 500, "aat_\u00e9"]

    answers = [by_token(api, text).get("/users/me").status_code for text in forged]

    assert answers == [401] * len(forged)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes[0]"),
        ({"expires_in": "367d"}, "expires_in"),
        ({"expires_in": "0d"}, "expires_in"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": "9" * 39 + "h"}, "expires_in"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"expires_in": "1d", "expires_at": "2027-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "a\x1b[31m"}, "name"),
    ],
)
def test_tokens_that_are_refused(api: Api, body: dict[str, Any], field: str) -> None:
    """No scope, no end within a year: each names its field."""
    answer = api.user().post("/users/me/tokens", {"name": "ci", "scopes": ["read"], **body})

    assert answer.status_code == 422
    assert answer.json["field"] == field


def test_an_end_may_be_a_duration_or_a_time(api: Api) -> None:
    """Days are understood too, since tokens live for days."""
    ada = api.user()

    short = AccessToken.get_by_id(made(ada, expires_in="90m")["id"])
    days = AccessToken.get_by_id(made(ada, expires_in="366d")["id"])

    assert short.expires_at - short.created_at == 90 * 60_000
    assert days.expires_at - days.created_at == 366 * 86_400_000


def test_use_is_noted_once_a_minute(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look for each request, and a write only where the note is a minute old."""
    token = made(api.user("ada"))
    caller = by_token(api, token["token"])

    def used_at() -> int | None:
        return AccessToken.get_by_id(token["id"]).used_at

    before = used_at()
    caller.get("/users/me")
    first = used_at()
    caller.get("/users/me")
    second = used_at()
    assert first is not None
    AccessToken.update(used_at=first - 61_000).execute()
    caller.get("/users/me")

    assert before is None
    assert first == second
    assert (used_at() or 0) >= first


def test_one_look_for_each_request(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate limit and the gate share what was looked up."""
    api = make_api(RATE_LIMIT_ENABLED="true", MAX_REQUESTS_PER_MINUTE="100")
    caller = by_token(api, made(api.user("ada"))["token"])
    caller.get("/auth/status")
    seen: list[str] = []
    plain = database.database.obj.execute_sql

    def counted(sql: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(sql)
        return plain(sql, *args, **kwargs)

    monkeypatch.setattr(database.database.obj, "execute_sql", counted)
    caller.get("/auth/status")

    assert len([sql for sql in seen if "access_tokens" in sql]) == 1


def test_a_token_is_counted_for_its_user(make_api: MakeApi) -> None:
    """Several tokens of one user share the user's bucket; an invented one is the address's."""
    api = make_api(RATE_LIMIT_ENABLED="true", MAX_REQUESTS_PER_MINUTE="4")
    ada, bob = api.user("ada"), api.user("bob")
    callers = [by_token(api, made(ada)["token"]) for _ in range(2)]

    answers = [callers[turn % 2].get("/users/me").status_code for turn in range(3)]
    invented = [by_token(api, f"aat_{turn}").get("/users/me").status_code for turn in range(5)]

    assert answers == [200, 200, 429]
    assert invented == [401, 401, 401, 401, 429]
    assert bob.get("/users/me").status_code == 200


def test_others_tokens_are_not_there(api: Api) -> None:
    """Nobody sees or revokes a token of somebody else; an administrator may revoke it."""
    admin, ada, eve = api.admin(), api.user("ada"), api.user("eve")
    token = made(ada)
    api.project(ada, member=eve)

    stranger = eve.delete(f"/users/me/tokens/{token['id']}")
    nosy = eve.get("/users/ada/tokens")

    assert (stranger.status_code, stranger.json["code"]) == (404, "token_not_found")
    assert nosy.status_code == 403
    assert admin.get("/users/ada/tokens").json["items"][0]["id"] == token["id"]
    assert admin.delete(f"/users/ada/tokens/{token['id']}").status_code == 204
    assert by_token(api, token["token"]).get("/users/me").status_code == 401


def test_a_service_account_has_tokens_alone(api: Api) -> None:
    """No password, no link, no administrator; a member of projects like everybody."""
    admin, ada = api.admin(), api.user("ada")
    api.project(ada)

    answer = admin.post("/users", {"name": "robot", "kind": "service"})
    token = made(admin, "read", "projects", path="/users/robot/tokens")
    caller = by_token(api, token["token"])
    added = ada.post("/projects/spine/members", {"user": "robot", "role": "member"})

    assert answer.status_code == 201
    assert answer.json["kind"] == "service"
    assert answer.json.get("link") is None
    assert (added.status_code, added.json.get("code")) == (201, None)
    assert caller.get("/projects/spine").status_code == 200
    assert caller.get("/auth/status").json["user"]["name"] == "robot"
    assert admin.post("/users/robot/password-link").json["code"] == "service_account"
    assert admin.patch("/users/robot", {"is_admin": True}).json["code"] == "service_account"
    with pytest.raises(Conflict, match="no password"):  # at the operator's command line
        new_password_link(api.config, "robot")
    refused = admin.post("/users", {"name": "boss", "kind": "service", "is_admin": True})
    assert refused.json["code"] == "service_account"
    with pytest.raises(Unauthenticated):
        open_login(api.config, answer.json["id"])


def test_an_administrator_makes_no_token_of_a_person(api: Api) -> None:
    """That would be a way to act in somebody's name."""
    admin = api.admin()
    api.user("ada")

    answer = admin.post("/users/ada/tokens", {"name": "x", "scopes": ["read"]})

    assert (answer.status_code, answer.json["code"]) == (409, "not_a_service")


def test_only_administrators_make_service_accounts(api: Api) -> None:
    """And their tokens."""
    admin, ada = api.admin(), api.user("ada")
    admin.post("/users", {"name": "robot", "kind": "service"})
    api.project(ada)
    ada.post("/projects/spine/members", {"user": "robot", "role": "viewer"})

    account = ada.post("/users", {"name": "robot2", "kind": "service"})
    token = ada.post("/users/robot/tokens", {"name": "x", "scopes": ["read"]})

    assert account.status_code == 403
    assert token.status_code in (403, 404)


def test_a_hundred_tokens_are_enough(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that makes tokens is stopped."""
    monkeypatch.setattr("airavata_scheduler.functions.access_tokens.MOST_TOKENS", 2)
    ada = api.user()
    made(ada), made(ada)

    answer = ada.post("/users/me/tokens", {"name": "x", "scopes": ["read"]})

    assert (answer.status_code, answer.json["code"]) == (409, "too_many_tokens")
