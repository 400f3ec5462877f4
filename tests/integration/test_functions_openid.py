"""Logging in by an OpenID provider: a real small one, the happy way, and every lie."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from airavata_scheduler.backends import openid
from airavata_scheduler.functions.openid_flow import challenge_of
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.tables import AuditEntry, ExternalIdentity, Login, LoginFlow, User
from tests.api import Answered, Api, Caller, LoggedIn, MakeApi
from tests.servers.openid import (
    CLIENT_SECRET,
    OpenIDProvider,
    openid_provider,
    signed_by_a_stranger,
    signed_by_curve,
    signed_with_the_public_key,
    unsigned,
)

LOOPBACK = "http://127.0.0.1:50123/back"
VERIFIER = secrets.token_urlsafe(32)


@pytest.fixture
def provider() -> Iterator[OpenIDProvider]:
    """A provider where nobody is logged in yet."""
    with openid_provider() as made:
        made.become("subject-1", email="ada@example.org", email_verified=True)
        yield made


@pytest.fixture
def api(make_api: MakeApi, provider: OpenIDProvider) -> Api:
    """The application with the provider; unknown identities are refused."""
    return make_api(**provider.settings)


@pytest.fixture
def open_api(make_api: MakeApi, provider: OpenIDProvider) -> Api:
    """The application with the provider; unknown identities become users."""
    return make_api(OIDC_CREATE_USERS="true", **provider.settings)


def begun(api: Api, redirect: str = LOOPBACK, verifier: str = VERIFIER) -> Answered:
    """The answer to a command that begins a login."""
    query = urlencode({"redirect": redirect, "challenge": challenge_of(verifier)})
    return api.nobody.get(f"/auth/oidc/start?{query}")


def through_provider(address: str) -> str:
    """What the provider answers to the browser: the path and query of our callback."""
    answer = httpx.get(address, follow_redirects=False)
    assert answer.status_code == 302, answer.text
    parts = urlsplit(answer.headers["Location"])
    assert parts.path == "/api/v1/auth/oidc/callback"
    return f"/auth/oidc/callback?{parts.query}"


def landed(answer: Answered) -> dict[str, str]:
    """What the command's own address gets of the callback's answer."""
    assert answer.status_code == 302, answer.text
    assert answer.headers["Location"].startswith(LOOPBACK + "?")
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    return {name: values[0] for name, values in query.items()}


def came_back(api: Api, verifier: str = VERIFIER) -> dict[str, str]:
    """A whole way through the browser: what the command's address gets."""
    address = begun(api, verifier=verifier).headers["Location"]
    return landed(api.nobody.get(through_provider(address)))


def exchanged(api: Api, code: str, verifier: str = VERIFIER) -> Answered:
    """The answer to the command that has its code."""
    return api.nobody.post("/auth/oidc/token", {"code": code, "verifier": verifier})


def link(api: Api, user: LoggedIn, verifier: str = VERIFIER) -> Answered:
    """The whole way of linking an identity to the user's account."""
    body = {"redirect": LOOPBACK, "challenge": challenge_of(verifier)}
    address = user.post("/auth/oidc/link", body).json["address"]
    code = landed(api.nobody.get(through_provider(address)))["code"]
    return user.post("/auth/oidc/identities", {"code": code, "verifier": verifier})


def test_a_linked_identity_logs_in(api: Api, provider: OpenIDProvider) -> None:
    """The user links it once; then the provider's word is enough, and the tokens work."""
    ada = api.user("ada")

    linked = link(api, ada)
    tokens = exchanged(api, came_back(api)["code"])

    assert linked.status_code == 201, linked.text
    assert (linked.json["issuer"], linked.json["subject"]) == (provider.issuer, "subject-1")
    assert tokens.status_code == 200, tokens.text
    caller = Caller(client=api.app.test_client(), token=tokens.json["access_token"])
    assert caller.get("/auth/status").json["user"]["name"] == "ada"
    assert [row.method for row in Login.select().order_by(Login.id)] == ["local", "oidc"]
    actions = [row.action for row in AuditEntry.select().order_by(AuditEntry.id)]
    assert "identity_linked" in actions


