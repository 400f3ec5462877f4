"""The second factor: codes that work once, recovery codes, and never a login without it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pyotp
import pytest
from hvac.exceptions import InvalidRequest

from airavata_scheduler.backends.openbao import secrets
from airavata_scheduler.backends.openbao_setup import rotate_key
from airavata_scheduler.functions import passwords, second_factor
from airavata_scheduler.functions.bootstrap import new_password_link
from airavata_scheduler.models.tables import AuditEntry, LoginLink, RecoveryCode, User
from tests.api import Answered, Api, LoggedIn, MakeApi, with_headers
from tests.integration.test_functions_auth import token_of
from tests.servers.openbao import OpenBao

PASSWORD = "correct horse battery"
STEP_S = 30
NOW_STEP = 60_000_000  # the server's clock stands still: no step begins in the middle of a test


@pytest.fixture
def openbao(openbao_server: OpenBao) -> OpenBao:
    """A real OpenBao with the transit key that wraps secrets."""
    with openbao_server.client() as client:
        try:
            client.sys.enable_secrets_engine("transit")
        except InvalidRequest:
            return openbao_server  # an earlier test made it
        client.secrets.transit.create_key("credentials")
    return openbao_server


@pytest.fixture
def api(make_api: MakeApi, openbao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The application with the OpenBao."""
    clock = SimpleNamespace(time=lambda: NOW_STEP * STEP_S + 29.9)
    monkeypatch.setattr(second_factor, "time", clock)
    yield make_api(**openbao.settings)


def person(api: Api, name: str = "ada") -> LoggedIn:
    """A user with a password."""
    user = api.user(name)
    User.update(password_hash=passwords.hashed(PASSWORD)).where(User.id == user.id).execute()
    return user


class Device:
    """An authenticator; each code that it shows is of a later step than the one before."""

    def __init__(self, secret: str) -> None:
        self.totp = pyotp.TOTP(secret)
        self.step = NOW_STEP - 2

    def code(self) -> str:
        """The next code that was not shown yet, from one step ago on."""
        self.step += 1
        return self.totp.generate_otp(self.step)

    def wrong(self) -> str:
        """A code that no step near now has."""
        near = {self.totp.generate_otp(NOW_STEP + ahead) for ahead in range(-5, 6)}
        return next(f"{number:06}" for number in range(100) if f"{number:06}" not in near)


def protected(user: LoggedIn) -> tuple[Device, list[str]]:
    """Switch the second factor on: the device and the recovery codes."""
    started = user.post("/users/me/totp", {"password": PASSWORD})
    assert started.status_code == 201, started.text
    device = Device(started.json["secret"])
    confirmed = user.post("/users/me/totp/confirm", {"code": device.code()})
    assert confirmed.status_code == 201, confirmed.text
    return device, confirmed.json["recovery_codes"]


def log_in(api: Api, **more: Any) -> Answered:
    """A login of ada, with or without a code."""
    return api.nobody.post("/auth/login", {"username": "ada", "password": PASSWORD, **more})


def test_a_password_alone_is_not_enough(api: Api) -> None:
    """Without a code 401 `second_factor_required`; with one a login. Nothing changes before."""
    ada = person(api)
    ada.post("/users/me/totp", {"password": PASSWORD})
    unconfirmed = log_in(api)
    device, _ = protected(ada)

    without = log_in(api)
    wrong_password = api.nobody.post("/auth/login", {"username": "ada", "password": "x"})
    right = log_in(api, code=device.code())

    assert unconfirmed.status_code == 200
    assert (without.status_code, without.json["code"]) == (401, "second_factor_required")
    assert wrong_password.json["code"] == "wrong_credentials"
    assert right.status_code == 200


def test_a_step_works_once(api: Api) -> None:
    """Who looks over a shoulder is late, also for the step before; a later step works."""
    device, _ = protected(person(api))
    first = device.code()

    answers = [log_in(api, code=code) for code in (first, first, device.code())]

    assert [answer.status_code for answer in answers] == [200, 401, 200]
    assert answers[1].json["code"] == "second_factor_wrong"


def test_the_code_that_confirmed_is_used(api: Api) -> None:
    """It is one step like any other."""
    ada = person(api)
    secret = ada.post("/users/me/totp", {"password": PASSWORD}).json["secret"]
    code = Device(secret).code()
    ada.post("/users/me/totp/confirm", {"code": code})

    assert log_in(api, code=code).status_code == 401


def test_one_code_at_the_same_moment(api: Api) -> None:
    """Six logins with one code: one of them is in."""
    device, _ = protected(person(api))
    code = device.code()

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(lambda _: log_in(api, code=code).status_code, range(4)))

    assert statuses == [200, 401, 401, 401]


