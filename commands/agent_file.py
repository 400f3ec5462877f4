"""The agent as one file: a zip that `python3` runs, the same bytes from the same sources.

Entries are sorted and carry one fixed time, so two builds on two machines are equal, and
anybody can check the hash that `install.sh` prints.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

PROGRAM = "airavata-agent.pyz"
_AGENT = Path(__file__).parents[1] / "agent"
_SHEBANG = b"#!/usr/bin/env python3\n"
_FIXED_TIME = (2020, 1, 1, 0, 0, 0)
_FOLDERS = ("airavata_scheduler/", "airavata_scheduler/agent/")


def build(target: Path) -> str:
    """Write the agent to `target` in one step; its SHA-256 in hexadecimal."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(_SHEBANG)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in _FOLDERS:
                # Without entries for the folders a zip cannot hold a namespace package.
                archive.writestr(_entry(name, 0o755), b"")
            for source in sorted(_AGENT.glob("*.py")):
                data = source.read_bytes()
                archive.writestr(_entry(f"airavata_scheduler/agent/{source.name}", 0o644), data)
            archive.writestr(_entry("__main__.py", 0o644), (_AGENT / "__main__.py").read_bytes())
    temporary.chmod(0o755)
    temporary.replace(target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def cached_agent_file() -> Path:
    """The agent of this version in the user's cache, built where it is missing or older."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "airavata-scheduler" / f"{_sources_digest()}-{PROGRAM}"
    if not target.is_file():
        build(target)
    return target


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(_AGENT.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def _entry(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_FIXED_TIME)
    entry.create_system = 3  # Unix, whatever built it
    folder_bit = 0o040000 if name.endswith("/") else 0o100000
    entry.external_attr = (folder_bit | mode) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
