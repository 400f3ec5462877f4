"""One's own logins: seen, ended; and the back-off that nobody is locked out by."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from argon2 import PasswordHasher

from airavata_scheduler.functions import login_backoff, passwords
from airavata_scheduler.functions.logins import open_login
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import Login, User
from tests.api import Answered, Api, Caller, LoggedIn, MakeApi

PASSWORD = "correct horse battery"
HOME = "192.0.2.1"


@pytest.fixture(autouse=True)
def the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no wait is over in the middle of a test."""
    monkeypatch.setattr(login_backoff, "time", SimpleNamespace(monotonic=lambda: 1_000_000.0))


@pytest.fixture(autouse=True)
def a_try_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests try hundreds of passwords, and none looks at how they are kept."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 8, 1))


def person(api: Api, name: str = "ada") -> LoggedIn:
    """A user with a password, who never logged in with it."""
    user = api.user(name)
    User.update(password_hash=passwords.hashed(PASSWORD)).where(User.id == user.id).execute()
    return user


def log_in(api: Api, name: str, address: str, password: str = PASSWORD) -> Answered:
    """A login with a password from an address."""
    return api.nobody.post(
        "/auth/login",
        {"username": name, "password": password},
        environ_base={"REMOTE_ADDR": address},
        headers={"User-Agent": f"program at {address}"},
    )


# Logins


def test_the_list_says_how_and_from_where(api: Api) -> None:
    """Newest first, one's own alone, the one that asks is marked; ended ones are left out."""
    ada = person(api)
    person(api, "eve")
    log_in(api, "eve", HOME)
    token = log_in(api, "ada", HOME).json["access_token"]
    gone = open_login(api.config, ada.id).as_json()
    caller = Caller(client=api.app.test_client(), token=gone["access_token"])
    caller.post("/auth/logout")

    here = Caller(client=api.app.test_client(), token=token).get("/auth/sessions").json["items"]

    assert [(item["method"], item["address"], item["current"]) for item in here] == [
        ("password", HOME, True),
        ("local", "", False),
    ]
    assert here[0]["user_agent"] == f"program at {HOME}"
    assert here[0]["used_at"] >= here[0]["created_at"]


def test_one_login_is_ended(api: Api) -> None:
    """At its next request; somebody else's is not there."""
    ada, eve = api.user("ada"), api.user("eve")
    other = open_login(api.config, ada.id).as_json()
    there = Caller(client=api.app.test_client(), token=other["access_token"])
    login_id = there.get("/auth/status").json["login_id"]

    foreign = eve.delete(f"/auth/sessions/{login_id}")
    own = ada.delete(f"/auth/sessions/{login_id}")
    again = ada.delete(f"/auth/sessions/{login_id}")

    assert (foreign.status_code, foreign.json["code"]) == (404, "session_not_found")
    assert (own.status_code, again.status_code) == (204, 404)
    assert there.get("/users/me").json["code"] == "login_ended"
    assert ada.get("/users/me").status_code == 200


def test_all_others_are_ended(api: Api) -> None:
    """The one that asks stays, and so do other users'."""
    ada, eve = api.user("ada"), api.user("eve")
    others = [open_login(api.config, ada.id).as_json()["access_token"] for _ in range(3)]

    answer = ada.delete("/auth/sessions")

    assert answer.status_code == 204
    callers = [Caller(client=api.app.test_client(), token=token) for token in others]
    assert {caller.get("/users/me").status_code for caller in callers} == {401}
    assert (ada.get("/users/me").status_code, eve.get("/users/me").status_code) == (200, 200)
    assert [item["current"] for item in ada.get("/auth/sessions").json["items"]] == [True]


def test_the_list_has_pages(api: Api) -> None:
    """A user of many machines."""
    ada = api.user("ada")
    for _ in range(4):
        open_login(api.config, ada.id)

    first = ada.get("/auth/sessions?limit=3").json
    second = ada.get(f"/auth/sessions?limit=3&cursor={first['next']}").json

    ids = [item["id"] for item in first["items"] + second["items"]]
    assert ids == sorted((row.id for row in Login.select()), reverse=True)


