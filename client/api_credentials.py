"""Credentials of the typed SDK: secrets that open resources, and who may use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from airavata_scheduler.client.api_shares import Shared
from airavata_scheduler.client.collection import path_of, without_none
from airavata_scheduler.client.records import Record

ResourceKind = Literal["compute", "storage"]


@dataclass(frozen=True, kw_only=True)
class Credential(Record):
    """A credential without its value; `public` is what may be shown, `may` what we may do."""

    id: str
    name: str
    kind: str
    owner: str = ""
    description: str = ""
    version: int = 1
    secret_version: int = 1
    public: dict[str, Any] = field(default_factory=dict)
    may: list[str] = field(default_factory=list)
    created_at: datetime | None = None
    rotated_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Revealed(Record):
    """The value itself; never printed by `repr`."""

    id: str
    version: int
    value: dict[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class CredentialVersion(Record):
    """One value that a credential had: when, by whom and why, never what."""

    number: int
    reason: str
    state: str
    created_at: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Binding(Record):
    """A resource that a credential opens."""

    kind: str
    id: str
    name: str


@dataclass(frozen=True, kw_only=True)
class ConnectionTest(Record):
    """How a test by a real connection went."""

    ok: bool
    detail: str
    target: str = ""
    took_ms: int = 0
    host_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class CredentialExplanation(Record):
    """Which credential opens a resource for us, and why that one or none."""

    resource: str
    chosen: str | None
    detail: str
    hidden: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)


class Credentials(Shared[Credential]):
    """The credentials that we may see. Values are sent and revealed, never listed."""

    path = "/credentials"
    noun = "credential"
    record = Credential

    def replace(self, name: str, **value: Any) -> Credential:
        """Put another value (`value=` or `generate=`) in place of the present one, at once."""
        answer = self.transport.call(
            "PUT", path_of(self.path, name, "value"), body=without_none(value)
        )
        return Credential.from_json(answer)

    def rotate(self, name: str, *, keep_previous_s: int | None = None, **value: Any) -> Credential:
        """Let another value count from now on; the one before stays usable for a time."""
        body = without_none({"keep_previous_s": keep_previous_s, **value})
        return Credential.from_json(self.transport.post(path_of(self.path, name, "rotate"), body))

    def reveal(self, name: str, *, version: int | None = None) -> Revealed:
        """The value. It takes a permission of its own, and is audited."""
        body = without_none({"version": version})
        return Revealed.from_json(self.transport.post(path_of(self.path, name, "reveal"), body))

    def history(self, name: str) -> Iterator[CredentialVersion]:
        """The values that it had, newest first."""
        return self.pages(path_of(self.path, name, "versions"), CredentialVersion)

    def bindings(self, name: str) -> list[Binding]:
        """The resources that it opens."""
        answer = self.transport.get(path_of(self.path, name, "bindings"))
        return [Binding.from_json(item) for item in answer["items"]]

    def bind(self, name: str, kind: ResourceKind, resource: str) -> Binding:
        """Let it open a resource, for those who may use both."""
        body = {kind: resource}
        return Binding.from_json(self.transport.post(path_of(self.path, name, "bindings"), body))

    def unbind(self, name: str, kind: ResourceKind, resource: str) -> None:
        """End a binding, at once."""
        self.transport.call("DELETE", path_of(self.path, name, "bindings"), query={kind: resource})

    def test(self, name: str, target: Mapping[str, str]) -> ConnectionTest:
        """Try it by a real connection, to `{"target": …}`, `{"compute": …}` or `{"storage": …}`."""
        answer = self.transport.post(path_of(self.path, name, "test"), dict(target))
        return ConnectionTest.from_json(answer)

    def explain(self, kind: ResourceKind, resource: str) -> CredentialExplanation:
        """Which credential opens a resource for us, and why."""
        answer = self.transport.get("/credential-resolution", **{kind: resource})
        return CredentialExplanation.from_json(answer)