@pytest.mark.parametrize(("ahead", "status"), [(-2, 401), (0, 200), (1, 200), (2, 401)])
def test_codes_of_other_times_are_refused(api: Api, ahead: int, status: int) -> None:
    """One step before and after now is taken, no more."""
    device, _ = protected(person(api))

    code = device.totp.generate_otp(NOW_STEP + ahead)

    assert log_in(api, code=code).status_code == status


def test_wrong_codes_cost_time(api: Api) -> None:
    """They are counted like wrong passwords; then even the right code has to wait."""
    device, _ = protected(person(api))

    answers = [log_in(api, code=device.wrong()).json["code"] for _ in range(6)]
    right = log_in(api, code=device.code())

    assert answers == ["second_factor_wrong"] * 5 + ["login_backoff"]
    assert (right.status_code, right.json["code"]) == (429, "login_backoff")


def test_recovery_codes_work_once_each(api: Api) -> None:
    """In any spelling; only their digests are kept; the last one is the last."""
    ada = person(api)
    _, codes = protected(ada)
    spelt = codes[0].upper().replace("-", " ")

    answers = [log_in(api, code=code).status_code for code in (spelt, codes[0], codes[1])]

    rows = str(list(RecoveryCode.select().dicts())) + str(list(AuditEntry.select().dicts()))
    assert len(set(codes)) == 10
    assert answers == [200, 401, 200]
    assert ada.get("/users/me/totp").json["recovery_codes_left"] == 8
    assert not [code for code in codes if code.replace("-", "") in rows or code in rows]


def test_the_secret_is_kept_as_ciphertext(api: Api) -> None:
    """Bound to its user: the same ciphertext in another row is refused."""
    ada, eve = person(api), person(api, "eve")
    device, _ = protected(ada)
    secret = device.totp.secret
    kept = User.get_by_id(ada.id)

    User.update(totp=kept.totp, totp_since=kept.totp_since).where(User.id == eve.id).execute()
    swapped = api.nobody.post(
        "/auth/login", {"username": "eve", "password": PASSWORD, "code": device.code()}
    )

    assert secret not in str(list(User.select().dicts()))
    assert secret not in str(list(AuditEntry.select().dicts()))
    assert swapped.status_code != 200


def test_openbao_away_is_no_login(api: Api, openbao: OpenBao) -> None:
    """503 with when to come back, never a login without the factor; a recovery code works."""
    ada = person(api)
    device, codes = protected(ada)
    person(api, "eve")

    openbao.stop()
    try:
        by_code = log_in(api, code=device.code())
        without = log_in(api)
        by_recovery = log_in(api, code=codes[0])
        eve = api.nobody.post("/auth/login", {"username": "eve", "password": PASSWORD})
        started = person(api, "bob").post("/users/me/totp", {"password": PASSWORD})
    finally:
        openbao.start()

    assert by_code.status_code == 503
    assert int(by_code.headers["Retry-After"]) >= 1
    assert without.json["code"] == "second_factor_required"
    assert (by_recovery.status_code, eve.status_code) == (200, 200)
    assert started.status_code == 503
    assert log_in(api, code=device.code()).status_code == 200


def test_a_stolen_login_switches_nothing(api: Api) -> None:
    """On takes the password; off takes the password or a code; wrong ones are counted."""
    ada = person(api)
    device, _ = protected(ada)
    eve = person(api, "eve")

    on = eve.post("/users/me/totp", {"password": "not this one"})
    nothing = ada.request("DELETE", "/users/me/totp", {})
    wrong = [ada.request("DELETE", "/users/me/totp", {"password": "x"}) for _ in range(2)]
    wrong += [ada.request("DELETE", "/users/me/totp", {"code": device.wrong()}) for _ in range(3)]
    held_up = ada.request("DELETE", "/users/me/totp", {"password": PASSWORD})

    assert (on.status_code, on.json["code"]) == (422, "wrong_password")
    assert nothing.json["code"] == "missing_field"
    assert {answer.json["code"] for answer in wrong} == {"wrong_password", "second_factor_wrong"}
    assert held_up.json["code"] == "login_backoff"
    assert ada.get("/users/me/totp").json["enabled"] is True


@pytest.mark.parametrize("proof", ["password", "code"])
def test_switching_off(api: Api, proof: str) -> None:
    """With the password or a code; the recovery codes go too, and it can be switched on again."""
    ada = person(api)
    device, _ = protected(ada)

    again = ada.post("/users/me/totp", {"password": PASSWORD})
    body = {proof: PASSWORD if proof == "password" else device.code()}
    off = ada.request("DELETE", "/users/me/totp", body)

    assert again.json["code"] == "second_factor_on"
    assert off.status_code == 204
    assert log_in(api).status_code == 200
    assert RecoveryCode.select().count() == 0
    protected(ada)


