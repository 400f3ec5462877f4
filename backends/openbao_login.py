"""How the scheduler logs in to OpenBao, and stays logged in.

Either with the token of OPENBAO_TOKEN, or by the AppRole of OPENBAO_ROLE_ID with the secret id in
OPENBAO_SECRET_ID_FILE. What the operator puts there is usually the token of a *response wrapping*:
it is good for one use, so whoever else opened it on the way is found out. The first process that
starts opens it, under a lock, and leaves the secret id in its place for the others of the machine.

The token is renewed at half its life by a thread. Where it is lost all the same, the next request
logs in again.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import hvac

from airavata_scheduler.backends.openbao_http import (
    NothingThere,
    SecretsRefused,
    Server,
    TokenLost,
    call,
)
from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import AiravataError, ConfigurationError

LEAST_PAUSE_S: Final = 1.0
RETRY_S: Final = 5.0
WRAPPED: Final = "s."  # how OpenBao's tokens begin; a secret id is a UUID

_log = logging.getLogger(__name__)


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
            with self.file.open("r+", encoding="ascii") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX)
                text = self.file.read_text(encoding="ascii").strip()
                if text.startswith(WRAPPED):
                    text = self._unwrapped(text)
                    write_whole(self.file, text.encode(), 0o600)
                return text
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigurationError(
                f"OPENBAO_SECRET_ID_FILE {self.file} cannot be read: {reason}."
            ) from None

    def _unwrapped(self, wrapping: str) -> str:
        client = self.server.client(wrapping)
        try:
            opened = call(client.sys.unwrap, repeat=False)
        except (TokenLost, NothingThere, SecretsRefused):
            raise ConfigurationError(
                f"The wrapped secret id in {self.file} was opened already, or has ended.",
                hint="If it was not you, somebody else has it: revoke it, then put a new one there "
                "(airavata-scheduler secrets wrap).",
            ) from None
        _log.info("secrets: the wrapped secret id was opened, for the first time")
        return str(opened["data"]["secret_id"])


def login_of(configuration: Configuration) -> Login:
    """The way to log in that the settings say. Raises ConfigurationError where they say none."""
    if configuration.openbao_role_id:
        if configuration.openbao_secret_id_file is None:
            raise ConfigurationError("OPENBAO_ROLE_ID needs OPENBAO_SECRET_ID_FILE beside it.")
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
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def client(self, *, instead_of: hvac.Client | None = None) -> hvac.Client:
        """The client; a new one in place of one whose token was refused.

        Raises TokenLost where no other can be had.
        """
        with self._lock:
            if self._client is None or (self._client is instead_of and self.login.can_repeat):
                first = self._client is None
                self._client = self.server.client(self.login.token())
                if first:
                    threading.Thread(target=self._keep, name="openbao-token", daemon=True).start()
            elif self._client is instead_of:
                raise TokenLost
            return self._client

    def end(self) -> None:
        """Stop renewing."""
        self._ended.set()

    def _keep(self) -> None:
        """Renew the token at half its life, until the end."""
        pause_s = LEAST_PAUSE_S
        while not self._ended.wait(pause_s):
            pause_s = self.renew()

    def renew(self) -> float:
        """Renew the token if it is time; seconds until the next look."""
        client = self.client()
        try:
            told = call(client.auth.token.lookup_self)["data"]
            left_s, life_s = float(told["ttl"]), float(told.get("creation_ttl") or told["ttl"])
            if life_s == 0 or not told.get("renewable"):
                return 3600.0 if left_s == 0 else max(LEAST_PAUSE_S, left_s / 2)
            if left_s > life_s / 2:
                return max(LEAST_PAUSE_S, left_s - life_s / 2)
            call(client.auth.token.renew_self)
            return max(LEAST_PAUSE_S, life_s / 2)
        except TokenLost:
            return self._again(client)
        except AiravataError as error:
            _log.warning("secrets: the token was not renewed, tried again: %s", error.detail)
            return RETRY_S

    def _again(self, lost: hvac.Client) -> float:
        try:
            self.client(instead_of=lost)
        except (AiravataError, TokenLost):
            _log.error("secrets: OpenBao refuses our token, and there is no other")
            return RETRY_S
        return LEAST_PAUSE_S
