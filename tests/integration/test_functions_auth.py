"""Logging in: bootstrap, passwords, tokens, rotation, reuse, back-off."""

from __future__ import annotations

import base64
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from airavata_scheduler.functions import login_backoff
from airavata_scheduler.functions.bootstrap import new_bootstrap_link, new_password_link
from airavata_scheduler.functions.logins import open_login
from airavata_scheduler.models import database as db
from airavata_scheduler.models.errors import Conflict
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import AuditEntry, Login, LoginLink, User
from tests.api import SECRET, Api, Caller, LoggedIn, MakeApi

PASSWORD = "correct horse battery"


def token_of(link: str) -> str:
    """The token in a one-time link."""
    return parse_qs(urlsplit(link).query)["token"][0]


def bootstrapped(api: Api) -> dict[str, Any]:
    """The tokens of a first administrator called ada."""
    answer = api.nobody.post(
        "/auth/bootstrap",
        {
            "token": token_of(new_bootstrap_link(api.config)),
            "username": "ada",
            "password": PASSWORD,
        },
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json
    return found


def with_token(api: Api, token: str) -> Caller:
    """A caller with this access token."""
    return Caller(client=api.app.test_client(), token=token)


def test_bootstrap_makes_the_first_administrator_once(api: Api) -> None:
    """The link works once; the token in it is stored as a hash; a second link is refused."""
    link = new_bootstrap_link(api.config)
    body = {"token": token_of(link), "username": "ada", "password": PASSWORD}

    first = api.nobody.post("/auth/bootstrap", body)
    second = api.nobody.post("/auth/bootstrap", {**body, "username": "eve"})

    assert first.status_code == 201
    assert first.json["user"]["is_admin"] is True
    assert second.status_code == 410
    assert second.json["code"] == "link_ended"
    assert not LoginLink.select().where(LoginLink.token_hash == body["token"]).exists()
    with pytest.raises(Conflict):
        new_bootstrap_link(api.config)


def test_an_ended_link_is_refused(api: Api) -> None:
    """After an hour, by the database's clock, a bootstrap link is worth nothing."""
    link = new_bootstrap_link(api.config)
    LoginLink.update(expires_at=1).execute()

    answer = api.nobody.post(
        "/auth/bootstrap", {"token": token_of(link), "username": "ada", "password": PASSWORD}
    )

    assert answer.status_code == 410
    assert not User.select().exists()


def test_a_weak_password_does_not_use_up_the_link(api: Api) -> None:
    """Whoever chose a password that is too simple may try again with the same link."""
    link = new_bootstrap_link(api.config)
    body = {"token": token_of(link), "username": "ada"}

    weak = api.nobody.post("/auth/bootstrap", {**body, "password": "password123"})
    good = api.nobody.post("/auth/bootstrap", {**body, "password": PASSWORD})

    assert weak.status_code == 422
    assert weak.json["code"] == "weak_password"
    assert weak.json["field"] == "password"
    assert good.status_code == 201


def test_the_page_shows_a_form_and_makes_the_administrator(api: Api) -> None:
    """The page has no script, escapes what it shows, and its form does what the API does."""
    link = new_bootstrap_link(api.config)
    token = token_of(link)

    page = api.nobody.get("//bootstrap?token=" + token)
    sent = api.nobody.request(
        "POST",
        "//bootstrap",
        data={"token": token, "username": "ada", "password": PASSWORD, "again": PASSWORD},
    )

    assert page.status_code == 200
    assert page.mimetype == "text/html"
    assert "<script" not in page.text
    assert token in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert sent.status_code == 200
    assert User.get(User.name == "ada").is_admin


def test_the_page_escapes_and_refuses(api: Api) -> None:
    """A wrong token shows no form; wrong input shows the form again with a sentence."""
    token = token_of(new_bootstrap_link(api.config))

    wrong = api.nobody.get('//bootstrap?token="><script>alert(1)</script>')
    differs = api.nobody.request(
        "POST",
        "//bootstrap",
        data={"token": token, "username": "<b>", "password": PASSWORD, "again": "else"},
    )

    assert wrong.status_code == 410
    assert "<form" not in wrong.text
    assert "<script" not in wrong.text
    assert differs.status_code == 422
    assert "differ" in differs.text
    assert "<b>" not in differs.text


def test_log_in_with_a_password(api: Api) -> None:
    """The answer is both tokens and who you are; the access token works."""
    bootstrapped(api)

    answer = api.nobody.post("/auth/login", {"username": "ada", "password": PASSWORD})

    assert answer.status_code == 200
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600
    assert answer.json["refresh_expires_in"] == 168 * 3600
    status = with_token(api, answer.json["access_token"]).get("/auth/status")
    assert status.json["user"]["name"] == "ada"


def test_wrong_names_and_wrong_passwords_look_the_same(api: Api) -> None:
    """Nobody learns from the answer whether a user exists."""
    bootstrapped(api)

    wrong = api.nobody.post("/auth/login", {"username": "ada", "password": "not this one"})
    unknown = api.nobody.post("/auth/login", {"username": "bob", "password": "not this one"})

    assert wrong.status_code == unknown.status_code == 401
    bodies = [{**answer.json, "request_id": ""} for answer in (wrong, unknown)]
    assert bodies[0] == bodies[1]
    assert wrong.headers["WWW-Authenticate"].startswith("Bearer")


def test_passwords_are_kept_as_argon2id(api: Api) -> None:
    """The stored form says the algorithm and holds no trace of the password."""
    bootstrapped(api)

    stored = str(User.get(User.name == "ada").password_hash)

    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored


def test_wrong_passwords_cost_time(api: Api) -> None:
    """After five wrong passwords even the right one has to wait, for this user and address."""
    bootstrapped(api)
    name = "ada"
    for _ in range(5):
        api.nobody.post("/auth/login", {"username": name, "password": "not this one"})

    refused = api.nobody.post("/auth/login", {"username": name, "password": PASSWORD})
    elsewhere = api.nobody.post(
        "/auth/login",
        {"username": name, "password": PASSWORD},
        environ_base={"REMOTE_ADDR": "192.0.2.7"},
    )

    assert refused.status_code == 429
    assert refused.json["code"] == "login_backoff"
    assert int(refused.headers["Retry-After"]) >= 1
    assert elsewhere.status_code == 200


def test_the_back_off_is_counted_in_redis(make_api: MakeApi, redis_url: str) -> None:
    """With Redis there, another process with an empty memory refuses as well."""
    api = make_api(REDIS_URL=redis_url)
    name = f"user-{new_id()}"
    for _ in range(6):
        api.nobody.post("/auth/login", {"username": name, "password": "not this one"})
    login_backoff._failures.clear()

    refused = api.nobody.post("/auth/login", {"username": name, "password": "not this one"})

    assert refused.status_code == 429


def test_refresh_rotates(api: Api) -> None:
    """A refresh gives new tokens; the newest refresh token works, the login is the same one."""
    ada = api.user("ada")

    first = api.nobody.post("/auth/refresh", {"refresh_token": ada.tokens["refresh_token"]})
    second = api.nobody.post("/auth/refresh", {"refresh_token": first.json["refresh_token"]})

    assert first.status_code == second.status_code == 200
    assert Login.select().count() == 1
    assert Login.get().generation == 3
    stored = {Login.get().refresh_hash, Login.get().previous_hash}
    assert second.json["refresh_token"] not in stored


def test_a_refresh_token_that_comes_back_ends_the_login(api: Api) -> None:
    """An older token is reuse: the whole login ends, for the thief and for the robbed."""
    ada = api.user("ada")
    stolen = ada.tokens["refresh_token"]
    second = api.nobody.post("/auth/refresh", {"refresh_token": stolen}).json
    third = api.nobody.post("/auth/refresh", {"refresh_token": second["refresh_token"]}).json

    reused = api.nobody.post("/auth/refresh", {"refresh_token": stolen})

    assert reused.status_code == 401
    assert reused.json["code"] == "refresh_reused"
    later = api.nobody.post("/auth/refresh", {"refresh_token": third["refresh_token"]})
    assert later.json["code"] == "login_ended"
    assert with_token(api, third["access_token"]).get("/auth/status").status_code == 401
    assert AuditEntry.select().where(AuditEntry.action == "refresh_reused").count() == 1


def test_the_token_before_last_leeway_ends_after_ten_seconds(api: Api) -> None:
    """The token just used is a race for ten seconds, and theft from then on."""
    ada = api.user("ada")
    used = ada.tokens["refresh_token"]
    api.nobody.post("/auth/refresh", {"refresh_token": used})

    raced = api.nobody.post("/auth/refresh", {"refresh_token": used})
    Login.update(rotated_at=Login.rotated_at - 11_000).execute()
    reused = api.nobody.post("/auth/refresh", {"refresh_token": used})

    assert raced.status_code == 409
    assert raced.json["code"] == "refresh_raced"
    assert reused.status_code == 401
    assert reused.json["code"] == "refresh_reused"


def test_parallel_refreshes_end_nothing(api: Api) -> None:
    """Of many requests with one token one wins, the others are told, and the login lives."""
    ada = api.user("ada")
    body = {"refresh_token": ada.tokens["refresh_token"]}

    def refresh(_: int) -> tuple[int, dict[str, Any]]:
        caller = Caller(client=api.app.test_client())
        answer = caller.post("/auth/refresh", body)
        return answer.status_code, answer.json

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(refresh, range(6)))

    assert sorted(status for status, _ in answers) == [200] + [409] * 5
    winner = next(answer for status, answer in answers if status == 200)
    assert with_token(api, winner["access_token"]).get("/auth/status").status_code == 200


