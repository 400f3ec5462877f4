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
from werkzeug.exceptions import RequestEntityTooLarge

from airavata_scheduler.models.errors import AiravataError, BadInput, TooLarge

MAX_DEPTH = 64  # deeper documents are mistakes or attacks; Python's own limit is about 1,000
MAX_DIGITS = 300  # no number that we store is longer, and int() refuses 4,300

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class BadJson(AiravataError):
    """The request's body is not valid JSON."""

    status = 400
    code = "bad_json"


class UnsupportedMediaType(AiravataError):
    """The request's body is not JSON."""

    status = 415
    code = "unsupported_media_type"


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises BadJson for text that is not JSON, and BadInput for JSON that cannot be stored: duplicate
    keys, NaN and Infinity, numbers out of range, lone surrogates, NUL, or more than 64 levels.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"The body is not UTF-8: byte {error.start} does not fit.") from None
    _check_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except json.JSONDecodeError as error:
        raise BadJson(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    if "\\u" in text:  # only an escape can smuggle these past the UTF-8 decoder and the parser
        _check_texts(value)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadInput(
                    f"The key {key!r} is given twice in one object.",
                    code="duplicate_key",
                    field=key,
                    hint="Keep one of them.",
                )
            seen.add(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise BadInput(f"{name} is not a JSON number.", code="number_out_of_range")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadInput(f"The number {text[:40]} is out of range.", code="number_out_of_range")
    return value


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise BadInput(
            f"A number of {len(text)} digits is out of range.", code="number_out_of_range"
        )
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
                    f"The document is nested more than {MAX_DEPTH} levels deep.", code="too_deep"
                )
        elif mark in "]}":
            depth -= 1


def _check_texts(value: Any, field: str = "") -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise BadInput("The text contains a NUL character.", code="nul", field=field or None)
        if _LONE_SURROGATE.search(value):
            raise BadInput(
                "The text contains half of a surrogate pair.",
                code="lone_surrogate",
                field=field or None,
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key, field)
            _check_texts(item, f"{field}.{key}" if field else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_texts(item, f"{field}[{index}]")


class StrictRequest(Request):
    """A request whose JSON body is an object, checked by `parse_json`."""

    _document: dict[str, Any] | None = None

    def body_bytes(self) -> bytes:
        """The body, unpacked if it came with `Content-Encoding: gzip`.

        Raises TooLarge beyond MAX_BODY_BYTES, packed or unpacked, and UnsupportedMediaType for any
        other encoding.
        """
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise UnsupportedMediaType(
                "Only gzip is understood as Content-Encoding.",
                hint="Send the body as it is, or packed with gzip.",
            )
        try:
            data = self.get_data(cache=True)
        except RequestEntityTooLarge:
            raise TooLarge(_too_large(self.max_content_length)) from None
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
                f"The body is {self.mimetype[:80]}, and this request takes JSON.",
                hint="Send Content-Type: application/json.",
            )
        value = parse_json(data)
        if not isinstance(value, dict):
            raise BadInput("The body must be a JSON object.", code="not_an_object")
        return value


def _gunzip(data: bytes, limit: int | None) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, (limit or 0) + 1 if limit else 0)
    except zlib.error as error:
        raise BadJson(f"The body is not gzip: {error}.") from None
    if limit and len(unpacked) > limit:
        raise TooLarge(_too_large(limit))
    if not unpacker.eof:
        raise BadJson("The gzip body ends too early.")
    return unpacked


def _too_large(limit: int | None) -> str:
    return f"The body is larger than the {limit} bytes that this server takes (MAX_BODY_BYTES)."
