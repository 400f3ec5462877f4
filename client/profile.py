"""Whom we talk to and as whom: flag, then environment, then the profile file.

The profile is one JSON file of mode 0600 in a folder of mode 0700. Every write and every refresh of
the tokens happens under a lock on a file beside it: commands that run at the same moment share one
refresh, so the server never sees a refresh token twice (which it would take for a theft, and end
the login).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airavata_scheduler.client.errors import BadInputError, NotAllowedError

DEFAULT_SERVER = "http://127.0.0.1:8080"
# A token that lapses while a request is under way costs a second round trip; this early a refresh
# costs none.
REFRESH_BEFORE_EXPIRY_S = 30.0
_FILE = "profile.json"
_LOCK = "profile.lock"
SETTINGS = ("server", "project")
_TOKEN_KEYS = ("user", "access_token", "refresh_token", "expires_at")


def default_folder(environ: Mapping[str, str]) -> Path:
    """The profile's folder: AIRAVATA_CONFIG_DIR, else the XDG configuration folder."""
    if environ.get("AIRAVATA_CONFIG_DIR"):
        return Path(environ["AIRAVATA_CONFIG_DIR"]).expanduser()
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"]) / "airavata"
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".config" / "airavata"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile file in `folder`."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.folder / _FILE

    def read(self) -> dict[str, Any]:
        """The file's values, {} where there is none.

        Raises `BadInputError` when the file cannot be read as JSON.
        """
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BadInputError(
                f"The profile {self.path} cannot be read.", reason=str(error.strerror)
            ) from error
        except ValueError as error:
            raise BadInputError(
                f"The profile {self.path} is not valid JSON.",
                reason=str(error),
                hint=f"Remove it and log in again: rm {self.path}",
            ) from error
        if not isinstance(values, dict):
            raise BadInputError(f"The profile {self.path} is not a JSON object.")
        return values

    def save(
        self, tokens: Mapping[str, Any] | None = None, **settings: str | None
    ) -> dict[str, Any]:
        """Merge `settings` (None removes one) and the answer of a login into the file.

        Return it whole.
        """
        with self.locked():
            values = self.read()
            if "server" in settings and settings["server"] != values.get("server"):
                # Tokens are one server's: another must never be shown them.
                for name in _TOKEN_KEYS:
                    values.pop(name, None)
            values.update(settings)
            if tokens is not None:
                values.update(_token_values(tokens))
            self._write({name: value for name, value in values.items() if value is not None})
            return values

    def forget_tokens(self) -> None:
        """Remove who we are; the server and the project stay."""
        self.save(**dict.fromkeys(_TOKEN_KEYS))

    def refreshed(
        self, stale: str | None, refresh: Callable[[str], Mapping[str, Any]]
    ) -> str | None:
        """A fresh access token instead of `stale`, or None where there is no refresh token.

        `refresh(refresh_token)` asks the server and returns the login answer. It is called at most
        once per stale token across all processes: whoever waits for the lock finds the new token in
        the file.
        """
        with self.locked():
            values = self.read()
            current = values.get("access_token")
            if current and current != stale and not _expires_soon(values):
                return str(current)
            if not values.get("refresh_token"):
                return None
            answer = refresh(str(values["refresh_token"]))
            values.update(_token_values(answer))
            self._write({name: value for name, value in values.items() if value is not None})
            return str(values["access_token"])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the profile's lock.

        It ends with the process, so a killed command leaves none behind.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadInputError(
                f"The configuration folder {self.folder} cannot be written.",
                reason=str(error.strerror),
                hint="Name another one: AIRAVATA_CONFIG_DIR=…",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, values: Mapping[str, Any]) -> None:
        """Replace the file in one step; a reader sees the old or the new one, never a half."""
        descriptor, name = tempfile.mkstemp(prefix=".profile-", dir=self.folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(values, stream, indent=2, sort_keys=True)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_profile(
    folder: Path,
    *,
    server: str,
    access_token: str,
    refresh_token: str | None = None,
    expires_in: float | None = None,
    user: str | None = None,
    project: str | None = None,
) -> Path:
    """Write the profile that makes `airavata` work without a login; returns the file's path.

    `expires_in` (seconds) is the access token's life; without it the first refusal refreshes.
    `airavata-scheduler local` calls this for the user who started it.
    """
    profile = Profile(folder=folder)
    tokens: dict[str, Any] = {"access_token": access_token, "refresh_token": refresh_token}
    if expires_in is not None:
        tokens["expires_in"] = expires_in
    if user is not None:
        tokens["user"] = {"name": user}
    profile.save(tokens=tokens, server=server.rstrip("/"), project=project)
    return profile.path


def _token_values(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """What of a login answer goes into the profile."""
    user = tokens.get("user")
    values: dict[str, Any] = {
        "access_token": tokens["access_token"],
        "expires_at": None,
    }
    if tokens.get("expires_in") is not None:
        values["expires_at"] = time.time() + float(tokens["expires_in"])
    if tokens.get("refresh_token"):
        values["refresh_token"] = tokens["refresh_token"]
    if isinstance(user, Mapping) and user.get("name"):
        values["user"] = user["name"]
    return values


def _expires_soon(values: Mapping[str, Any]) -> bool:
    expires_at = values.get("expires_at")
    return expires_at is not None and time.time() > float(expires_at) - REFRESH_BEFORE_EXPIRY_S


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that a command runs with, and where each of them came from.

    `token` is set only when a flag or the environment gave one; such a token is never refreshed nor
    stored. `sources` maps a setting's name to "flag", "environment", "profile" or "default".
    """

    server: str
    project: str | None
    token: str | None
    profile: Profile
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def resolve(
        cls, environ: Mapping[str, str], flags: Mapping[str, str | None] | None = None
    ) -> Settings:
        """Settle every setting: flag, then environment, then profile, then default.

        Raises `BadInputError` for a server that is not an http or https address.
        """
        given = {name: value for name, value in (flags or {}).items() if value}
        folder = given.get("config_dir")
        profile = Profile(folder=Path(folder).expanduser() if folder else default_folder(environ))
        stored = profile.read()
        values: dict[str, str | None] = {}
        sources: dict[str, str] = {}
        for name in ("server", "project", "token"):
            found = (
                ("flag", given.get(name)),
                ("environment", environ.get(f"AIRAVATA_{name.upper()}")),
                ("profile", stored.get(name) if name in SETTINGS else None),
                ("default", DEFAULT_SERVER if name == "server" else None),
            )
            sources[name], values[name] = next(
                ((origin, value) for origin, value in found if value), ("default", None)
            )
        server = (values["server"] or DEFAULT_SERVER).rstrip("/")
        if not server.startswith(("http://", "https://")):
            raise BadInputError(
                f"“{server}” is not the address of a server.",
                reason=f"It came from the {sources['server']} and must start with http:// or https://.",
                hint="Set it: airavata config set server https://HOST:PORT",
            )
        return cls(
            server=server,
            project=values["project"],
            token=values["token"],
            profile=profile,
            sources=sources,
        )


class TokenSource:
    """Gives the bearer token of each request, refreshing the profile's where it lapses."""

    def __init__(self, settings: Settings) -> None:
        self._fixed = settings.token
        self._profile = settings.profile
        self._server = settings.server

    def current(self, refresh: Callable[[str], Mapping[str, Any]]) -> str | None:
        """The token to send, None when nobody is logged in."""
        if self._fixed:
            return self._fixed
        values = self._profile.read()
        if not self._is_ours(values):
            return None
        if _expires_soon(values):
            return self._profile.refreshed(values.get("access_token"), refresh)
        token = values.get("access_token")
        return str(token) if token else None

    def after_refusal(
        self, refused: str | None, refresh: Callable[[str], Mapping[str, Any]]
    ) -> str | None:
        """Another token after the server refused `refused` with 401.

        None when there is none to try.
        """
        if self._fixed or not self._is_ours(self._profile.read()):
            return None
        try:
            return self._profile.refreshed(refused, refresh)
        except NotAllowedError:
            return None

    def _is_ours(self, values: Mapping[str, Any]) -> bool:
        """Whether the stored tokens belong to the server that we talk to.

        A token is shown to no other.
        """
        return str(values.get("server") or DEFAULT_SERVER).rstrip("/") == self._server
