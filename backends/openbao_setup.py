"""Setting up OpenBao for the scheduler: engines, keys, policies, the AppRole.

It takes a token that may do all that (root's, or an administrator's), and is done again without
harm. `airavata-scheduler local`, the operator's command and the tests use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import hvac

from airavata_scheduler.backends.openbao_http import NothingThere, SecretsRefused, Server, call
from airavata_scheduler.models.errors import ConfigurationError

POLICY: Final = "airavata-scheduler"
OPERATOR_POLICY: Final = "airavata-operator"
ROLE: Final = "airavata-scheduler"
# Renewed at half of it: what a thief of one token can do ends soon.
ROLE_PERIOD: Final = "1h"
WRAP_TTL: Final = "1h"
VERSIONS: Final = 100  # that the KV engine keeps of one path; ours are destroyed by name
SSH_ROLE: Final = "airavata"
SSH_MAX_TTL: Final = "15m"
ENGINES: Final = {
    "kv": "a KV engine of version 2",
    "transit": "a transit engine",
    "ssh": "an SSH engine",
}


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What the scheduler needs to log in."""

    role_id: str


def policy_text(server: Server, name: str = POLICY) -> str:
    """A policy, with the mounts and the key of `server` in the place of the default ones."""
    text = (Path(__file__).parent / f"{name}.hcl").read_text(encoding="utf-8")
    mounts = {"credentials": server.credentials, "transit": server.transit, "ssh": server.ssh}

    def ours(found: re.Match[str]) -> str:
        rest = found["rest"]
        if found["mount"] == "transit":
            rest = re.sub(r"^(/\w+)/credentials\b", rf"\1/{server.key}", rest)
        return f'path "{mounts[found["mount"]]}{rest}"'

    return re.sub(r'path "(?P<mount>credentials|transit|ssh)(?P<rest>(/[^"]*)?)"', ours, text)


def set_up(client: hvac.Client, server: Server) -> SetUp:
    """Make everything that is missing.

    Raises ConfigurationError where something else has a name of ours, SecretsUnavailable,
    SecretsRefused, TokenLost.
    """
    mounts = call(client.sys.list_mounted_secrets_engines)["data"]
    for path, engine, options in (
        (server.credentials, "kv", {"version": "2"}),
        (server.transit, "transit", None),
        (server.ssh, "ssh", None),
    ):
        if f"{path}/" not in mounts:
            _mount(client, path, engine, options)
        elif not is_engine(mounts[f"{path}/"], engine):
            raise ConfigurationError(
                f"OpenBao has something else than {ENGINES[engine]} at {path}/.",
                hint="Set OPENBAO_CREDENTIALS_PATH, OPENBAO_TRANSIT_PATH and OPENBAO_SSH_PATH to "
                "mounts of their own.",
            )
    _configure_kv(client, server)
    call(
        lambda: client.adapter.post(
            f"/v1/{server.transit}/keys/{server.key}", json={"type": "aes256-gcm96"}
        )
    )
    _set_up_ssh(client, server)
    for name in (POLICY, OPERATOR_POLICY):
        call(partial(client.sys.create_or_update_policy, name, policy_text(server, name)))
    return SetUp(role_id=_set_up_role(client))


def is_engine(told: Mapping[str, Any], engine: str) -> bool:
    """Whether what OpenBao tells of a mount is an engine of this kind."""
    version = (told.get("options") or {}).get("version")
    return told.get("type") == engine and (engine != "kv" or version == "2")


def _mount(client: hvac.Client, path: str, engine: str, options: dict[str, str] | None) -> None:
    call(lambda: client.sys.enable_secrets_engine(engine, path=path, options=options), repeat=False)


def _configure_kv(client: hvac.Client, server: Server) -> None:
    """Every write is a check-and-set, and says so; a new engine needs a moment to be one of v2."""
    call(
        lambda: client.secrets.kv.v2.configure(
            max_versions=VERSIONS, cas_required=True, mount_point=server.credentials
        )
    )


def _set_up_ssh(client: hvac.Client, server: Server) -> None:
    try:
        call(lambda: client.adapter.get(f"/v1/{server.ssh}/config/ca"))
    except (NothingThere, SecretsRefused):
        _make_authority(client, server)
    role = {
        "key_type": "ca",
        "allow_user_certificates": True,
        "allowed_users": "*",
        "allowed_extensions": "permit-pty",
        "default_extensions": {"permit-pty": ""},
        "ttl": "5m",
        "max_ttl": SSH_MAX_TTL,
    }
    call(lambda: client.adapter.post(f"/v1/{server.ssh}/roles/{SSH_ROLE}", json=role))


def _make_authority(client: hvac.Client, server: Server) -> None:
    call(
        lambda: client.adapter.post(
            f"/v1/{server.ssh}/config/ca",
            json={"generate_signing_key": True, "key_type": "ed25519"},
        ),
        repeat=False,
    )


def _set_up_role(client: hvac.Client) -> str:
    methods = call(client.sys.list_auth_methods)["data"]
    if "approle/" not in methods:
        call(lambda: client.sys.enable_auth_method("approle"), repeat=False)
    role = {
        "token_policies": [POLICY],
        "token_period": ROLE_PERIOD,
        "token_no_default_policy": True,
        "secret_id_num_uses": 0,  # the processes of one machine share it
    }
    call(lambda: client.adapter.post(f"/v1/auth/approle/role/{ROLE}", json=role))
    told: Any = call(lambda: client.adapter.get(f"/v1/auth/approle/role/{ROLE}/role-id"))
    return str(told["data"]["role_id"])


def wrapped_secret_id(client: hvac.Client, *, ttl: str = WRAP_TTL) -> str:
    """A new secret id of the role, wrapped: the token that opens it, once, within `ttl`."""
    made: Any = call(
        lambda: client.adapter.post(
            f"/v1/auth/approle/role/{ROLE}/secret-id", json={}, wrap_ttl=ttl
        ),
        repeat=False,
    )
    return str(made["wrap_info"]["token"])


def rotate_key(client: hvac.Client, server: Server) -> int:
    """Make a new version of the transit key; its number."""
    path = f"/v1/{server.transit}/keys/{server.key}"
    call(lambda: client.adapter.post(f"{path}/rotate", json={}), repeat=False)
    told: Any = call(lambda: client.adapter.get(path))
    return int(told["data"]["latest_version"])
