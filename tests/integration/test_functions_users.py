"""Users: oneself, what administrators do, and what nobody may."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from airavata_scheduler.models.tables import User
from tests.api import Api, with_headers

PASSWORD = "correct horse battery"


def test_me(api: Api) -> None:
    """You see yourself whole, and change your own name and address, nothing else."""
    ada = api.user("ada")

    shown = ada.get("/users/me")
    changed = ada.patch("/users/me", {"full_name": "Ada Lovelace", "email": "ada@example.org"})
    assigned = ada.patch("/users/me", {"is_admin": True})

    assert shown.json["name"] == "ada"
    assert shown.headers["ETag"] == '"1"'
    assert changed.json["full_name"] == "Ada Lovelace"
    assert changed.json["version"] == 2
    assert assigned.status_code == 422
    assert assigned.json["code"] == "unknown_field"


def test_a_new_user_gets_a_link(api: Api) -> None:
    """An administrator makes a user, who sets a password with the link and logs in."""
    admin = api.admin()

    made = admin.post("/users", {"name": "grace", "full_name": "Grace Hopper"})
    token = parse_qs(urlsplit(made.json["link"]).query)["token"][0]
    tokens = api.nobody.post("/auth/password-link", {"token": token, "password": PASSWORD})

    assert made.status_code == 201
    assert tokens.status_code == 200
    assert tokens.json["user"]["name"] == "grace"
    assert tokens.json["user"]["is_admin"] is False


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Ada",
        "-rf",
        "a b",
        "аda",  # noqa: RUF001  a Cyrillic letter: the twin is what is tried
        "a\nb",
        "a/../b",
        "x" * 64,
        "0192f0c1-2345-7abc-8def-0123456789ab",
        "ada\x1b[31m",
    ],
)
def test_names_that_are_refused(api: Api, name: str) -> None:
    """Names are lower-case ASCII, so that none looks like another, and fit an address."""
    answer = api.admin().post("/users", {"name": name})

    assert answer.status_code == 422
    assert answer.json["field"] == "name"


def test_a_taken_name_is_a_conflict(api: Api) -> None:
    """The second user of a name is refused, also when both come at once."""
    admin = api.admin()

    def make(_: int) -> int:
        return admin.post("/users", {"name": "grace"}).status_code

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(make, range(4)))

    assert answers == [201, 409, 409, 409]


def test_users_see_those_they_share_a_project_with(api: Api) -> None:
    """Others do not exist for them; an address and a state are shown to nobody else."""
    ada, bob, eve = api.user("ada"), api.user("bob"), api.user("eve")
    api.project(ada, member=bob)

    listed = bob.get("/users").json["items"]
    colleague = bob.get("/users/ada").json
    stranger = bob.get("/users/eve")

    assert [user["name"] for user in listed] == ["ada", "bob"]
    assert "email" not in colleague
    assert stranger.status_code == 404
    assert stranger.json["detail"] == bob.get("/users/evE").json["detail"].replace("evE", "eve")
    assert eve.get("/users").json["items"][0]["email"] == ""


def test_administrators_see_everybody(api: Api) -> None:
    """And page through the list."""
    admin = api.admin("zoe")
    for number in range(5):
        api.user(f"user-{number}")

    first = admin.get("/users?limit=4").json
    second = admin.get(f"/users?limit=4&cursor={first['next']}").json

    names = [user["name"] for user in first["items"] + second["items"]]
    assert names == ["user-0", "user-1", "user-2", "user-3", "user-4", "zoe"]
    assert second["next"] is None


def test_disabling_ends_logins_at_once(api: Api) -> None:
    """A disabled user's token stops working at the next request."""
    admin, ada = api.admin(), api.user("ada")

    answer = admin.delete("/users/ada")

    assert answer.status_code == 204
    assert ada.get("/users/me").status_code == 401
    assert admin.get("/users/ada").json["state"] == "disabled"
    enabled = admin.patch("/users/ada", {"state": "active"})
    assert enabled.json["state"] == "active"
    assert ada.get("/users/me").status_code == 401


def test_a_disabled_user_is_out_whatever_became_of_the_logins(api: Api) -> None:
    """The user's own state is read at each request, also for a login that raced the disabling."""
    ada = api.user("ada")
    User.update(state="disabled").where(User.id == ada.id).execute()

    access = ada.get("/users/me")
    refreshed = api.nobody.post("/auth/refresh", {"refresh_token": ada.tokens["refresh_token"]})

    assert access.status_code == 401
    assert refreshed.status_code == 401


def test_the_last_administrator_stays(api: Api) -> None:
    """Neither disabling nor demoting may leave a deployment without an administrator."""
    admin = api.admin("root")
    other = api.admin("second")

    demoted = other.patch("/users/root", {"is_admin": False})
    last = other.patch("/users/second", {"is_admin": False})
    gone = other.delete("/users/second")

    assert demoted.status_code == 200
    assert last.status_code == gone.status_code == 409
    assert last.json["code"] == "last_administrator"
    assert admin.get("/users/me").json["is_admin"] is False


def test_two_administrators_who_demote_each_other(api: Api) -> None:
    """At the same moment: one of them stays."""
    one, two = api.admin("one"), api.admin("two")

    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(one.patch, "/users/two", {"is_admin": False}),
            pool.submit(two.patch, "/users/one", {"is_admin": False}),
        ]
        for future in futures:
            future.result()

    assert User.select().where(User.is_admin).count() == 1


def test_if_match_guards_an_update(api: Api) -> None:
    """An update that rests on an old version is refused; one on the newest is not."""
    ada = api.user("ada")
    tag = ada.get("/users/me").headers["ETag"]
    careful = with_headers(ada, If_Match=tag)

    first = careful.patch("/users/me", {"full_name": "Ada"})
    second = careful.patch("/users/me", {"full_name": "Eve"})

    assert first.status_code == 200
    assert second.status_code == 412
    assert ada.get("/users/me").json["full_name"] == "Ada"


def test_if_none_match_saves_the_body(api: Api) -> None:
    """A client that has the newest version gets 304."""
    ada = api.user("ada")
    tag = ada.get("/users/me").headers["ETag"]

    answer = ada.get("/users/me", headers={"If-None-Match": tag})

    assert answer.status_code == 304
    assert answer.data == b""


def test_changing_the_password_ends_other_logins(api: Api) -> None:
    """This login goes on, the others end, and it takes the old password."""
    admin = api.admin()
    link = admin.post("/users", {"name": "grace"}).json["link"]
    token = parse_qs(urlsplit(link).query)["token"][0]
    api.nobody.post("/auth/password-link", {"token": token, "password": PASSWORD})
    login = {"username": "grace", "password": PASSWORD}
    here, there = (api.nobody.post("/auth/login", login).json["access_token"] for _ in range(2))

    def call(access_token: str, path: str, body: dict[str, str] | None = None) -> int:
        headers = {"Authorization": f"Bearer {access_token}"}
        method = "POST" if body else "GET"
        return api.nobody.request(method, path, body, headers=headers).status_code

    new = "another horse battery"
    assert call(here, "/users/me/password", {"current": "wrong", "new": new}) == 422
    assert call(here, "/users/me/password", {"current": PASSWORD, "new": "short"}) == 422
    assert call(here, "/users/me/password", {"current": PASSWORD, "new": new}) == 204
    assert call(here, "/users/me") == 200
    assert call(there, "/users/me") == 401
    assert api.nobody.post("/auth/login", login).status_code == 401
