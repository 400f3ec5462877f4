"""OpenBao: where secrets live. The only module that reads and writes them.

A value is put into an envelope with its path and a random `write_id`, wrapped by the transit key,
and written to the KV v2 engine by check-and-set. The database names version and `write_id`; what
is read must be exactly that. So an OpenBao that was restored to an older state is noticed when a
secret is used, even where the version's number is the same.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import hvac

from airavata_scheduler.backends.openbao_http import (
    PAUSE_S,
    TRY_FOR_S,
    CheckAndSetFailed,
    NothingThere,
    SecretsUnavailable,
    Server,
)
from airavata_scheduler.backends.openbao_login import LoggedIn, login_of
from airavata_scheduler.backends.openbao_transit import Transit, key_version_of
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import Conflict, Unavailable
from airavata_scheduler.models.fields import canonical_json

# A standby answers reads itself and may be behind by a moment: longer, and the store is behind.
BEHIND_FOR_S: Final = 1.0
PATHS_PER_PAGE: Final = 1000


class SecretStoreBehind(Unavailable):
    """OpenBao does not hold the version of this secret that the database names."""

    code = "secret_store_behind"

    def __init__(self) -> None:
        super().__init__(
            "OpenBao was restored to an older state than the database: it does not hold this "
            "secret as it was written last, and an older value is never used instead.",
            hint="The operator restores a newer snapshot of OpenBao; or write the secret again: "
            "airavata credential rotate",
            retry_after_s=60.0,
        )


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One version of a secret as OpenBao tells it, without its value."""

    version: int
    created_ms: int
    destroyed: bool