def test_an_invented_refresh_token_ends_nothing(api: Api) -> None:
    """Knowing a login's id is not enough to end it."""
    ada = api.user("ada")
    login_id, random, tag = ada.tokens["refresh_token"].split(".")
    invented = [
        f"{login_id}.{random[:-1]}x.{tag}",
        f"{login_id}.{random}.{'0' * len(tag)}",
        f"{new_id()}.{random}.{tag}",
        "x",
        "..",
        "\ud800",
    ]

    codes = [
        api.nobody.post("/auth/refresh", {"refresh_token": text}).status_code for text in invented
    ]

    assert codes == [401, 401, 401, 401, 401, 422]
    assert ada.get("/auth/status").status_code == 200


def test_a_login_keeps_its_own_length(api: Api) -> None:
    """A login that was opened for ten years is not cut to a week by its first refresh."""
    ada = api.user("ada")
    ten_years_s = 10 * 365 * 86400.0
    tokens = open_login(api.config, ada.id, ttl_s=ten_years_s).as_json()

    answer = api.nobody.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]})

    assert answer.json["refresh_expires_in"] == pytest.approx(ten_years_s, abs=2)


def test_log_out_ends_the_tokens_at_once(api: Api) -> None:
    """After logout neither token works, though the access token's own end is an hour away."""
    ada = api.user("ada")

    answer = ada.post("/auth/logout")

    assert answer.status_code == 204
    assert ada.get("/auth/status").json["code"] == "login_ended"
    refreshed = api.nobody.post("/auth/refresh", {"refresh_token": ada.tokens["refresh_token"]})
    assert refreshed.status_code == 401