def test_an_administrator_resets_it(api: Api) -> None:
    """For a lost device; the audit says who did."""
    admin, ada = api.admin(), person(api)
    protected(ada)
    eve = api.user("eve")
    api.project(ada, member=eve)

    forbidden = eve.delete("/users/ada/totp")
    done = admin.delete("/users/ada/totp")

    assert (forbidden.status_code, done.status_code) == (403, 204)
    assert log_in(api).status_code == 200
    entry = AuditEntry.get(AuditEntry.action == "second_factor_reset")
    assert (entry.actor_id, entry.object_id) == (admin.id, ada.id)


def test_a_password_link_is_no_way_around(api: Api) -> None:
    """Whoever got hold of one needs the code too, and without it the link is not used up."""
    device, _ = protected(person(api))
    body = {"token": token_of(new_password_link(api.config, "ada")), "password": "a new one, ada"}

    without = api.nobody.post("/auth/password-link", body)
    unused = LoginLink.select().where(LoginLink.used_at.is_null()).count()
    right = api.nobody.post("/auth/password-link", {**body, "code": device.code()})

    assert (without.status_code, without.json["code"]) == (401, "second_factor_required")
    assert unused == 1
    assert right.status_code == 200


def test_the_page_of_a_link_asks_for_the_code_as_well(api: Api) -> None:
    """Its form has a field for it where there is a second factor; without it nothing is set."""
    device, _ = protected(person(api))
    token = token_of(new_password_link(api.config, "ada"))
    sent = {"token": token, "password": "a new one, ada", "again": "a new one, ada"}

    page = api.nobody.get("//bootstrap?token=" + token)
    without = api.nobody.request("POST", "//bootstrap", data=sent)
    wrong = api.nobody.request("POST", "//bootstrap", data={**sent, "code": "é"})
    unused = LoginLink.select().where(LoginLink.used_at.is_null()).count()
    right = api.nobody.request("POST", "//bootstrap", data={**sent, "code": device.code()})

    assert 'name="code"' in page.text
    assert (without.status_code, wrong.status_code, unused) == (401, 401, 1)
    assert 'name="code"' in without.text
    assert right.status_code == 200


def test_a_code_that_is_no_digits_is_wrong_and_nothing_worse(api: Api) -> None:
    """Also where no code was ever confirmed."""
    ada = person(api)
    ada.post("/users/me/totp", {"password": PASSWORD})

    answer = ada.post("/users/me/totp/confirm", {"code": "é" * 6})

    assert (answer.status_code, answer.json["code"]) == (422, "second_factor_wrong")


def test_without_a_password_there_is_nothing_to_protect(api: Api) -> None:
    """Who logs in elsewhere has the second factor there."""
    answer = api.user().post("/users/me/totp", {"password": "x"})

    assert (answer.status_code, answer.json["code"]) == (409, "no_password")


def test_confirming_takes_a_start(api: Api) -> None:
    """And the right code; the same request again shows the same recovery codes."""
    ada = person(api)
    early = ada.post("/users/me/totp/confirm", {"code": "123456"})
    secret = ada.post("/users/me/totp", {"password": PASSWORD}).json["secret"]
    device = Device(secret)
    wrong = ada.post("/users/me/totp/confirm", {"code": device.wrong()})
    careful = with_headers(ada, Idempotency_Key="one")
    body = {"code": device.code()}

    first, second = (careful.post("/users/me/totp/confirm", body) for _ in range(2))

    assert early.json["code"] == "second_factor_not_started"
    assert (wrong.status_code, wrong.json["code"]) == (422, "second_factor_wrong")
    assert first.json == second.json
    assert RecoveryCode.select().count() == 10


def test_secrets_outlive_the_key_that_wrapped_them(api: Api, openbao: OpenBao) -> None:
    """After a rotation they are wrapped anew, and the old version of the key may go."""
    device, _ = protected(person(api))
    before = User.get(User.name == "ada").totp
    with openbao.client() as client:
        rotate_key(client, secrets().server)

    count = second_factor.rewrap_all()
    with openbao.client() as client:
        newest = client.secrets.transit.read_key("credentials")["data"]["latest_version"]
        client.secrets.transit.update_key_configuration(
            "credentials", min_decryption_version=newest
        )
    answer = log_in(api, code=device.code())

    assert count == 1
    assert User.get(User.name == "ada").totp != before
    assert answer.status_code == 200
