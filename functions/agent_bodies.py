"""Bodies of agents: raw bytes with digest and range, and batches that one item must not spoil."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from flask import request

from airavata_scheduler.functions.bodies import (
    BadJson,
    StrictRequest,
    not_an_object,
    unique_keys,
)
from airavata_scheduler.models.errors import BadInput

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{44}):\s*(?:,|$)", re.ASCII)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\*|\d{1,18})", re.ASCII)


def content_sha256() -> str:
    """The SHA-256 (hex) that the request announces. Raises BadInput without one."""
    match = _SHA256.search(request.headers.get("Content-Digest", ""))
    try:
        digest = base64.b64decode(match[1], validate=True) if match else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise BadInput(
            "The upload carries no digest.",
            code="digest_missing",
            field="Content-Digest",
            hint="Send Content-Digest: sha-256=:<base64 of the 32 bytes>:",
        )
    return digest.hex()


def content_range() -> tuple[int, int]:
    """The half-open range (start, stop) that the request's bytes have. Raises BadInput."""
    match = _RANGE.fullmatch(request.headers.get("Content-Range", "").strip())
    if match is None or int(match[2]) < int(match[1]):
        raise BadInput(
            "The upload does not say where its bytes belong.",
            code="range_missing",
            field="Content-Range",
            hint="Send Content-Range: bytes <first>-<last>/*",
        )
    return int(match[1]), int(match[2]) + 1


def body_bytes() -> bytes:
    """The request's body, unpacked where it came as gzip; at most MAX_BODY_BYTES."""
    return _incoming().body_bytes()


def lenient_document() -> dict[str, Any]:
    """The JSON object of the body, also where some value in it cannot be stored.

    A NUL or half a surrogate pair in a task's last words becomes a replacement character, NaN stays
    for the check of its own item: a batch of results is not refused for one of them. Raises BadJson
    for what is no JSON, BadInput for what is no object or says a key twice: half would be lost.
    """
    try:
        found = _incoming().get_json()
    except BadInput:
        found = _with_replacements()
    if not isinstance(found, dict):
        raise not_an_object()
    return found


def _with_replacements() -> Any:
    try:
        return _replaced(json.loads(body_bytes(), object_pairs_hook=unique_keys))
    except (ValueError, RecursionError):
        raise BadJson(
            "The body is nested too deep, or has a number that is too long.",
            hint="Send each item's values as they are, with results as artifacts.",
        ) from None


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_STORABLE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return value


def _incoming() -> StrictRequest:
    incoming = request._get_current_object()  # type: ignore[attr-defined]
    if not isinstance(incoming, StrictRequest):
        raise TypeError("the application's request class is StrictRequest")
    return incoming
