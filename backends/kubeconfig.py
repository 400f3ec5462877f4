"""A kubeconfig as a credential: whole in itself, and harmless to read.

Only what stands in the text is used. A kubeconfig that names files, starts programs (`exec`,
`auth-provider`), goes through a proxy, speaks plain HTTP or leaves the server unverified is
refused: on the scheduler's machine each of these would act with the scheduler's rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airavata_scheduler.backends import client_certificates, jwt_facts
from airavata_scheduler.backends.credential_fields import (
    Field,
    Kind,
    Value,
    checked,
    decoded,
    invalid,
)
from airavata_scheduler.backends.private_keys import PrivateKey, read_private_key
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.experiment_text import parse_text
from airavata_scheduler.models.faults import shown_key

MAX_ENTRIES = 100
MAX_NAME_CHARS = 255
_FIELD = "kubeconfig"
_FLATTEN = "Write one that holds everything: kubectl config view --raw --flatten --minify"
_SERVICE_ACCOUNT = "Use a token of a service account: kubectl create token NAME --duration 8760h"

_CLUSTER_KEYS = {
    "server",
    "certificate-authority-data",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "disable-compression",
    "extensions",
}
_USER_KEYS = {"token", "client-certificate-data", "client-key-data", "extensions"}
_CONTEXT_KEYS = {"cluster", "user", "namespace", "extensions"}
# Why a key is refused, and what to do instead.
_REFUSED = {
    "exec": ("starts a program", _SERVICE_ACCOUNT),
    "auth-provider": ("asks a plugin for its token", _SERVICE_ACCOUNT),
    "tokenFile": ("names a file", _FLATTEN),
    "client-certificate": ("names a file", _FLATTEN),
    "client-key": ("names a file", _FLATTEN),
    "certificate-authority": ("names a file", _FLATTEN),
    "proxy-url": ("names a proxy", "Leave it out; the server must be reached directly."),
    "username": ("is basic authentication, which Kubernetes has dropped", _SERVICE_ACCOUNT),
    "password": ("is basic authentication, which Kubernetes has dropped", _SERVICE_ACCOUNT),
    "as": ("acts as somebody else", "Send the credential of that user."),
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """One context: which server, verified by what, and who we are there."""

    name: str
    cluster: str
    user: str
    namespace: str
    server: str
    server_name: str | None
    authority: str | None
    token: str | None = field(repr=False)
    chain: str | None
    key: PrivateKey | None = field(repr=False)

    @property
    def expires_at(self) -> int | None:
        """When the client certificate or the token ends, in ms since 1970."""
        if self.chain is not None:
            first = client_certificates.read_chain(_FIELD, self.chain)[0]
            return int(first.not_valid_after_utc.timestamp() * 1000)
        return jwt_facts.expires_at(self.token) if self.token else None


class Kubeconfig(Kind):
    """A kubeconfig with everything inside: no plugin, no file, no proxy."""

    name = "KUBECONFIG"
    opens = frozenset({"KUBERNETES"})
    schemes = ("https",)
    fields = (Field(name=_FIELD, meaning="the text of the kubeconfig.", secret=True, lines=True),)

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value; public are contexts, servers and users' names. Raises BadInput."""
        clean = checked(cls.fields, value)
        current, contexts = contexts_of(clean[_FIELD])
        public = {
            "current_context": current,
            "contexts": [
                {
                    "name": one.name,
                    "cluster": one.cluster,
                    "user": one.user,
                    "namespace": one.namespace,
                    "server": one.server,
                }
                for one in contexts.values()
            ],
            "servers": sorted({one.server for one in contexts.values()}),
            "users": sorted({one.user for one in contexts.values()}),
        }
        return Value(secret=clean, public=public, expires_at=contexts[current].expires_at)


def contexts_of(text: str) -> tuple[str, dict[str, Access]]:
    """The current context's name and every context. Raises BadInput naming the place."""
    document = _document(text)
    if document.get("kind", "Config") != "Config" or document.get("apiVersion", "v1") != "v1":
        raise _faulty("kind", "is not Config of apiVersion v1", _FLATTEN)
    clusters = {name: _cluster(name, of) for name, of in _named(document, "clusters", "cluster")}
    users = {name: _user(name, of) for name, of in _named(document, "users", "user")}
    contexts = {
        name: _access(name, of, clusters, users)
        for name, of in _named(document, "contexts", "context")
    }
    current = document.get("current-context") or next(iter(contexts))
    if current not in contexts or (not document.get("current-context") and len(contexts) > 1):
        hint = "Choose one: kubectl config use-context NAME"
        raise _faulty("current-context", "names none of the contexts", hint)
    return current, contexts


