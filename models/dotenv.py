"""Reading a `.env` file."""

from __future__ import annotations

import re
from pathlib import Path

from airavata_scheduler.models.errors import ConfigurationError

_DOTENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file: NAME=value, quotes optional, `#` comments.

    Raises ConfigurationError naming the line that is neither.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(stripped)
        if match is None:
            raise ConfigurationError(
                f"{path} line {number} is neither NAME=value nor a comment.",
                hint="Write one NAME=value on each line.",
            )
        variables[match[1]] = _unquoted(match[2])
    return variables


def _unquoted(text: str) -> str:
    if text[:1] in {'"', "'"}:
        end = text.find(text[0], 1)
        if end > 0:
            return text[1:end]
    return re.split(r"\s+#", text, maxsplit=1)[0].strip()
