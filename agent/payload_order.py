"""What a payload is started with: its clean environment and the wrapper's order."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from airavata_scheduler.agent.lease_book import Held
from airavata_scheduler.agent.policy import Policy
from airavata_scheduler.agent.processes import LEASE_MARK

Json = dict[str, Any]
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
GRACE_S = 10.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_INDEX = re.compile(r"\[(\d+)\]$", re.ASCII)
# Where the owner allows certain interpreters only, a variable must not smuggle in other code.
_SMUGGLERS = re.compile(r"(LD_|DYLD_|PYTHON|PERL5|RUBY|BASH_).*|ENV|SHELLOPTS|PS4|IFS|PATH")


def environment_refusal(held: Held, policy: Policy) -> str | None:
    """Why the lease's variables cannot be given to a payload; None when they can."""
    for variables in (held.spec.get("environment") or {}, held.offer.get("environment") or {}):
        for name, value in variables.items():
            if not _NAME.fullmatch(name) or "\0" in str(value):
                return f"the environment variable {name[:80]!r} is malformed"
            if policy.interpreters and _SMUGGLERS.fullmatch(name):
                return f"the owner of this agent does not allow setting {name}"
    return None


def base_environment(environ: Mapping[str, str], policy: Policy) -> dict[str, str]:
    """The same few variables for every payload, and what the owner passes through."""
    user = _user()
    found = {
        "PATH": environ.get("PATH") or DEFAULT_PATH,
        "HOME": environ.get("HOME") or user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "LANG": environ.get("LANG") or "C.UTF-8",
    }
    found.update({name: environ[name] for name in policy.environment if name in environ})
    return found


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        # A container may run under a number that has no name.
        name = str(os.geteuid())
        return pwd.struct_passwd((name, "", os.geteuid(), os.getegid(), "", "/", "/bin/sh"))


def lease_variables(held: Held, folder: Path) -> dict[str, str]:
    """The variables of one lease: its parameters and where it is."""
    offer = held.offer
    name = str(offer.get("name") or "")
    index = _INDEX.search(name)
    found = {
        "AIRAVATA_TASK": str(offer["task_id"]),
        "AIRAVATA_TASK_NAME": name,
        "AIRAVATA_INDEX": index.group(1) if index else "0",
        "AIRAVATA_EXPERIMENT": str(offer.get("experiment_id") or ""),
        "AIRAVATA_ATTEMPT": str(offer["attempt"]),
    }
    found.update({key: str(value) for key, value in (offer.get("environment") or {}).items()})
    if held.inputs:
        found.update({key: str(value) for key, value in held.inputs.items()})
    found["AIRAVATA_OUTPUT_DIR"] = str(folder)
    found[LEASE_MARK] = held.lease
    return found


def payload_environment(held: Held, folder: Path, base: dict[str, str]) -> dict[str, str]:
    """Everything that a script sees. Variables of the spec may refer to the site's (`$HOME`)."""
    found = {**base, "TMPDIR": str(folder / "tmp")}
    for name, value in (held.spec.get("environment") or {}).items():
        found[name] = Template(str(value)).safe_substitute(found)
    if held.gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(held.gpus)
    elif (held.spec.get("gpu") or 0) == 0:
        # A task that did not ask for a GPU must not find somebody else's.
        found["CUDA_VISIBLE_DEVICES"] = ""
    found.update(lease_variables(held, folder / "work"))
    return found


def wrapper_order(
    held: Held, folder: Path, *, base: dict[str, str], policy: Policy, boot_id: str
) -> Json:
    """The order for the wrapper of a script."""
    return {
        "lease": held.lease,
        "folder": str(folder),
        "script": held.spec.get("script") or "",
        "environment": payload_environment(held, folder, base),
        "timeout_s": policy.time_limit_s(held.offer.get("timeout_s")),
        "grace_s": GRACE_S,
        "ram_mb": int(held.spec.get("ram_mb") or 0),
        "cpu": int(held.spec.get("cpu") or 0),
        "nice": policy.nice,
        "gpus": list(held.gpus),
        "log_bytes": policy.max_log_mb << 20,
        "boot_id": boot_id,
    }


def worker_order(
    spec: Json, folder: Path, *, base: dict[str, str], policy: Policy, boot_id: str
) -> Json:
    """The order for a warm worker of a function."""
    own = {str(name): str(value) for name, value in (spec.get("environment") or {}).items()}
    return {
        "folder": str(folder),
        "python": spec["python"],
        "environment": {**base, **own},
        "nice": policy.nice,
        "boot_id": boot_id,
    }


def call_order(held: Held, folder: Path, worker: Path, policy: Policy) -> Json:
    """One call for the worker whose folder is `worker`, but for its arguments."""
    return {
        "lease": held.lease,
        "folder": str(folder),
        "environment": lease_variables(held, worker / "scratch"),
        "timeout_s": policy.time_limit_s(held.offer.get("timeout_s")),
    }