def test_the_curve_is_taken_too(open_api: Api, provider: OpenIDProvider) -> None:
    """ES256 beside RS256."""
    provider.sign = signed_by_curve

    assert exchanged(open_api, came_back(open_api)["code"]).status_code == 200


def test_an_unknown_identity_is_refused_with_a_sentence(api: Api) -> None:
    """Also one with the e-mail address of a user: addresses link nobody."""
    User.update(email="ada@example.org").where(User.id == api.user("ada").id).execute()

    said = came_back(api)

    assert said["error"] == "identity_unknown"
    assert "linked to no account" in said["error_description"]
    assert "code" not in said
    assert ExternalIdentity.select().count() == 0


def test_a_new_identity_becomes_a_user_where_the_operator_wants(
    open_api: Api, provider: OpenIDProvider
) -> None:
    """With the provider's name if it is free, else one like it; the second time the same user."""
    open_api.user("ada")
    provider.become("subject-1", preferred_username="Ada@Example", email="a@example.org")

    first = exchanged(open_api, came_back(open_api)["code"]).json
    second = exchanged(open_api, came_back(open_api)["code"]).json
    provider.become("s2", preferred_username="0192f0c1-2345-7abc-8def-0123456789ab")
    odd = exchanged(open_api, came_back(open_api)["code"]).json

    assert first["user"]["name"] == "ada-2"
    assert first["user"]["is_admin"] is False
    assert first["user"]["email"] == ""  # not verified
    assert second["user"]["id"] == first["user"]["id"]
    assert odd["user"]["name"].startswith("user-0192f0c1")
    caller = Caller(client=open_api.app.test_client(), token=first["access_token"])
    assert caller.post("/projects", {"name": "mine"}).status_code == 201


def test_many_first_logins_at_once_make_one_user(open_api: Api) -> None:
    """Two tabs of somebody new."""
    codes = [came_back(open_api)["code"] for _ in range(4)]

    def exchange(code: str) -> int:
        caller = Caller(client=open_api.app.test_client())
        body = {"code": code, "verifier": VERIFIER}
        return caller.post("/auth/oidc/token", body).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(exchange, codes))

    assert statuses == [200] * 4
    assert User.select().count() == 1


@pytest.mark.parametrize(
    "redirect",
    [
        "http://evil.example/back",
        "https://127.0.0.1:50123/back",
        "http://127.0.0.1@evil.example:80/",
        "http://127.0.0.1:x@evil.example:80/",
        "http://127.0.0.1.evil.example:80/",
        "http://localhost.evil.example:80/",
        "http://evil.example:80/#@127.0.0.1:1/",
        "http://127.0.0.1:50123\\@evil.example/",
        "http:\\\\evil.example\\127.0.0.1",
        "//evil.example:80/",
        "javascript:alert(1)//127.0.0.1:1",
        "http://127.0.0.1/back",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:50123/\r\nSet-Cookie: x=1",
        "http://user@127.0.0.1:50123/",
        "http://127.0.0.1:50123/#fragment",
        "http://[::1",
        "",
    ],
)
def test_the_code_goes_to_the_users_own_machine_alone(api: Api, redirect: str) -> None:
    """By the host's name, whatever the address looks like."""
    answer = begun(api, redirect)

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_redirect")
    assert LoginFlow.select().count() == 0


@pytest.mark.parametrize(
    "redirect", ["http://[::1]:5000/x", "http://localhost:5000/", "http://127.0.0.1:1"]
)
def test_loopback_addresses(api: Api, redirect: str) -> None:
    """Each spelling of this machine."""
    assert begun(api, redirect).status_code == 302


def test_a_wrong_state_is_refused(api: Api) -> None:
    """Invented, missing, or of a flow that is too old."""
    address = begun(api).headers["Location"]
    back = through_provider(address)
    LoginFlow.update(expires_at=now_ms() - 1).execute()

    old = api.nobody.get(back)
    invented = api.nobody.get("/auth/oidc/callback?code=x&state=aof_invented")
    missing = api.nobody.get("/auth/oidc/callback?code=x")

    assert {answer.status_code for answer in (old, invented, missing)} == {410}
    assert old.json["code"] == "login_flow_ended"