def _document(text: str) -> dict[str, Any]:
    try:
        return parse_text(text)
    except BadInput as error:
        # The reader's own words may quote the text, which is secret: only the place is said.
        place = error.detail[error.detail.rfind("(line") :] if "(line" in error.detail else ""
        fault = f"is not the YAML of one kubeconfig {place}".rstrip()
        raise invalid(_FIELD, fault, _FLATTEN) from None


def _faulty(place: str, fault: str, hint: str) -> BadInput:
    return BadInput(
        f"kubeconfig: {place} {fault}.",
        code="credential_invalid",
        field=f"{_FIELD}.{place}",
        hint=hint,
    )


def _named(document: dict[str, Any], many: str, one: str) -> list[tuple[str, dict[str, Any]]]:
    entries = document.get(many)
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_ENTRIES:
        raise _faulty(many, f"is no list of 1 to {MAX_ENTRIES} entries", _FLATTEN)
    found: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        place = f"{many}[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get(one), dict):
            raise _faulty(place, f"is no entry with a name and a {one}", _FLATTEN)
        name = _label(f"{place}.name", entry.get("name"))
        if name in found:
            raise _faulty(place, "has a name that another entry has", _FLATTEN)
        found[name] = entry[one]
    return list(found.items())


def _label(place: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        raise _faulty(place, "is no name", _FLATTEN)
    if not value.isprintable():
        raise _faulty(place, "has a control character", _FLATTEN)
    return value


def _known_only(place: str, entry: dict[str, Any], known: set[str]) -> None:
    for key in entry:
        if key in known:
            continue
        fault, hint = _REFUSED.get(key, ("is not a key that is used here", _FLATTEN))
        raise _faulty(f"{place}.{shown_key(key)}", fault, hint)


def _cluster(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    place = f"clusters.{shown_key(name)}"
    _known_only(place, entry, _CLUSTER_KEYS)
    if entry.get("insecure-skip-tls-verify", False) is not False:
        hint = "Put the authority's certificate into certificate-authority-data."
        raise _faulty(f"{place}.insecure-skip-tls-verify", "leaves the server unverified", hint)
    server = _label(f"{place}.server", entry.get("server"))
    if urlsplit(server).scheme != "https" or "@" in server:
        hint = "Write it as https://host:port."
        raise _faulty(f"{place}.server", "is no https address", hint)
    authority = None
    if "certificate-authority-data" in entry:
        at = f"{_FIELD}.{place}.certificate-authority-data"
        authority = decoded(at, entry["certificate-authority-data"])
        client_certificates.check_authority(at, authority)
    named = entry.get("tls-server-name")
    if named is not None:
        _label(f"{place}.tls-server-name", named)
    return {"server": server, "authority": authority, "server_name": named}


def _user(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    place = f"users.{shown_key(name)}"
    _known_only(place, entry, _USER_KEYS)
    token = entry.get("token")
    if token is not None and (not isinstance(token, str) or not _is_token(token)):
        raise _faulty(f"{place}.token", "is no token", _SERVICE_ACCOUNT)
    if ("client-key-data" in entry) != ("client-certificate-data" in entry):
        hint = "Send both client-certificate-data and client-key-data."
        raise _faulty(place, "has half of a client certificate", hint)
    if "client-key-data" not in entry:
        if token is None:
            raise _faulty(place, "has neither a token nor a client certificate", _SERVICE_ACCOUNT)
        return {"token": token, "chain": None, "key": None}
    at = f"{_FIELD}.{place}"
    key_text = decoded(f"{at}.client-key-data", entry["client-key-data"]).replace("\r\n", "\n")
    key = read_private_key(f"{at}.client-key-data", key_text)
    chain = decoded(f"{at}.client-certificate-data", entry["client-certificate-data"])
    client_certificates.of_key(f"{at}.client-certificate-data", chain, key)
    return {"token": token, "chain": chain, "key": key}


def _is_token(text: str) -> bool:
    return bool(text) and all("!" <= character <= "~" for character in text)


def _access(
    name: str,
    entry: dict[str, Any],
    clusters: Mapping[str, dict[str, Any]],
    users: Mapping[str, dict[str, Any]],
) -> Access:
    place = f"contexts.{shown_key(name)}"
    _known_only(place, entry, _CONTEXT_KEYS)
    cluster, user = entry.get("cluster"), entry.get("user")
    if not isinstance(cluster, str) or cluster not in clusters:
        raise _faulty(f"{place}.cluster", "names none of the clusters", _FLATTEN)
    if not isinstance(user, str) or user not in users:
        raise _faulty(f"{place}.user", "names none of the users", _FLATTEN)
    namespace = _label(f"{place}.namespace", entry.get("namespace") or "default")
    return Access(
        name=name,
        cluster=cluster,
        user=user,
        namespace=namespace,
        **clusters[cluster],
        **users[user],
    )
