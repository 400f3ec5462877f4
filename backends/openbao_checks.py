"""Is OpenBao as the scheduler needs it? Each fault is one sentence with the next step.

What is wrong with the settings or with OpenBao's set-up stops a start. That OpenBao is away or
sealed does not: agents and running tasks do without it, and it comes back by itself.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import hvac
import requests

from airavata_scheduler.backends.openbao import OpenBao
from airavata_scheduler.backends.openbao_http import (
    NothingThere,
    SecretsRefused,
    SecretsUnavailable,
    Server,
    TokenLost,
    call,
    not_initialised,
    sealed,
)
from airavata_scheduler.backends.openbao_login import LoggedIn, login_of
from airavata_scheduler.backends.openbao_setup import ENGINES, is_engine, policy_text
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import AiravataError, ConfigurationError

AUDIT_DEVICES: Final = 2
UNSEEN: Final = "how many audit devices there are cannot be seen with this token"
_SET_UP: Final = "Set it up with an administrator's token: airavata-scheduler secrets set-up"
_RULE = re.compile(r'path "([^"]+)" \{\s*capabilities = \[([^\]]*)\]')
_PROBE: Final = "start-up-check"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong; with `stops` no server or daemon starts."""

    detail: str
    hint: str
    stops: bool = True


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a look at OpenBao found."""

    faults: list[Fault]
    audit_devices: int | None  # None: the token may not see them

    @property
    def seen(self) -> str:
        """One line for the operator where nothing is wrong."""
        audit = UNSEEN if self.audit_devices is None else f"{self.audit_devices} audit devices"
        return f"engines, key and policy are as they must be; {audit}"


def look(configuration: Configuration) -> Found:
    """Look at everything; what cannot be seen because of a fault is not looked at."""
    try:
        server = checked_server(configuration)
        session = LoggedIn(server=server, login=login_of(configuration))
        check_health(server)
        client = server.client(session.login.token())
    except AiravataError as error:
        return Found(faults=[_fault(error)], audit_devices=None)
    try:
        found = _look_inside(client, server)
        passing = [*_in_clear(server), *_ending(client, session)]
        return Found(faults=found.faults + passing, audit_devices=found.audit_devices)
    except AiravataError as error:
        return Found(faults=[_fault(error)], audit_devices=None)
    except TokenLost:
        token = "OPENBAO_TOKEN" if session.login.can_repeat is False else "the AppRole's token"
        fault = Fault(
            detail=f"OpenBao refuses {token}: it has ended, was revoked, or is another server's.",
            hint="Set a new OPENBAO_TOKEN, or OPENBAO_ROLE_ID and OPENBAO_SECRET_ID_FILE.",
        )
        return Found(faults=[fault], audit_devices=None)
    finally:
        if session.login.can_repeat:
            with suppress(AiravataError, TokenLost):
                call(client.auth.token.revoke_self, repeat=False)


def checked_server(configuration: Configuration) -> Server:
    """The server of the settings. Raises ConfigurationError where they cannot be right."""
    ca_file = configuration.openbao_ca_file
    if ca_file is not None and not os.access(ca_file, os.R_OK):
        raise ConfigurationError(
            f"OPENBAO_CA_FILE {ca_file} cannot be read.",
            hint="Name the PEM file of the authority that signed OpenBao's certificate.",
        )
    return Server.of(configuration)


def check_health(server: Server) -> None:
    """Ask whether it serves. Raises SecretsUnavailable where it is away, sealed or empty."""
    client = server.client(None)
    try:
        told = call(lambda: client.sys.read_health_status(method="GET"), repeat=False)
    finally:
        client.adapter.close()
    health = told if isinstance(told, dict) else _json(told)
    if not health.get("initialized", True):
        raise not_initialised()
    if health.get("sealed"):
        raise sealed()


def check_now(openbao: OpenBao) -> None:
    """Ask whether it serves us. Raises SecretsUnavailable, SecretsRefused."""
    check_health(openbao.server)
    openbao.session.do(lambda client: client.auth.token.lookup_self(), repeat=False)


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        return dict(answer.json())
    except ValueError:
        raise SecretsUnavailable(
            "What answers at OPENBAO_ADDR is no OpenBao.",
            hint="The operator sets OPENBAO_ADDR to OpenBao's address.",
            retry_after_s=30.0,
        ) from None


def _fault(error: AiravataError) -> Fault:
    passing = isinstance(error, SecretsUnavailable)
    return Fault(detail=error.detail, hint=error.hint or "", stops=not passing)


def _look_inside(client: hvac.Client, server: Server) -> Found:
    call(client.auth.token.lookup_self)
    faults = list(_lacking(client, server))
    if not faults:
        # A mount that the policy does not name looks like one that is not there.
        faults += _missing_engines(client, server)
    if not faults:
        faults += _missing_key(client, server)
    devices = _audit_devices(client)
    if devices is not None and devices < AUDIT_DEVICES:
        faults.append(
            Fault(
                detail=f"OpenBao has {devices} audit devices; with fewer than two, one that cannot "
                "be written stops every request.",
                hint="Give it two, on different disks: config/openbao.hcl.",
                stops=False,
            )
        )
    return Found(faults=faults, audit_devices=devices)


def _in_clear(server: Server) -> Iterator[Fault]:
    parts = urlsplit(server.address)
    if parts.scheme == "http" and not _is_this_machine(str(parts.hostname)):
        yield Fault(
            detail="OPENBAO_ADDR is without TLS: the token and every secret cross the network in "
            "clear.",
            hint="Give OpenBao a certificate; set OPENBAO_ADDR to https://… and OPENBAO_CA_FILE.",
            stops=False,
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ending(client: hvac.Client, session: LoggedIn) -> Iterator[Fault]:
    """A token of OPENBAO_TOKEN whose end comes whatever is done; an AppRole gives new ones."""
    told: Any = call(client.auth.token.lookup_self)["data"]
    if told["expire_time"] and not told.get("period") and not session.login.can_repeat:
        yield Fault(
            detail=f"OPENBAO_TOKEN is not periodic: it ends at {told['expire_time'][:19]}Z, "
            "renewed it lives longer, but not for ever.",
            hint="Make a periodic one (bao token create -policy=airavata-scheduler -period=24h), "
            "or use OPENBAO_ROLE_ID: docs/secrets.md.",
            stops=False,
        )


def _lacking(client: hvac.Client, server: Server) -> Iterator[Fault]:
    """What the policy of this version names and the token may not do."""
    needed = {
        path.replace("*", _PROBE): set(re.findall(r'"(\w+)"', names))
        for path, names in _RULE.findall(policy_text(server))
    }
    told: Any = call(
        lambda: client.adapter.post("/v1/sys/capabilities-self", json={"paths": list(needed)})
    )
    for path, capabilities in needed.items():
        allowed = set(told["data"].get(path, ()))
        lacking = sorted(capabilities - allowed)
        if lacking and "root" not in allowed:
            shown = path.replace(_PROBE, "*")
            yield Fault(
                detail=f"OpenBao's policy lacks {', '.join(lacking)} on {shown}.",
                hint="Write it as this prints it: airavata-scheduler secrets policy",
            )


def _missing_engines(client: hvac.Client, server: Server) -> Iterator[Fault]:
    for setting, path, engine in (
        ("OPENBAO_CREDENTIALS_PATH", server.credentials, "kv"),
        ("OPENBAO_TRANSIT_PATH", server.transit, "transit"),
        ("OPENBAO_SSH_PATH", server.ssh, "ssh"),
    ):
        told = _mount(client, path)
        if told is None:
            yield Fault(detail=f"OpenBao has no {path}/ ({setting}).", hint=_SET_UP)
        elif not is_engine(told, engine):
            yield Fault(
                detail=f"OpenBao's {path}/ ({setting}) is not {ENGINES[engine]}.",
                hint="Name another mount, then: airavata-scheduler secrets set-up",
            )


def _mount(client: hvac.Client, path: str) -> dict[str, Any] | None:
    try:
        told: Any = call(lambda: client.adapter.get(f"/v1/sys/internal/ui/mounts/{path}"))
    except (TokenLost, NothingThere, SecretsRefused):
        return None
    # The longest mount that holds the path is told: another one than ours, perhaps.
    return dict(told["data"]) if told["data"]["path"] == f"{path}/" else None


def _missing_key(client: hvac.Client, server: Server) -> Iterator[Fault]:
    """Encrypting makes a key that is missing, where the token may: so whether it may is seen."""
    path = f"{server.transit}/encrypt/{server.key}"
    try:
        if _may(client, f"{server.transit}/keys/{server.key}", "read"):
            call(lambda: client.adapter.get(f"/v1/{server.transit}/keys/{server.key}"))
        else:
            call(lambda: client.adapter.post(f"/v1/{path}", json={"plaintext": ""}))
    except (TokenLost, NothingThere, SecretsRefused):
        yield Fault(
            detail=f"OpenBao has no transit key {server.key} in {server.transit}/ "
            "(OPENBAO_TRANSIT_KEY).",
            hint=_SET_UP,
        )


def _audit_devices(client: hvac.Client) -> int | None:
    if not _may(client, "sys/audit", "sudo"):
        return None
    told: Any = call(lambda: client.adapter.get("/v1/sys/audit"))
    return len(told["data"])


def _may(client: hvac.Client, path: str, capability: str) -> bool:
    told: Any = call(
        lambda: client.adapter.post("/v1/sys/capabilities-self", json={"paths": [path]})
    )
    return bool({capability, "root"} & set(told["data"][path]))