def test_a_browser_comes_back_once(open_api: Api, provider: OpenIDProvider) -> None:
    """The same callback again is refused before the provider is asked."""
    back = through_provider(begun(open_api).headers["Location"])

    first, second = open_api.nobody.get(back), open_api.nobody.get(back)

    assert "code" in landed(first)
    assert second.status_code == 410
    assert provider.asked.count("/token") == 1
    assert exchanged(open_api, landed(first)["code"]).status_code == 200


def test_a_command_exchanges_its_code_once(open_api: Api) -> None:
    """A replayed code gives nothing, and neither does one after a minute."""
    code, late = came_back(open_api)["code"], came_back(open_api)["code"]

    first, second = exchanged(open_api, code), exchanged(open_api, code)
    LoginFlow.update(expires_at=now_ms() - 1).execute()
    third = exchanged(open_api, late)

    assert [answer.status_code for answer in (first, second, third)] == [200, 410, 410]


def test_a_code_lives_for_a_minute(open_api: Api) -> None:
    """Not for the ten minutes of the way through the browser."""
    came_back(open_api)

    assert LoginFlow.get().expires_at - now_ms() <= 60_000


def test_a_code_is_of_no_use_to_who_sees_it(open_api: Api) -> None:
    """It takes the verifier, and one guess uses it up."""
    code = came_back(open_api)["code"]

    thief = exchanged(open_api, code, secrets.token_urlsafe(32))
    owner = exchanged(open_api, code)

    assert (thief.status_code, owner.status_code) == (410, 410)


def test_the_sealed_half_of_a_code_belongs_to_its_flow(
    open_api: Api, provider: OpenIDProvider
) -> None:
    """Nobody puts another login's identity behind a code of their own."""
    mine = came_back(open_api)["code"]
    provider.become("the director")
    theirs = came_back(open_api)["code"]
    mixed = f"{mine.partition('.')[0]}.{theirs.partition('.')[2]}"

    assert exchanged(open_api, mixed).status_code == 410
    assert ExternalIdentity.select().count() == 0


_LIES: dict[str, dict[str, Any]] = {
    "wrong nonce": {"claims": {"nonce": "another"}},
    "no nonce": {"claims": {"nonce": None}},
    "alg none": {"sign": unsigned},
    "HS256 with the public key": {"sign": signed_with_the_public_key},
    "a stranger's key": {"sign": signed_by_a_stranger},
    "expired": {"claims": {"exp": 1_600_000_000}},
    "no end": {"claims": {"exp": None}},
    "from the future": {"claims": {"iat": 9_000_000_000}},
    "another audience": {"claims": {"aud": "another program"}},
    "made for another": {"claims": {"aud": ["airavata", "x"], "azp": "x"}},
    "several audiences": {"claims": {"aud": ["airavata", "x"]}},
    "another issuer": {"claims": {"iss": "http://evil.example"}},
    "no subject": {"claims": {"sub": None}},
    "an empty subject": {"claims": {"sub": ""}},
    "a long subject": {"claims": {"sub": "x" * 256}},
    "garbage": {"sign": lambda *_: "a.b.c"},
}


@pytest.mark.parametrize("lie", _LIES)
def test_a_token_that_lies_is_refused(open_api: Api, provider: OpenIDProvider, lie: str) -> None:
    """The command hears a sentence, nobody is made, and no login is opened."""
    provider.claims = _LIES[lie].get("claims", {})
    provider.sign = _LIES[lie].get("sign", provider.sign)

    said = came_back(open_api)

    assert said["error"] == "openid_refused"
    assert "code" not in said
    assert User.select().count() == Login.select().count() == 0


def test_a_refusal_at_the_provider_reaches_the_command(api: Api, provider: OpenIDProvider) -> None:
    """Whoever clicks "no" sees why nothing happens."""
    provider.denies = True

    assert came_back(api)["error"] == "openid_denied"


def test_another_provider_cannot_answer(open_api: Api, provider: OpenIDProvider) -> None:
    """RFC 9207: the answer names its issuer, and it must be the one that was asked."""
    back = through_provider(begun(open_api).headers["Location"])
    mixed = back.replace(urlencode({"iss": provider.issuer}), "iss=http%3A%2F%2Fevil.example")

    assert landed(open_api.nobody.get(mixed))["error"] == "openid_denied"
    assert "/token" not in provider.asked


