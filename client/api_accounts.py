"""Logins, access tokens and the second factor of the typed SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airavata_scheduler.client.collection import Collection, path_of, without_none
from airavata_scheduler.client.errors import UnreachableError
from airavata_scheduler.client.profile import Profile
from airavata_scheduler.client.records import Record
from airavata_scheduler.client.transport import Transport


class Logins:
    """Who we are. A login is written to the profile, so that it holds for the next command."""

    def __init__(self, transport: Transport, profile: Profile) -> None:
        self._transport = transport
        self._profile = profile

    def log_in(self, username: str, password: str, code: str | None = None) -> dict[str, Any]:
        """Log in with a password and remember the tokens; returns the user's JSON.

        `code` is the second factor's, or a recovery code. Raises `NotAllowedError` with the code
        `second_factor_required` where the account has one and none is given.
        """
        body = {"username": username, "password": password, "code": code}
        return self._keep("/auth/login", body)

    def bootstrap(self, token: str, username: str, password: str) -> dict[str, Any]:
        """Make the first administrator with the one-time `token`, and log in."""
        body = {"token": token, "username": username, "password": password}
        return self._keep("/auth/bootstrap", body)

    def set_password(self, token: str, password: str, code: str | None = None) -> dict[str, Any]:
        """Set a password with the one-time `token` of an invitation, and log in."""
        body = {"token": token, "password": password, "code": code}
        return self._keep("/auth/password-link", body)

    def openid_address(self, redirect: str, challenge: str) -> str:
        """Begin a login at the OpenID provider; the address to open in a browser.

        The browser ends at `redirect`, on this machine, with a code for `log_in_by_code`.
        """
        answer = self._transport.send(
            "GET",
            "/auth/oidc/start",
            query={"redirect": redirect, "challenge": challenge},
            authenticated=False,
        )
        address = answer.headers.get("Location")
        if answer.status_code != 302 or not address:
            raise UnreachableError(f"{self._transport.server} named no OpenID provider.")
        return str(address)

    def log_in_by_code(self, code: str, verifier: str) -> dict[str, Any]:
        """Log in with the code of `openid_address`; `verifier` is the challenge's."""
        return self._keep("/auth/oidc/token", {"code": code, "verifier": verifier})

    def link_address(self, redirect: str, challenge: str) -> str:
        """As `openid_address`, to link an identity to our account by `link`."""
        body = {"redirect": redirect, "challenge": challenge}
        return str(self._transport.post("/auth/oidc/link", body)["address"])

    def link(self, code: str, verifier: str) -> dict[str, Any]:
        """Link the identity of `link_address`; from now on it logs us in."""
        answer: dict[str, Any] = self._transport.post(
            "/auth/oidc/identities", {"code": code, "verifier": verifier}
        )
        return answer

    def identities(self) -> list[dict[str, Any]]:
        """The identities at the OpenID provider that log us in."""
        items: list[dict[str, Any]] = self._transport.get("/auth/oidc/identities")["items"]
        return items

    def unlink(self, identity: str) -> None:
        """Unlink an identity, by its id."""
        self._transport.call("DELETE", path_of("/auth/oidc/identities", identity))

    def log_out(self) -> None:
        """End the login on the server and forget its tokens here."""
        self._transport.post("/auth/logout")
        self._profile.forget_tokens()

    def status(self) -> dict[str, Any]:
        """What the server says about our login."""
        answer: dict[str, Any] = self._transport.get("/auth/status")
        return answer

    def _keep(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._transport.send(
            "POST", path, json=without_none(body), authenticated=False
        ).json()
        self._profile.save(tokens=answer, server=self._transport.server)
        user: dict[str, Any] = answer.get("user") or {}
        return user


@dataclass(frozen=True, kw_only=True)
class LoginSession(Record):
    """One login of ours: by which `method`, from where; `current` is the one that asks."""

    id: str
    method: str = "password"
    address: str = ""
    user_agent: str = ""
    current: bool = False
    created_at: datetime | None = None
    used_at: datetime | None = None
    expires_at: datetime | None = None


class Sessions(Collection[LoginSession]):
    """Our own logins."""

    path = "/auth/sessions"
    noun = "login"
    record = LoginSession

    def end(self, session: str) -> None:
        """End one login at once."""
        self.transport.call("DELETE", path_of(self.path, session))

    def end_others(self) -> None:
        """End all our logins but this one."""
        self.transport.call("DELETE", self.path)


@dataclass(frozen=True, kw_only=True)
class AccessToken(Record):
    """An access token; `token` is there in the answer that made it, and never again."""

    id: str
    name: str
    scopes: Sequence[str] = ()
    token: str | None = field(default=None, repr=False)
    created_at: datetime | None = None
    expires_at: datetime | None = None
    used_at: datetime | None = None


class AccessTokens:
    """Our access tokens; for administrators also those of service accounts (`user`)."""

    def __init__(self, transport: Transport) -> None:
        self._pages = _TokenPages(transport)
        self._transport = transport

    def list(self, user: str = "me") -> Iterator[AccessToken]:
        """The tokens that are alive, newest first."""
        return self._pages.pages(path_of("/users", user, "tokens"), AccessToken)

    def create(
        self, name: str, scopes: Sequence[str], *, user: str = "me", expires_in: str | None = None
    ) -> AccessToken:
        """Make a token with these scopes, for 30 days or `expires_in` (such as `12h` or `90d`)."""
        body = without_none({"name": name, "scopes": list(scopes), "expires_in": expires_in})
        return AccessToken.from_json(self._transport.post(path_of("/users", user, "tokens"), body))

    def revoke(self, token: str, *, user: str = "me") -> None:
        """Revoke a token by its id; it stops at its next request."""
        self._transport.call("DELETE", path_of("/users", user, "tokens", token))


class _TokenPages(Collection[AccessToken]):
    path = "/users/me/tokens"
    noun = "token"
    record = AccessToken


class SecondFactor:
    """The code beside our password."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def status(self) -> Mapping[str, Any]:
        """Whether it is on, since when, and how many recovery codes are left."""
        answer: Mapping[str, Any] = self._transport.get("/users/me/totp")
        return answer

    def start(self, password: str) -> Mapping[str, Any]:
        """Begin to switch it on: `secret` and `uri` for an authenticator, shown once."""
        answer: Mapping[str, Any] = self._transport.post("/users/me/totp", {"password": password})
        return answer

    def confirm(self, code: str) -> Sequence[str]:
        """Switch it on with the first code; the recovery codes, shown once."""
        answer = self._transport.post("/users/me/totp/confirm", {"code": code})
        codes: Sequence[str] = answer["recovery_codes"]
        return codes

    def disable(self, *, password: str | None = None, code: str | None = None) -> None:
        """Switch it off, with the password or a code."""
        proof = without_none({"password": password, "code": code})
        self._transport.call("DELETE", "/users/me/totp", body=proof)

    def reset(self, user: str) -> None:
        """Switch off that of a user who lost it; administrators only."""
        self._transport.call("DELETE", path_of("/users", user, "totp"))