class OpenBao(Transit):
    """One process's access to the secrets."""

    # Values

    def write(self, path: str, value: Mapping[str, str], *, write_id: str, expected: int) -> int:
        """Write the version after `expected` (0: the first); its number.

        A lost answer does no harm: the version that is there is asked for its `write_id`. Raises
        Conflict where another version was written meanwhile.
        """
        envelope = canonical_json({"path": path, "value": dict(value), "write_id": write_id})
        wrapped = self.encrypted(envelope)
        return self._put(path, wrapped, write_id=write_id, expected=expected)

    def read(self, path: str, *, version: int, write_id: str) -> dict[str, str]:
        """The value of exactly this version. Raises SecretStoreBehind where it is another."""
        wrapped = self._wrapped(path, version, write_id)
        envelope = json.loads(self.decrypted(wrapped))
        if envelope.get("path") != path or envelope["write_id"] != write_id:
            raise SecretStoreBehind
        return {str(name): str(text) for name, text in envelope["value"].items()}

    def holds(self, path: str, *, version: int, write_id: str) -> bool:
        """Whether it has this very version; the value is not looked at."""
        stored = self._stored(path, version)
        return stored is not None and stored.get("write_id") == write_id

    def appears(self, path: str, *, version: int, write_id: str) -> bool:
        """As `holds`; a standby that is a moment behind is given that moment."""
        try:
            self._wrapped(path, version, write_id)
        except SecretStoreBehind:
            return False
        return True

    def key_version(self, path: str, *, version: int, write_id: str) -> int:
        """Which version of the transit key wraps this value. Raises SecretStoreBehind."""
        return key_version_of(self._wrapped(path, version, write_id))

    def rewrap(self, path: str, *, version: int, write_id: str) -> int:
        """Write the same value, wrapped by the newest key, as the next version; its number.

        The value is never unwrapped here. Raises SecretStoreBehind, Conflict.
        """
        wrapped = self.rewrap_text(self._wrapped(path, version, write_id))
        expected = self.current_version(path)
        return self._put(path, wrapped, write_id=write_id, expected=expected)

    def _wrapped(self, path: str, version: int, write_id: str) -> str:
        """The ciphertext of this very version; a standby that is a moment behind is asked again."""
        deadline = time.monotonic() + BEHIND_FOR_S
        while True:
            stored = self._stored(path, version)
            if stored is not None and stored.get("write_id") == write_id:
                return str(stored["wrapped"])
            if time.monotonic() > deadline:
                raise SecretStoreBehind
            time.sleep(PAUSE_S)

    def _put(self, path: str, wrapped: str, *, write_id: str, expected: int) -> int:
        """Write by check-and-set until it is known whether this write or another one won."""
        secret = {"wrapped": wrapped, "write_id": write_id}
        deadline = time.monotonic() + TRY_FOR_S

        def put(client: hvac.Client) -> int:
            made = client.secrets.kv.v2.create_or_update_secret(
                path, secret=secret, cas=expected, mount_point=self.server.credentials
            )
            return int(made["data"]["version"])

        unsure = False  # whether an answer was lost, so that what is there may be ours
        while True:
            try:
                return self.session.do(put, repeat=False)
            except SecretsUnavailable:
                unsure = True
                if self.holds(path, version=expected + 1, write_id=write_id):
                    return expected + 1
                if time.monotonic() > deadline:
                    raise
            except CheckAndSetFailed:
                # A standby that is a moment behind says so too, of its own older state.
                another = self.current_version(path) > expected
                if unsure and self.appears(path, version=expected + 1, write_id=write_id):
                    return expected + 1
                if another or time.monotonic() > deadline:
                    raise raced() from None
            time.sleep(PAUSE_S)

    def _stored(self, path: str, version: int) -> dict[str, Any] | None:
        def get(client: hvac.Client) -> dict[str, Any] | None:
            found = client.secrets.kv.v2.read_secret_version(
                path,
                version=version,
                mount_point=self.server.credentials,
                raise_on_deleted_version=True,
            )
            data = found["data"]["data"]
            return dict(data) if data else None

        try:
            return self.session.do(get)
        except NothingThere:
            return None

    # Versions

    def current_version(self, path: str) -> int:
        """The newest version at `path`; 0 where there is none."""
        return max((stored.version for stored in self.versions(path)), default=0)

    def versions(self, path: str) -> list[Stored]:
        """Every version at `path`, oldest first."""

        def look(client: hvac.Client) -> Any:
            return client.secrets.kv.v2.read_secret_metadata(
                path, mount_point=self.server.credentials
            )

        try:
            found = self.session.do(look)["data"]["versions"]
        except NothingThere:
            return []
        return [
            Stored(
                version=int(number),
                created_ms=_milliseconds(told["created_time"]),
                destroyed=bool(told["destroyed"]),
            )
            for number, told in sorted(found.items(), key=lambda item: int(item[0]))
        ]

    def now_ms(self) -> int:
        """OpenBao's own clock in milliseconds, by which versions were created; whole seconds."""

        def look(client: hvac.Client) -> Any:
            told = client.sys.read_health_status(method="GET")
            # Where the status is not 200, as a standby's, hvac gives the response itself.
            return told if isinstance(told, dict) else told.json()

        return int(self.session.do(look)["server_time_utc"]) * 1000

    def destroy(self, path: str, versions: Sequence[int]) -> None:
        """Destroy the values of these versions for good."""
        self.session.do(
            lambda client: client.secrets.kv.v2.destroy_secret_versions(
                path, versions=list(versions), mount_point=self.server.credentials
            )
        )

    def delete(self, path: str) -> None:
        """Delete every version at `path` and what is known of them."""
        self.session.do(
            lambda client: client.secrets.kv.v2.delete_metadata_and_all_versions(
                path, mount_point=self.server.credentials
            )
        )

    def paths(self) -> Iterator[str]:
        """Every path at which there is a secret, in order, asked for by the page."""
        page = self._paths_behind("")
        while page:
            yield from page
            page = self._paths_behind(page[-1]) if len(page) == PATHS_PER_PAGE else []

    def _paths_behind(self, path: str) -> list[str]:
        """One page; hvac knows no pages."""
        behind = {"after": path, "limit": PATHS_PER_PAGE}
        all_paths = f"/v1/{self.server.credentials}/metadata"
        try:
            told = self.session.do(lambda client: client.adapter.list(all_paths, params=behind))
        except NothingThere:
            return []
        return [str(name) for name in told["data"]["keys"]]

    # SSH

    def sign_ssh(self, role: str, public_key: str, *, principal: str, ttl_s: int) -> str:
        """A certificate for `public_key`, valid for `principal` and `ttl_s` seconds."""
        wanted = {
            "public_key": public_key,
            "valid_principals": principal,
            "ttl": f"{ttl_s}s",
            "cert_type": "user",
        }
        path = f"/v1/{self.server.ssh}/sign/{role}"
        made = self.session.do(lambda client: client.adapter.post(path, json=wanted))
        return str(made["data"]["signed_key"]).strip()

    def ssh_authority(self) -> str:
        """The public key that a host trusts (TrustedUserCAKeys)."""
        path = f"/v1/{self.server.ssh}/config/ca"
        made = self.session.do(lambda client: client.adapter.get(path))
        return str(made["data"]["public_key"]).strip()


def raced() -> Conflict:
    """The error for a write that came second."""
    return Conflict(
        "Somebody else changed this secret at the same moment.",
        code="secret_raced",
        hint="Look at it again, then repeat your change.",
    )


def _milliseconds(text: str) -> int:
    """A time as OpenBao writes it: RFC 3339 with nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return int(seconds * 1000) + int((fraction + "000")[:3])


_lock = threading.Lock()
_settings: dict[str, Configuration] = {}
_opened: dict[int, OpenBao] = {}  # by process: a fork has no thread that renews the token


def configure(configuration: Configuration) -> None:
    """Take the settings; whoever first asks for a secret logs in."""
    with _lock:
        for opened in _opened.values():
            opened.session.end()
        _opened.clear()
        _settings["now"] = configuration


def secrets() -> OpenBao:
    """This process's access to OpenBao. Raises ConfigurationError where no login is set."""
    with _lock:
        opened = _opened.get(os.getpid())
        if opened is None:
            configuration = _settings["now"]
            session = LoggedIn(server=Server.of(configuration), login=login_of(configuration))
            opened = _opened[os.getpid()] = OpenBao(server=session.server, session=session)
        return opened
