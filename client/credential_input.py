"""How commands come to hold a secret: from a file, standard input, or a prompt.

Never from the command line, which every user of a machine can read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from airavata_scheduler.client.collection import without_none
from airavata_scheduler.client.errors import BadInputError

# What a person may type in clear; everything else may be a secret. docs/credentials.md has all.
OPEN_FIELDS: Final = frozenset(
    {"username", "access_key_id", "region", "role", "principal", "ttl", "context"}
)
# What a prompt asks for where nothing was given, by kind.
_ASKED: Final[dict[str, tuple[str, ...]]] = {
    "PASSWORD": ("username", "password"),
    "ACCESS_KEY": ("access_key_id", "secret_access_key"),
    "TOKEN": ("token",),
}

_value = click.option(
    "--value",
    "values",
    multiple=True,
    metavar="FIELD=@FILE|FIELD=-",
    help="A field from a file or standard input; user names and the like also as FIELD=TEXT.",
)
_generate = click.option("--generate", is_flag=True, help="Make the key pair on the server.")
_algorithm = click.option(
    "--algorithm",
    type=click.Choice(("ed25519", "rsa-3072", "ecdsa-p256")),
    help="Of the key pair that is made.",
)
_username = click.option("--username", help="The account that it logs in to.")


def value_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what the value is."""
    return _value(_generate(_algorithm(_username(command))))


def read_value(
    kind: str,
    values: tuple[str, ...],
    generate: bool,
    algorithm: str | None,
    username: str | None,
) -> dict[str, Any]:
    """`{"value": …}` or `{"generate": …}` of a body."""
    if generate:
        wish = without_none({"algorithm": algorithm, "username": username})
        return {"generate": wish}
    fields = dict(_field(text) for text in values)
    if username is not None:
        fields["username"] = username
    for name in _ASKED.get(kind, ()):
        if name not in fields and sys.stdin.isatty():
            fields[name] = click.prompt(name, hide_input=name not in OPEN_FIELDS, err=True)
    if not fields:
        raise BadInputError(
            "The value is missing.",
            hint=f"Add --value FIELD=@FILE; the fields of {kind} are in docs/credentials.md.",
        )
    return {"value": fields}


def _field(text: str) -> tuple[str, str]:
    """A `--value`: its field and what it says. Raises `BadInputError` for an open secret."""
    name, mark, said = text.partition("=")
    if not mark or not name:
        raise BadInputError("--value takes FIELD=@FILE or FIELD=-.", code="usage")
    if said == "-":
        return name, sys.stdin.read()
    if said.startswith("@"):
        try:
            return name, Path(said[1:]).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise BadInputError(f"{said[1:]} cannot be read: {reason}.") from None
    if name not in OPEN_FIELDS:
        raise BadInputError(
            f"{name} may be a secret, and a command line can be read by every user of the machine.",
            hint=f"Put it into a file and type --value {name}=@FILE, or pipe it in: {name}=-",
        )
    return name, said