def test_a_password_link_sets_the_password_and_ends_other_logins(api: Api) -> None:
    """Whoever lost a password gets a link; what a thief holds ends with it."""
    ada = api.user("ada")
    token = token_of(new_password_link(api.config, "ada"))

    answer = api.nobody.post("/auth/password-link", {"token": token, "password": PASSWORD})

    assert answer.status_code == 200
    assert ada.get("/auth/status").status_code == 401
    logged_in = api.nobody.post("/auth/login", {"username": "ada", "password": PASSWORD})
    assert logged_in.status_code == 200


def claims(user: LoggedIn, **other: Any) -> dict[str, Any]:
    """The claims of the user's token, with some changed."""
    known = jwt.decode(user.token or "", options={"verify_signature": False})
    return {**known, **other}


def unsigned(payload: dict[str, Any]) -> str:
    """A JWT with the algorithm `none`."""
    parts = [{"alg": "none", "typ": "JWT"}, payload]
    encoded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    ]
    return ".".join([*encoded, ""])


def test_forged_tokens_are_refused(api: Api) -> None:
    """No algorithm but ours, no audience but ours, no key from the token's own header."""
    ada = api.user("ada")
    good = claims(ada)
    forged = {
        "none": unsigned(good),
        "other key": jwt.encode(good, "x" * 32, algorithm="HS256"),
        "other algorithm": jwt.encode(good, SECRET * 2, algorithm="HS512"),
        "audience": jwt.encode(claims(ada, aud="agent"), SECRET, algorithm="HS256"),
        "issuer": jwt.encode(claims(ada, iss="else"), SECRET, algorithm="HS256"),
        "type": jwt.encode(claims(ada, typ="refresh"), SECRET, algorithm="HS256"),
        "text expiry": jwt.encode(claims(ada, exp="9999999999"), SECRET, algorithm="HS256"),
        "subject": jwt.encode(claims(ada, sub="' OR 1=1 --"), SECRET, algorithm="HS256"),
        "other user": jwt.encode(claims(ada, sub=new_id()), SECRET, algorithm="HS256"),
        "kid": jwt.encode(good, "y" * 32, algorithm="HS256", headers={"kid": "../../dev/null"}),
        "no login": jwt.encode(
            {name: value for name, value in good.items() if name != "sid"},
            SECRET,
            algorithm="HS256",
        ),
        "huge": "a" * 5000,
        "blank": "a.b.c",
    }

    answers = {
        name: with_token(api, token).get("/auth/status").status_code
        for name, token in forged.items()
    }

    assert answers == dict.fromkeys(forged, 401)


