"""How the scheduler logs in to OpenBao, and stays logged in.

Either with the token of OPENBAO_TOKEN, or by the AppRole of OPENBAO_ROLE_ID with the secret id in
OPENBAO_SECRET_ID_FILE. What the operator puts there is usually the token of a *response wrapping*:
it is good for one use, so whoever else opened it on the way is found out. The first process that
starts opens it, under a lock, and leaves the secret id in its place for the others of the machine.

The token is renewed at half its life by a thread. Where it is lost all the same, the next request
logs in again, once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import hvac

from airavata_scheduler.backends.openbao_http import (
    NothingThere,
    SecretsRefused,
    Server,
    TokenLost,
    call,
    policy_lacks,
    token_refused,
)
from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import AiravataError, ConfigurationError

LEAST_PAUSE_S: Final = 1.0
RETRY_S: Final = 5.0
LOOK_AGAIN_S: Final = 3600.0  # at a token that does not end or cannot be renewed
LOGIN_PAUSE_S: Final = 1.0  # a login that failed is not tried again by everybody who waits
WRAPPED: Final = "s."  # how OpenBao's tokens begin; a secret id is a UUID

_LOOKUP: Final = "/v1/sys/wrapping/lookup"
_log = logging.getLogger(__name__)
_R = TypeVar("_R")


class Login(Protocol):
    """A way to get a token."""

    def token(self) -> str:
        """A token that OpenBao takes now, or a new one where it can be had."""

    @property
    def can_repeat(self) -> bool:
        """Whether `token` can give another one when the first is lost."""


@dataclass(frozen=True)
class PlainToken:
    """The token of OPENBAO_TOKEN."""

    value: str = field(repr=False)

    def token(self) -> str:
        """The token."""
        return self.value

    @property
    def can_repeat(self) -> bool:
        """There is no other."""
        return False


@dataclass(frozen=True, kw_only=True)
class AppRole:
    """A role, and the file with its secret id or with the token that it is wrapped in."""

    server: Server
    role_id: str
    file: Path

    def token(self) -> str:
        """Log in; a new token. Raises ConfigurationError, SecretsUnavailable, SecretsRefused."""
        secret_id = self._secret_id()
        client = self.server.client(None)
        try:
            made = call(lambda: client.auth.approle.login(self.role_id, secret_id))
        except (TokenLost, SecretsRefused):
            raise SecretsRefused(
                "OpenBao refuses the scheduler's AppRole.",
                hint="The operator makes a new wrapped secret id for OPENBAO_SECRET_ID_FILE.",
                retry_after_s=30.0,
            ) from None
        return str(made["auth"]["client_token"])

    @property
    def can_repeat(self) -> bool:
        """It can log in as often as it likes."""
        return True

    def _secret_id(self) -> str:
        """The secret id; unwraps it first, once for all processes of the machine."""
        try:
            text = self.file.read_text(encoding="ascii").strip()
            return self._open_once() if text.startswith(WRAPPED) else text
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigurationError(
                f"OPENBAO_SECRET_ID_FILE {self.file} cannot be read: {reason}.",
                hint="An operator writes it: airavata-scheduler secrets wrap --output FILE",
            ) from None

    def _open_once(self) -> str:
        """Unwrap under a lock; whoever waited for it finds the secret id in the file."""
        with self.file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            text = self.file.read_text(encoding="ascii").strip()
            if not text.startswith(WRAPPED):
                return text
            if not os.access(self.file.parent, os.W_OK | os.X_OK):
                raise ConfigurationError(
                    f"OPENBAO_SECRET_ID_FILE {self.file} holds a wrapped secret id, and its folder "
                    "cannot be written: it would be lost when it is opened.",
                    hint="Put it into a folder that this user can write.",
                )
            secret_id = self._unwrapped(text)
            write_whole(self.file, secret_id.encode(), 0o600)
            return secret_id

    def _unwrapped(self, wrapping: str) -> str:
        client = self.server.client(wrapping)
        try:
            told = call(lambda: client.adapter.post(_LOOKUP, json={"token": wrapping}))["data"]
            # Who opened it on the way and wrapped it anew cannot forge this.
            if not _is_of_a_role(str(told["creation_path"])):
                raise NothingThere
            opened = call(client.sys.unwrap, repeat=False)
        except (TokenLost, NothingThere, SecretsRefused):
            raise ConfigurationError(
                f"The wrapped secret id in {self.file} was opened already, or has ended.",
                hint="If it was not you, somebody else has it: destroy the role's secret ids, then "
                "put a new one there (airavata-scheduler secrets wrap).",
            ) from None
        _log.info("secrets: the wrapped secret id was opened, for the first time")
        return str(opened["data"]["secret_id"])


def _is_of_a_role(path: str) -> bool:
    return path.startswith("auth/") and path.endswith("/secret-id")


def login_of(configuration: Configuration) -> Login:
    """The way to log in that the settings say. Raises ConfigurationError where they say none."""
    if configuration.openbao_role_id:
        if configuration.openbao_secret_id_file is None:
            raise ConfigurationError(
                "OPENBAO_ROLE_ID needs OPENBAO_SECRET_ID_FILE beside it.",
                hint="An operator writes that file: airavata-scheduler secrets wrap --output FILE",
            )
        return AppRole(
            server=Server.of(configuration),
            role_id=configuration.openbao_role_id,
            file=configuration.openbao_secret_id_file,
        )
    if configuration.openbao_token:
        return PlainToken(configuration.openbao_token)
    raise ConfigurationError(
        "Neither OPENBAO_TOKEN nor OPENBAO_ROLE_ID is set.",
        hint="Set OPENBAO_ADDR and one of them: OpenBao keeps the secrets.",
    )


@dataclass(kw_only=True)
class LoggedIn:
    """A client whose token is kept alive; one for each process."""

    server: Server
    login: Login
    _client: hvac.Client | None = field(default=None, repr=False)
    _failure: tuple[float, AiravataError] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def do(self, work: Callable[[hvac.Client], _R], *, repeat: bool = True) -> _R:
        """One call with our token; where that was lost, once more with a new one.

        Raises what `call` raises, but TokenLost: SecretsRefused says which of its two it was.
        """
        client = self.client()
        try:
            return call(lambda: work(client), repeat=repeat)
        except TokenLost:
            if _is_good(client):
                raise policy_lacks() from None
        another = self.client(instead_of=client)
        try:
            return call(lambda: work(another), repeat=repeat)
        except TokenLost:
            raise policy_lacks() from None

    def client(self, *, instead_of: hvac.Client | None = None) -> hvac.Client:
        """The client; a new one in place of one whose token was refused.

        Raises SecretsRefused where no other can be had.
        """
        with self._lock:
            if self._client is not None and self._client is not instead_of:
                return self._client
            if self._client is not None and not self.login.can_repeat:
                raise token_refused()
            first, self._client = self._client is None, self._logged_in()
            if first:
                threading.Thread(target=self._keep, name="openbao-token", daemon=True).start()
            return self._client

    def _logged_in(self) -> hvac.Client:
        if self._failure is not None and time.monotonic() < self._failure[0] + LOGIN_PAUSE_S:
            raise self._failure[1]
        try:
            return self.server.client(self.login.token())
        except AiravataError as error:
            self._failure = (time.monotonic(), error)
            raise

    def end(self) -> None:
        """Stop renewing."""
        self._ended.set()

    def _keep(self) -> None:
        """Renew the token at half its life, until the end."""
        pause_s = LEAST_PAUSE_S
        while not self._ended.wait(pause_s):
            try:
                pause_s = self.renew()
            except AiravataError as error:
                _log.warning("secrets: the token was not renewed, tried again: %s", error.detail)
                pause_s = RETRY_S
            except Exception:  # noqa: BLE001 - the loop's edge: else nobody renews
                _log.exception("secrets: the token was not renewed, tried again")
                pause_s = RETRY_S

    def renew(self) -> float:
        """Renew the token if it is time, or log in again; seconds until the next look."""
        client = self.client()
        try:
            told = call(client.auth.token.lookup_self)["data"]
            left_s, life_s = float(told["ttl"]), _life_s(told)
            if left_s > life_s / 2:
                return max(LEAST_PAUSE_S, left_s - life_s / 2)
            if told.get("renewable"):
                made: Any = call(client.auth.token.renew_self)
                left_s = float(made["auth"]["lease_duration"])
        except TokenLost:
            left_s = life_s = 1.0
            self.client(instead_of=client)
        if left_s < life_s / 2:
            # It cannot be renewed for as long as it lived before: its end comes.
            if self.login.can_repeat:
                self.client(instead_of=client)
            else:
                _log.warning("secrets: OPENBAO_TOKEN ends in %.0f s, cannot be renewed", left_s)
        return LOOK_AGAIN_S if life_s == 0 else max(LEAST_PAUSE_S, left_s / 2)


def _life_s(told: dict[str, Any]) -> float:
    """How long a token lives from one renewal to the next; 0 is for ever."""
    return float(told.get("period") or told.get("creation_ttl") or 0)


def _is_good(client: hvac.Client) -> bool:
    """Whether OpenBao takes the token at all."""
    try:
        call(client.auth.token.lookup_self)
    except TokenLost:
        return False
    return True
