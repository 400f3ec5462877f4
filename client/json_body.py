"""JSON that can be sent: what the server would refuse unread is refused here, with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from airavata_scheduler.client.errors import BadInputError

_MOST_SHOWN_CHARS = 80


def encoded(value: Any) -> bytes:
    """`value` as JSON in UTF-8.

    Raises `BadInputError` with the field of a number that is not finite, of text that is no UTF-8,
    or of a document that is nested too deep to be written.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (UnicodeEncodeError, ValueError):  # the first is a kind of the second
        for field, cause in _faults(value, ""):
            raise _refused(field, cause) from None
        raise
    except RecursionError:
        raise BadInputError(
            "The document is nested too deep to be sent.", hint="Nest it less.", code="too_deep"
        ) from None


def decoded(text: str) -> Any:
    """The value of a JSON text, as strict as the server reads it.

    Raises ValueError for what is no JSON, for a key that stands twice, and for too deep nesting.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key “{twice[:_MOST_SHOWN_CHARS]}” stands twice")
    return found


def _faults(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """(field, what is wrong there) of each value that JSON or UTF-8 cannot carry."""
    if isinstance(value, dict):
        for name, item in value.items():
            below = f"{field}.{_shown(name)}" if field else _shown(name)
            yield from _faults(name, below)
            yield from _faults(item, below)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _faults(item, f"{field}[{index}]")
    elif isinstance(value, str) and not _is_text(value):
        yield field, "holds half of a surrogate pair, which is no text"
    elif isinstance(value, float) and value - value != 0.0:
        yield field, f"is {value}, which is not a finite number"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: Any) -> str:
    return str(name)[:_MOST_SHOWN_CHARS].encode("ascii", "backslashreplace").decode()


def _refused(field: str, cause: str) -> BadInputError:
    return BadInputError(
        f"{field or 'The value'} {cause}.",
        hint="Correct the value, or leave it out.",
        code="not_sendable",
        field=field or None,
    )