def test_an_ended_token_says_so(api: Api) -> None:
    """The client learns that it should refresh, not log in."""
    ada = api.user("ada")
    ended = jwt.encode(claims(ada, exp=int(time.time()) - 5), SECRET, algorithm="HS256")

    answer = with_token(api, ended).get("/auth/status")

    assert answer.status_code == 401
    assert answer.json["code"] == "token_expired"


def test_only_the_clock_of_the_database_ends_a_token(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clocks of the servers that issue and read it: both use the database's."""
    ada = api.user("ada")
    now = int(time.time())
    ahead = claims(ada, iat=now + 86_400, exp=now + 86_400 + 60)
    slow = claims(ada, iat=now - 86_400, exp=now - 86_400 + 60)
    encoded = [jwt.encode(said, SECRET, algorithm="HS256") for said in (ahead, slow)]

    first = [with_token(api, token).get("/auth/status") for token in encoded]
    monkeypatch.setitem(db.NOW_SQL, db.dialect(), f"({db.now_sql()} - 86400000)")
    second = [with_token(api, token).get("/auth/status") for token in encoded]

    assert [answer.status_code for answer in first] == [200, 401]
    assert [answer.status_code for answer in second] == [200, 200]


def test_no_secret_is_in_the_database(api: Api) -> None:
    """Neither passwords nor tokens can be read from any row."""
    tokens = bootstrapped(api)
    secrets = [PASSWORD, tokens["access_token"], tokens["refresh_token"]]

    tables = (User, Login, LoginLink, AuditEntry)
    rows = [str(row) for table in tables for row in table.select().dicts()]

    assert rows
    assert not [text for text in secrets for row in rows if text in row]


def test_links_use_the_public_address(make_api: MakeApi) -> None:
    """The link is one that a user's browser can open."""
    api = make_api(PUBLIC_URL="https://scheduler.example.org/")

    link = new_bootstrap_link(api.config)

    assert re.fullmatch(r"https://scheduler\.example\.org/bootstrap\?token=asl_[\w-]{43}", link)
