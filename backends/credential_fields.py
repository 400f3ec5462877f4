"""What every kind of credential is made of: named fields of text, some of them secret.

`checked` turns what a caller sent into clean text: known names only, every required one there, no
control characters, at most `MAX_VALUE_BYTES` together. A message names the field and the next step
and never has a piece of a value in it, since any field may hold a secret by mistake.
"""

from __future__ import annotations

import abc
import base64
import binascii
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import did_you_mean, shown_key

MAX_VALUE_BYTES = 64 * 1024
MAX_LINE_BYTES = 4096
MAX_TOKEN_BYTES = 16 * 1024  # as much as servers take in a header


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a kind's value.

    `secret` says whether it may never be shown. `lines` allows a text of several lines, such as PEM
    (CR LF becomes LF, a missing last newline is added). `token` takes printable ASCII without
    blanks, and forgives the newline that a file ends with.
    """

    name: str
    meaning: str
    secret: bool = False
    required: bool = True
    lines: bool = False
    token: bool = False


@dataclass(frozen=True, kw_only=True)
class Value:
    """A credential's value that was read and found good.

    `secret` has every field as it is kept in the secret store; `public` is what anybody who may see
    the credential may know; `expires_at` is in milliseconds since 1970.
    """

    secret: Mapping[str, str] = field(repr=False)
    public: Mapping[str, Any]
    expires_at: int | None = None


class Kind(abc.ABC):
    """One kind of credential; the first line of its docstring is its sentence for users.

    `opens` are the kinds of resources that it may be bound to, `schemes` what it is tested by.
    `is_sent`: a test shows the secret itself to the server, so that whoever names the server might
    read it.
    """

    name: ClassVar[str]
    opens: ClassVar[frozenset[str]]
    schemes: ClassVar[tuple[str, ...]]
    fields: ClassVar[tuple[Field, ...]]
    is_sent: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value with its public part. Raises BadInput that names the field."""


def invalid(name: str, fault: str, hint: str, code: str = "credential_invalid") -> BadInput:
    """The error for a field: `fault` is the rest of a sentence that begins with its name."""
    return BadInput(f"{name} {fault}.", code=code, field=name, hint=hint)


def _unknown(name: str, known: Iterable[str]) -> BadInput:
    """The error for a name that no field has. What is no misspelling may be a secret: not shown."""
    fields = list(known)
    near = did_you_mean(name, fields)
    said = (
        "The value has a name that is no field of this kind."
        if near is None
        else f'{shown_key(name)} is no field of this kind; did you mean "{near}"?'
    )
    return BadInput(
        said,
        code="unknown_field",
        field="value" if near is None else shown_key(name),
        hint=f"Its fields are {', '.join(fields)}.",
    )


def checked(fields: Sequence[Field], value: Mapping[str, str]) -> dict[str, str]:
    """The fields of `value` as clean text; empty optional ones are left out.

    Raises BadInput with the name of the first field that is wrong.
    """
    known = {one.name: one for one in fields}
    for name in value:
        if name not in known:
            raise _unknown(str(name), known)
    clean = {}
    for name, one in known.items():
        text = _text(one, value.get(name))
        if text:
            clean[name] = text
        elif one.required:
            raise BadInput(
                f"{name} is missing.", code="missing_field", field=name, hint=f"It is {one.meaning}"
            )
    if sum(len(text.encode()) for text in clean.values()) > MAX_VALUE_BYTES:
        longest = max(clean, key=lambda name: len(clean[name]))
        raise _too_long(longest, MAX_VALUE_BYTES)
    return clean


def _text(one: Field, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(one.name, "is no text", "Send it as a JSON string.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise invalid(one.name, "has half a character", "Send it as UTF-8.") from None
    limit = MAX_TOKEN_BYTES if one.token else MAX_VALUE_BYTES if one.lines else MAX_LINE_BYTES
    if size > limit:
        raise _too_long(one.name, limit)
    if one.lines:
        return _several_lines(one.name, value)
    if one.token:
        return _token(one.name, value)
    return _one_line(one.name, value)


def _too_long(name: str, limit: int) -> BadInput:
    return invalid(
        name, f"is longer than {limit // 1024} KiB", "Send only the credential, nothing else."
    )


def _several_lines(name: str, text: str) -> str:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    if any(_is_control(character) and character not in "\n\t" for character in text):
        raise invalid(name, "has a control character", "Send the text of the file, unchanged.")
    return text + "\n" if text.strip() else ""


def _token(name: str, text: str) -> str:
    text = text.rstrip("\r\n")
    if not all("!" <= character <= "~" for character in text):
        hint = "Copy it alone, without blanks, quotes or a word such as Bearer before it."
        raise invalid(name, "has a blank or a character that is not ASCII", hint)
    return text


def _one_line(name: str, text: str) -> str:
    if any(_is_control(character) for character in text):
        hint = "A newline at the end often comes along from a file: leave it out."
        raise invalid(name, "has a control character or a newline", hint)
    return text


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zl", "Zp")


def printable(text: str) -> str:
    """A text from within a value as it may be shown: nothing that moves a terminal, ≤ 1,000."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:1000])


def decoded(name: str, text: object) -> str:
    """The text within base64, as in a kubeconfig's `…-data` fields."""
    if not isinstance(text, str) or not text.strip():
        raise invalid(name, "is empty or no text", "It holds a PEM file in base64.")
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        hint = "Take it from `kubectl config view --raw --flatten`."
        raise invalid(name, "is not base64 of a PEM file", hint) from None
