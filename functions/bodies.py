"""Request bodies: strict JSON, read once, before anything else sees them.

Python's parser accepts NaN, duplicate keys, lone surrogates and NUL, and dies of deep nesting; some
of our stores then refuse what it accepted. So every body is checked here and nowhere else.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any, NoReturn

from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from airavata_scheduler.models.errors import AiravataError, BadInput, TooLarge
from airavata_scheduler.models.faults import shown_key
from airavata_scheduler.models.json_faults import field_at, json_fault

MAX_DEPTH = 64  # deeper documents are mistakes or attacks; Python's own limit is about 1,000
MAX_DIGITS = 300  # no number that we store is longer, and int() refuses 4,300
MAX_WALKED_CHARS = 1 << 16  # so far a fault's field is looked for

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# What the exact reader calls the faults of numbers.
_OUR_CODES = {"not_finite": "number_out_of_range", "number_too_large": "number_out_of_range"}
_LEAVE_OUT = "Leave the character out."
_PACK_AGAIN = "Pack it once, whole, or leave Content-Encoding out."


# What reading a body raises: gunicorn's faults of chunks, and a connection that breaks.
UNREADABLE = (OSError, ParseException)


class BadJson(AiravataError):
    """The request's body is not valid JSON."""

    status = 400
    code = "bad_json"


class UnsupportedMediaType(AiravataError):
    """The request's body is not JSON."""

    status = 415
    code = "unsupported_media_type"


class IncompleteBody(AiravataError):
    """The request's body did not arrive whole."""

    status = 400
    code = "body_incomplete"


def incomplete_body() -> IncompleteBody:
    """The error for a body that ends before its length, or whose chunks cannot be read."""
    return IncompleteBody(
        "The body ended before its Content-Length, or its chunks are malformed; nothing was done.",
        hint="Send it again, whole.",
    )


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises BadJson for text that is not JSON, and BadInput for JSON that cannot be stored: duplicate
    keys, NaN and Infinity, numbers out of range, lone surrogates, NUL, or more than 64 levels.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(
            f"The body is not UTF-8: byte {error.start} does not fit.", hint="Send JSON in UTF-8."
        ) from None
    _check_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except json.JSONDecodeError as error:
        raise BadJson(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            field=_field_at(text, error.pos),
            hint="Send one JSON object in UTF-8, without a byte order mark.",
        ) from None
    except BadInput as error:
        error.field = _field_of(text, error.code) or error.field
        raise
    if "\\u" in text:  # only an escape can smuggle these past the UTF-8 decoder and the parser
        _check_texts(value)
    return value


def _field_of(text: str, code: str) -> str | None:
    """The field of the first fault, where it is one of this code: the parser's hooks know no field.

    Walking a text costs more than parsing it, so only what a person may have written is walked.
    """
    if len(text) > MAX_WALKED_CHARS:
        return None
    found, _, position = json_fault(text, MAX_DEPTH, MAX_DIGITS)
    return _field_at(text, position) if _OUR_CODES.get(found, found) == code else None


def _field_at(text: str, position: int) -> str | None:
    return (field_at(text, position) or None) if position <= MAX_WALKED_CHARS else None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of an object's pairs, for the parser. Raises BadInput for a key that comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadInput(
                    f"The key {shown_key(key)} is given twice in one object.",
                    code="duplicate_key",
                    field=shown_key(key),
                    hint="Keep one of them.",
                )
            seen.add(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _out_of_range(f"{name} is not a JSON number.")


def _out_of_range(detail: str) -> BadInput:
    return BadInput(
        detail, code="number_out_of_range", hint="Send a finite number, or leave it out."
    )


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _out_of_range(f"The number {text[:40]} is out of range.")
    return value


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _out_of_range(f"A number of {len(text)} digits is out of range.")
    return int(text)


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the recursive parser sees it; brackets in strings do not count."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        mark = token.group()
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BadInput(
                    f"The document is nested more than {MAX_DEPTH} levels deep.",
                    code="too_deep",
                    field=_field_at(text, token.start()),
                    hint="Nest it less, or send it as a file.",
                )
        elif mark in "]}":
            depth -= 1


def _check_texts(value: Any, field: str = "") -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise BadInput(
                "The text contains a NUL character.",
                code="nul",
                field=field or None,
                hint=_LEAVE_OUT,
            )
        if _LONE_SURROGATE.search(value):
            raise BadInput(
                "The text contains half of a surrogate pair.",
                code="lone_surrogate",
                field=field or None,
                hint=_LEAVE_OUT,
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            below = f"{field}.{shown_key(key)}" if field else shown_key(key)
            _check_texts(key, below)
            _check_texts(item, below)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_texts(item, f"{field}[{index}]")


class StrictRequest(Request):
    """A request whose JSON body is an object, checked by `parse_json`."""

    _document: dict[str, Any] | None = None

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        """As Flask's, and never a part: half a document may be a document.

        Raises IncompleteBody; werkzeug itself trusts that the server's stream ends where it should.
        """
        try:
            data = super().get_data(*args, **kwargs)
        except UNREADABLE:
            raise incomplete_body() from None
        if self.content_length is not None and len(data) < self.content_length:
            raise incomplete_body()
        return data

    def body_bytes(self) -> bytes:
        """The body, unpacked if it came with `Content-Encoding: gzip`.

        Raises TooLarge beyond MAX_BODY_BYTES, packed or unpacked, and UnsupportedMediaType for any
        other encoding.
        """
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise UnsupportedMediaType(
                "Only gzip is understood as Content-Encoding.",
                field="Content-Encoding",
                hint="Send the body as it is, or packed with gzip.",
            )
        try:
            data = self.get_data(cache=True)
        except RequestEntityTooLarge:
            raise _too_large(self.max_content_length) from None
        return data if encoding == "identity" else _gunzip(data, self.max_content_length)

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body as a dict; an absent body is an empty object.

        Never silent: flask-openapi3 asks for silence and would then report a wrong body as missing
        fields. Raises BadJson, BadInput, TooLarge or UnsupportedMediaType.
        """
        del force, silent, cache
        if self._document is None:
            self._document = self._read_document()
        return self._document

    def _read_document(self) -> dict[str, Any]:
        data = self.body_bytes()
        if not data.strip():
            return {}
        if self.mimetype and not self.is_json:
            raise UnsupportedMediaType(
                f"The body is {shown_key(self.mimetype)}, and this request takes JSON.",
                field="Content-Type",
                hint="Send Content-Type: application/json.",
            )
        value = parse_json(data)
        if not isinstance(value, dict):
            raise not_an_object()
        return value


def not_an_object() -> BadInput:
    """The error for a body that is JSON, but no object."""
    return BadInput(
        "The body must be a JSON object.",
        code="not_an_object",
        hint='Send an object: {"name": value, …}.',
    )


def _gunzip(data: bytes, limit: int | None) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, (limit or 0) + 1 if limit else 0)
    except zlib.error as error:
        raise BadJson(f"The body is not gzip: {error}.", hint=_PACK_AGAIN) from None
    if limit and len(unpacked) > limit:
        raise _too_large(limit)
    if not unpacker.eof:
        raise BadJson("The gzip body ends too early.", hint=_PACK_AGAIN)
    if unpacker.unused_data:
        # A second member is as good gzip as the first: to leave it out would lose what it says.
        raise BadJson("Something follows the end of the gzip body.", hint=_PACK_AGAIN)
    return unpacked


def _too_large(limit: int | None) -> TooLarge:
    return TooLarge(
        f"The body is larger than the {limit} bytes that this server takes (MAX_BODY_BYTES).",
        hint="Send less at once; files go as blobs.",
    )
