"""Accounts as users type them: tokens, the second factor, logins, and a browser at a provider."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import pyotp
import pytest

from airavata_scheduler.backends import openbao, openid
from airavata_scheduler.client import browser_login, cli_auth
from airavata_scheduler.client.api_accounts import SecondFactor
from airavata_scheduler.client.browser_login import browser_return
from airavata_scheduler.client.errors import NotAllowedError, WaitTimeoutError
from airavata_scheduler.functions import passwords
from airavata_scheduler.models.tables import User
from tests.api import configuration
from tests.client_server import Ran, RunCommand, Served, command, run_here, served
from tests.servers.openbao import OpenBao
from tests.servers.openid import OpenIDProvider, openid_provider

__all__ = ["command", "served"]

PASSWORD = "correct horse battery"


def with_password(served: Served) -> None:
    """Ada can log in with a password."""
    User.update(password_hash=passwords.hashed(PASSWORD)).where(User.id == served.ada.id).execute()


# Tokens


def test_a_token_from_the_command_works_in_the_environment(
    command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, printed once, used as AIRAVATA_TOKEN, listed, revoked."""
    made = command("user", "tokens", "create", "ci", "--scope", "read", "--expires-in", "2d")
    listed = json.loads(command("user", "tokens", "list", "--json").out)["items"]
    monkeypatch.setenv("AIRAVATA_TOKEN", made.out.strip())
    who, projects = command("whoami"), command("project", "list", "--quiet")
    refused = command("project", "create", "more")
    more = command("user", "tokens", "create", "more", "--scope", "read")
    monkeypatch.delenv("AIRAVATA_TOKEN")
    revoked = command("user", "tokens", "revoke", listed[0]["id"])
    monkeypatch.setenv("AIRAVATA_TOKEN", made.out.strip())
    ended = command("whoami")

    assert made.out.startswith("aat_")
    assert "shown once" in made.err
    assert [(item["name"], item["scopes"]) for item in listed] == [("ci", ["read"])]
    assert "by a token for read" in who.out
    assert projects.status == revoked.status == 0
    assert (refused.status, more.status, ended.status) == (3, 3, 3)
    assert "--scope projects" in refused.err
    assert "takes a login" in more.err


