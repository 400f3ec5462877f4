"""What the owner of this machine allows: a local INI file that the server cannot change.

    [limits]
    max_cpu = 8            ; cores for all payloads together, and for one
    max_ram_mb = 16000
    max_gpu = 0
    max_time = 24h         ; of one payload
    max_log_mb = 16        ; of one log stream
    nice = 5

    [allow]
    scripts = yes          ; shell scripts and programs
    python = yes           ; Python functions
    interpreters = /bin/sh, /bin/bash, /usr/bin/env python3   ; first lines that scripts may have
    environment = SCRATCH, MODULEPATH                          ; passed through to payloads
    paths = /scratch/me    ; where OUTPUT_DIR may lie

Without a file everything is allowed within what the machine has.
"""

from __future__ import annotations

import configparser
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airavata_scheduler.agent.faults import BadSetting
from airavata_scheduler.agent.settings import duration_s

_KNOWN = {
    "limits": {"max_cpu", "max_ram_mb", "max_gpu", "max_time", "max_log_mb", "nice"},
    "allow": {"scripts", "python", "interpreters", "environment", "paths"},
}


@dataclass(frozen=True)
class Policy:
    """The owner's limits; None means: no limit but the machine's own."""

    max_cpu: int | None = None
    max_ram_mb: int | None = None
    max_gpu: int | None = None
    max_time_s: float | None = None
    max_log_mb: int = 16
    nice: int = 0
    scripts: bool = True
    python: bool = True
    interpreters: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def refusal(self, spec: dict[str, Any], timeout_s: float | None) -> str | None:
        """Why this spec may not run here; None when it may."""
        if spec["kind"] == "python" and not self.python:
            return "the owner of this agent does not allow Python functions"
        if spec["kind"] != "python":
            reason = self._script_refusal(str(spec.get("script") or ""))
            if reason is not None:
                return reason
        if self.max_time_s is not None and timeout_s is not None and timeout_s > self.max_time_s:
            return f"it may run for {timeout_s:g} s, this agent allows {self.max_time_s:g} s"
        return self._size_refusal(spec)

    def _size_refusal(self, spec: dict[str, Any]) -> str | None:
        for key, limit, unit in (
            ("cpu", self.max_cpu, "cores"),
            ("ram_mb", self.max_ram_mb, "MB of memory"),
            ("gpu", self.max_gpu, "GPUs"),
        ):
            wanted = spec.get(key) or 0
            if limit is not None and wanted > limit:
                return f"it needs {wanted} {unit}, this agent allows {limit}"
        return None

    def _script_refusal(self, script: str) -> str | None:
        if not self.scripts:
            return "the owner of this agent does not allow scripts"
        if not self.interpreters:
            return None
        first = interpreter_of(script)
        if first in self.interpreters:
            return None
        return f"the owner of this agent does not allow the interpreter {first!r}"

    def time_limit_s(self, timeout_s: float | None) -> float | None:
        """The wall-clock limit of one payload: its own, else the owner's."""
        return self.max_time_s if timeout_s is None else timeout_s

    def to_json(self) -> dict[str, Any]:
        """What the server is told, so that it need not offer what would be refused."""
        return {
            "max_cpu": self.max_cpu,
            "max_ram_mb": self.max_ram_mb,
            "max_gpu": self.max_gpu,
            "max_time_s": self.max_time_s,
            "scripts": self.scripts,
            "python": self.python,
            "interpreters": list(self.interpreters),
        }


def interpreter_of(script: str) -> str:
    """The interpreter line of a script, without `#!`; /bin/sh where there is none."""
    first = script.split("\n", 1)[0]
    if not first.startswith("#!"):
        return "/bin/sh"
    return " ".join(first[2:].split())


def read_policy(path: Path) -> Policy:
    """The policy in `path`; all defaults when there is no such file.

    Raises BadSetting for an unknown key, a malformed value, or a file that others may write.
    """
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";", "#"))
    try:
        status = path.stat()
        if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
            raise BadSetting(
                f"The policy file {path} can be changed by other users; run: chmod go-w {path}"
            )
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Policy()
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise BadSetting(f"The policy file {path} cannot be read: {error}") from error
    _check_names(path, parser)
    try:
        return _policy(parser)
    except ValueError as error:
        raise BadSetting(f"The policy file {path} has a malformed value: {error}.") from error


def _check_names(path: Path, parser: configparser.ConfigParser) -> None:
    for section in parser.sections():
        if section not in _KNOWN:
            raise BadSetting(f"The policy file {path} has an unknown section [{section}].")
        for key in parser[section]:
            if key not in _KNOWN[section]:
                names = ", ".join(sorted(_KNOWN[section]))
                raise BadSetting(
                    f"The policy file {path} has an unknown key {key!r}; known: {names}."
                )


def _policy(parser: configparser.ConfigParser) -> Policy:
    def whole(key: str) -> int | None:
        text = parser.get("limits", key, fallback="").strip()
        if not text:
            return None
        number = int(text)
        if number < 0:
            raise ValueError(f"{key} = {text} is negative")
        return number

    def words(key: str) -> tuple[str, ...]:
        text = parser.get("allow", key, fallback="")
        return tuple(" ".join(shlex.split(word)) for word in text.split(",") if word.strip())

    limit = parser.get("limits", "max_time", fallback="").strip()
    log_mb = whole("max_log_mb")
    return Policy(
        max_cpu=whole("max_cpu"),
        max_ram_mb=whole("max_ram_mb"),
        max_gpu=whole("max_gpu"),
        max_time_s=duration_s(limit, "max_time") if limit else None,
        max_log_mb=16 if log_mb is None else max(1, log_mb),
        nice=min(19, whole("nice") or 0),
        scripts=parser.getboolean("allow", "scripts", fallback=True),
        python=parser.getboolean("allow", "python", fallback=True),
        interpreters=words("interpreters"),
        environment=words("environment"),
        paths=words("paths"),
    )