def test_a_provider_that_is_away(api: Api, provider: OpenIDProvider) -> None:
    """The command hears it; passwords and logins that are open go on."""
    ada = api.user("ada")
    back = through_provider(begun(api).headers["Location"])
    provider.stop()

    returning = landed(api.nobody.get(back))

    assert returning["error"] == "openid_unavailable"
    assert ada.get("/users/me").status_code == 200


def test_a_provider_that_never_was(make_api: MakeApi) -> None:
    """Nothing listens at OIDC_ISSUER."""
    api = make_api(OIDC_ISSUER="http://127.0.0.1:1", OIDC_CLIENT_ID="x")

    answer = begun(api)

    assert (answer.status_code, answer.json["code"]) == (503, "openid_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


def test_without_a_provider(make_api: MakeApi) -> None:
    """A server that was not set up for it says so."""
    answer = begun(make_api())

    assert (answer.status_code, answer.json["code"]) == (404, "openid_off")


def test_rotated_keys_are_found(
    open_api: Api, provider: OpenIDProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that we do not know yet is looked up, but not at every token that names one."""
    assert exchanged(open_api, came_back(open_api)["code"]).status_code == 200
    provider.rotate()
    early = came_back(open_api)
    monkeypatch.setattr(openid, "_KEYS_AGAIN_AFTER_S", 0.0)
    late = came_back(open_api)

    assert early["error"] == "openid_refused"
    assert exchanged(open_api, late["code"]).status_code == 200
    assert provider.asked.count("/keys") == 2


def test_linking_is_bound_to_its_user(api: Api) -> None:
    """Who is lured through another's link flow links nothing: its end takes that user's login."""
    ada, eve = api.user("ada"), api.user("eve")
    body = {"redirect": LOOPBACK, "challenge": challenge_of(VERIFIER)}
    codes = []
    for _ in range(2):
        address = eve.post("/auth/oidc/link", body).json["address"]
        codes.append(landed(api.nobody.get(through_provider(address)))["code"])

    by_another = ada.post("/auth/oidc/identities", {"code": codes[0], "verifier": VERIFIER})
    as_login = exchanged(api, codes[1])

    assert (by_another.status_code, as_login.status_code) == (403, 403)
    assert {by_another.json["code"], as_login.json["code"]} == {"openid_denied"}
    assert ExternalIdentity.select().count() == 0


def test_a_login_flow_links_nothing(open_api: Api) -> None:
    """The code of a login is no code of a link."""
    ada = open_api.user("ada")
    code = came_back(open_api)["code"]

    answer = ada.post("/auth/oidc/identities", {"code": code, "verifier": VERIFIER})

    assert answer.status_code == 403
    assert ExternalIdentity.select().count() == 0


def test_an_identity_is_one_accounts(api: Api) -> None:
    """The second account that links it is refused; unlinked it logs in no more."""
    ada, eve = api.user("ada"), api.user("eve")
    first, second = link(api, ada), link(api, eve)

    listed = ada.get("/auth/oidc/identities").json["items"]
    foreign = eve.delete(f"/auth/oidc/identities/{listed[0]['id']}")
    own = ada.delete(f"/auth/oidc/identities/{listed[0]['id']}")

    assert (first.status_code, second.status_code) == (201, 409)
    assert second.json["code"] == "identity_taken"
    assert (foreign.status_code, own.status_code) == (404, 204)
    assert came_back(api)["error"] == "identity_unknown"


def test_a_disabled_user_stays_out(api: Api) -> None:
    """Whatever the provider says."""
    admin, ada = api.admin(), api.user("ada")
    link(api, ada)
    admin.delete("/users/ada")

    answer = exchanged(api, came_back(api)["code"])

    assert (answer.status_code, answer.json["code"]) == (401, "user_disabled")


def test_no_secret_of_a_flow_is_kept(open_api: Api) -> None:
    """Neither the state, nor the code, nor our secret at the provider is in a row."""
    address = begun(open_api).headers["Location"]
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    code = landed(open_api.nobody.get(through_provider(address)))["code"]

    rows = str(list(LoginFlow.select().dicts())) + str(list(AuditEntry.select().dicts()))

    kept = [query["state"], query["nonce"], code, code.partition(".")[0], CLIENT_SECRET]
    assert [text for text in kept if text in rows] == []
    assert CLIENT_SECRET not in address