def test_a_service_account(command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator makes it and its token; it says that it is one."""
    made = command("user", "create", "robot", "--service")
    token = command("user", "tokens", "create", "ci", "--user", "robot", "--scope", "work")
    monkeypatch.setenv("AIRAVATA_TOKEN", token.out.strip())

    who = command("whoami")

    assert "airavata user tokens create" in made.out
    assert "robot (service account)" in who.out


# Logins


def test_logins_are_listed_and_ended(command: RunCommand, served: Served) -> None:
    """From where, and which one is ours; the others end together."""
    with_password(served)
    first = command("auth", "login", "ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    listed = json.loads(command("auth", "sessions", "--json").out)["items"]
    others = [item["id"] for item in listed if not item["current"]]
    one = command("auth", "revoke-session", others[0])
    rest = command("auth", "revoke-session", "--others")
    neither = command("auth", "revoke-session")

    assert first.status == 0
    assert [item["method"] for item in listed] == ["password", "local"]
    assert listed[0]["user_agent"].startswith("airavata-client")
    assert (one.status, rest.status, neither.status) == (0, 0, 2)
    assert len(json.loads(command("auth", "sessions", "--json").out)["items"]) == 1
    assert served.ada.get("/users/me").status_code == 401


class Typing:
    """Standard input whose lines are made when they are read."""

    def __init__(self, *lines: Callable[[], str]) -> None:
        self._lines = list(lines)

    def isatty(self) -> bool:
        """A pipe."""
        return False

    def readline(self) -> str:
        """The next line."""
        return f"{self._lines.pop(0)()}\n" if self._lines else ""


def test_the_second_factor(
    command: RunCommand,
    served: Served,
    openbao_server: OpenBao,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On, a login that asks for the code, a login by recovery code, off."""
    with_password(served)
    with openbao_server.client() as client:
        if "transit/" not in client.sys.list_mounted_secrets_engines()["data"]:
            client.sys.enable_secrets_engine("transit")
            client.secrets.transit.create_key("credentials")
    url, folder = str(served.api.config.database_url), served.folder.parent
    openbao.configure(configuration(url, folder, **openbao_server.settings))
    secrets: list[str] = []
    plain = SecondFactor.start

    def start(factor: SecondFactor, password: str) -> Mapping[str, Any]:
        answer = plain(factor, password)
        secrets.append(answer["secret"])  # as an authenticator would
        return answer

    monkeypatch.setattr(SecondFactor, "start", start)
    shown: list[int] = []

    def code() -> str:
        """A later step each time, of the two that are taken now."""
        shown.append(len(shown) - 1)
        return pyotp.TOTP(secrets[0]).at(int(time.time()) + 30 * shown[-1])

    monkeypatch.setattr("sys.stdin", Typing(lambda: PASSWORD, code))
    on = run_here("user", "totp", "enable", "--password-stdin")
    recovery = [line for line in on.out.splitlines() if line.count("-") == 3]
    monkeypatch.setattr("sys.stdin", Typing(lambda: PASSWORD, code))
    by_code = run_here("auth", "login", "ada", "--password-stdin")
    alone = command("auth", "login", "ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    login = ("auth", "login", "ada", "--password-stdin", "--code", recovery[0])
    by_recovery = command(*login, stdin=f"{PASSWORD}\n")
    status = command("user", "totp", "status")
    off = command("user", "totp", "disable", "--password-stdin", stdin=f"{PASSWORD}\n")

    assert (on.status, by_code.status, by_recovery.status) == (0, 0, 0)
    assert (alone.status, len(recovery)) == (2, 10)
    assert "second factor" in alone.err
    assert "9 recovery codes" in status.out
    assert off.status == 0
    assert command("user", "totp", "status").out == "Off.\n"


# The browser


@pytest.fixture
def provider(served: Served) -> Iterator[OpenIDProvider]:
    """A provider that the served application knows."""
    with openid_provider() as made:
        made.become("subject-1", preferred_username="ada")
        url, folder = str(served.api.config.database_url), served.folder.parent
        config = configuration(url, folder, PUBLIC_URL=served.url, **made.settings)
        openid.configure(config)
        served.api.app.config["AIRAVATA"] = config
        yield made
        openid._here.clear()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A browser that follows every address to its end; where it was sent."""
    went: list[str] = []

    def follow(address: str) -> bool:
        went.append(address)
        threading.Thread(
            target=httpx.get, args=(address,), kwargs={"follow_redirects": True}
        ).start()
        return True

    monkeypatch.setattr(cli_auth, "open_browser", follow)
    return went


def test_link_and_log_in_by_a_browser(
    command: RunCommand, served: Served, provider: OpenIDProvider, browser: list[str]
) -> None:
    """An unknown identity is told to link; linked it logs in; unlinked no more."""
    unknown = command("auth", "login", "--oidc")
    linked = command("auth", "link")
    logged_in = command("auth", "login", "--oidc")
    listed = json.loads(command("auth", "identities", "--json").out)["items"]
    sessions = json.loads(command("auth", "sessions", "--json").out)["items"]
    unlinked = command("auth", "unlink", listed[0]["id"])

    assert unknown.status == 3
    assert "airavata auth link" in unknown.err
    assert linked.status == logged_in.status == unlinked.status == 0, logged_in.err
    assert "as ada" in logged_in.out
    assert (sessions[0]["method"], sessions[0]["current"]) == ("oidc", True)
    assert all(address.startswith(provider.issuer) for address in browser)
    assert command("auth", "login", "--oidc").status == 3


def test_without_a_browser_the_address_is_printed(
    command: RunCommand, provider: OpenIDProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--no-browser` opens nothing, and the waiting ends."""
    opened: list[str] = []
    monkeypatch.setattr(cli_auth, "open_browser", opened.append)

    ran = command("auth", "login", "--oidc", "--no-browser", "--timeout", "100ms")

    assert (ran.status, opened) == (6, [])
    assert f"{provider.issuer}/authorize?" in ran.err


def test_a_server_without_a_provider(command: RunCommand) -> None:
    """The command hears it before any browser opens."""
    ran = command("auth", "login", "--oidc")

    assert ran.status == 4
    assert "OpenID" in ran.err


def test_the_listener_takes_one_answer_at_its_own_path() -> None:
    """Another path is nobody's; the first answer counts; a refusal is its sentence."""
    with browser_return() as back:
        elsewhere = httpx.get(back.redirect.rpartition("/")[0] + "/guess?code=evil")
        first = httpx.get(f"{back.redirect}?code=mine")
        httpx.get(f"{back.redirect}?code=evil")
        code = back.code(5)
    with browser_return() as back:
        httpx.get(f"{back.redirect}?{urlencode({'error': 'x', 'error_description': 'No.'})}")
        with pytest.raises(NotAllowedError, match=r"^No\.$"):
            back.code(5)
    with browser_return() as back, pytest.raises(WaitTimeoutError):
        back.code(0.01)

    assert (elsewhere.status_code, first.status_code, code) == (404, 200, "mine")
    assert "mine" not in first.text


def test_no_browser_is_opened_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text browser would take the terminal."""
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)

    assert browser_login.open_browser("http://127.0.0.1:1/") is False


def test_nothing_typed_shows_a_secret(command: RunCommand) -> None:
    """The record of a token hides it from a traceback."""
    made: Ran = command("user", "tokens", "create", "ci", "--scope", "read", "--json")

    assert json.loads(made.out)["token"].startswith("aat_")