# Back-off


def guesses(api: Api, name: str, count: int, *, network: int) -> list[int]:
    """The statuses of wrong passwords for one user, each from another address."""
    return [
        log_in(api, name, f"10.{network}.{number // 250}.{number % 250}", "wrong").status_code
        for number in range(count)
    ]


def test_many_addresses_guess_no_faster_than_one(api: Api) -> None:
    """After twenty failures from addresses that the user never came from, all such have to wait."""
    person(api)

    statuses = guesses(api, "ada", 30, network=1)

    assert statuses == [401] * 20 + [429] * 10


def test_nobody_is_locked_out_by_others(api: Api) -> None:
    """While many addresses guess, the user logs in where they logged in before."""
    person(api)
    assert log_in(api, "ada", HOME).status_code == 200
    guesses(api, "ada", 30, network=2)

    known, new = log_in(api, "ada", HOME), log_in(api, "ada", "192.0.2.77")

    assert known.status_code == 200
    assert (new.status_code, new.json["code"]) == (429, "login_backoff")
    assert int(new.headers["Retry-After"]) <= login_backoff.LONGEST_WAIT_S


def test_a_login_elsewhere_opens_nothing_for_guessers(api: Api) -> None:
    """The user's own success does not give the others their tries back."""
    person(api)
    log_in(api, "ada", HOME)
    guesses(api, "ada", 20, network=3)

    log_in(api, "ada", HOME)

    assert set(guesses(api, "ada", 3, network=4)) == {429}


def test_a_known_address_is_held_up_by_its_own_failures(api: Api) -> None:
    """Five, as everywhere; they do not count for the user's other addresses."""
    person(api)
    log_in(api, "ada", HOME)
    log_in(api, "ada", "192.0.2.2")

    here = [log_in(api, "ada", HOME, "wrong").status_code for _ in range(6)]

    assert here == [401] * 5 + [429]
    assert log_in(api, "ada", "192.0.2.2").status_code == 200


def test_one_password_on_many_users_is_stopped(api: Api) -> None:
    """After fifty failures of one address over all users; whoever is known there gets in."""
    person(api)
    person(api, "eve")
    log_in(api, "ada", HOME)
    names = [f"nobody{number}" for number in range(60)]

    statuses = [log_in(api, name, HOME, "summer").status_code for name in names]
    known, new = log_in(api, "ada", HOME), log_in(api, "eve", HOME)

    assert statuses == [401] * 50 + [429] * 10
    assert (known.status_code, new.status_code) == (200, 429)
    assert log_in(api, "eve", "192.0.2.3").status_code == 200


def test_an_account_of_ones_own_gives_no_tries(api: Api) -> None:
    """A sprayer who logs in between as themselves is counted on."""
    person(api, "mallory")
    for number in range(50):
        log_in(api, f"nobody{number}", HOME, "summer")
        if number == 40:
            assert log_in(api, "mallory", HOME).status_code == 200

    assert log_in(api, "somebody", HOME, "summer").status_code == 429


def test_names_of_nobody_look_the_same(api: Api) -> None:
    """From new addresses a user and nobody are held up alike."""
    person(api)

    ada, nobody = (
        guesses(api, name, 22, network=network) for name, network in (("ada", 5), ("nobody", 6))
    )

    assert ada == nobody


def test_the_counts_are_shared_by_processes(make_api: MakeApi, redis_url: str) -> None:
    """With Redis another process knows what this one counted."""
    api = make_api(REDIS_URL=redis_url)
    name = f"user-{new_id()}"
    for number in range(20):
        log_in(api, name, f"198.51.100.{number}", "wrong")
        login_backoff._failures.clear()

    assert log_in(api, name, "198.51.100.99", "wrong").status_code == 429


def test_a_stolen_login_guesses_no_faster(api: Api) -> None:
    """The current password is asked for with the same back-off."""
    ada = person(api)
    body = {"current": "wrong", "new": "another horse battery"}

    codes = [ada.post("/users/me/password", body).json["code"] for _ in range(6)]

    assert codes == ["wrong_password"] * 5 + ["login_backoff"]
