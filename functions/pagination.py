"""Pages of lists: `limit` and an opaque `cursor` that only we can write.

A cursor holds where the last page ended (the values of the sort columns) and for which list it was
made, signed: a forged one, or one of another list or filter, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import request
from pydantic import Field

from airavata_scheduler.functions import principals, tokens
from airavata_scheduler.functions.shapes import Query
from airavata_scheduler.models.errors import BadInput

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_SIGNATURE_BYTES = 16

Row = TypeVar("Row")


class PageQuery(Query):
    """The query of every list; lists with filters inherit it."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Items on a page")
    cursor: str | None = Field(None, max_length=2048, description="`next` of the page before")


def after(query: PageQuery) -> list[Any] | None:
    """The sort values where the page before ended, or None for the first page.

    Raises BadInput `invalid_cursor` for a cursor that we did not write for this caller and list.
    """
    if query.cursor is None:
        return None
    try:
        data = base64.urlsafe_b64decode(query.cursor.encode("ascii") + b"==")
    except (binascii.Error, ValueError):
        raise _invalid() from None
    signature, text = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(text)):
        raise _invalid()
    values: list[Any] = json.loads(text)
    return values


def page(
    rows: Sequence[Row],
    query: PageQuery,
    *,
    key: Callable[[Row], Sequence[int | str | None]],
    show: Callable[[Row], dict[str, Any]],
) -> dict[str, Any]:
    """`{"items", "next"}` of `rows`, which were read with a limit of `query.limit + 1`.

    `key` gives the sort values of a row, as `after` will return them; `show` its JSON document.
    """
    shown = rows[: query.limit]
    more = len(rows) > query.limit
    return {
        "items": [show(row) for row in shown],
        "next": _cursor(key(shown[-1])) if more and shown else None,
    }


def _cursor(values: Sequence[int | str | None]) -> str:
    text = json.dumps(list(values), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_sign(text) + text).decode("ascii").rstrip("=")


def _sign(text: bytes) -> bytes:
    principal = principals.current_or_none()
    filters = sorted(
        (name, value)
        for name, value in request.args.items(multi=True)
        if name not in ("cursor", "limit")
    )
    scope = json.dumps([principal.id if principal else None, request.path, filters]).encode()
    return hmac.digest(tokens.derived_key("cursor"), scope + b"\0" + text, "sha256")[
        :_SIGNATURE_BYTES
    ]


def _invalid() -> BadInput:
    return BadInput(
        "The cursor is not one of this list.",
        code="invalid_cursor",
        field="cursor",
        hint="Begin again without a cursor; filters must stay the same from page to page.",
    )
