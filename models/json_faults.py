"""Where a JSON text breaks our rules: the slow, exact reader behind `experiment_text`.

Python's json module says that a key stands twice or that a number is NaN, but not where. This walks
the tokens once, only after the fast reader refused the text, and names the first fault's position,
or the field that stands there.
"""

from __future__ import annotations

import json
import math
import re

from airavata_scheduler.models.faults import shown_key

_TOKEN = re.compile(
    r"""
    (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<comma>,)
    | (?P<constant>NaN|-?Infinity)
    | (?P<number>-?[0-9][0-9.eE+-]*)
    """,
    re.VERBOSE | re.DOTALL,
)
_COLON = re.compile(r"[ \t\n\r]*:")
_MOST_PARTS = 16  # of a path that is shown


def json_fault(text: str, max_depth: int, max_digits: int) -> tuple[str, str, int]:
    """The first fault of a text that is JSON by its grammar, as (code, sentence, position)."""
    keys: list[set[str] | None] = []  # one entry an open container; None for a list
    for token in _TOKEN.finditer(text):
        kind, position = token.lastgroup, token.start()
        if kind == "open":
            keys.append(set() if token[0] == "{" else None)
            if len(keys) > max_depth:
                return "too_deep", f"nested deeper than {max_depth} levels", position
        elif kind == "close" and keys:
            keys.pop()
        elif kind == "string":
            found = _string_fault(token[0], text, token.end(), keys[-1] if keys else None)
            if found:
                return *found, position
        elif kind in {"constant", "number"}:
            found = _number_fault(token[0], max_digits)
            if found:
                return *found, position
    return "json_syntax", "the document cannot be read as JSON", 0


def field_at(text: str, position: int) -> str:
    """The path of what stands at `position` of a JSON text, as `tasks.a[3]`; "" at its top.

    The text may be malformed behind the position, and a key at the position is part of the path.
    """
    path: list[str | int] = []  # one entry an open container: the key or the place in it
    for token in _TOKEN.finditer(text):
        kind, start = token.lastgroup, token.start()
        if start > position or (start == position and kind != "string"):
            break
        if kind == "open":
            path.append("" if token[0] == "{" else 0)
        elif kind == "close" and path:
            path.pop()
        elif kind == "comma" and path:
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else ""
        elif kind == "string" and path and path[-1] == "" and _COLON.match(text, token.end()):
            path[-1] = _plain(token[0])
    found = ""
    for part in path[:_MOST_PARTS]:
        name = f"[{part}]" if isinstance(part, int) else shown_key(part)
        found += f".{name}" if found and name and isinstance(part, str) else name
    return found


def _plain(written: str) -> str:
    try:
        return str(json.loads(written))
    except ValueError:
        return written[1:-1]


def _string_fault(
    written: str, text: str, end: int, keys: set[str] | None
) -> tuple[str, str] | None:
    value = json.loads(written)
    if "\0" in value:
        return "nul_character", "a text has a NUL character"
    if any("\ud800" <= char <= "\udfff" for char in value):
        return "lone_surrogate", "a text has half a surrogate pair"
    if keys is not None and _COLON.match(text, end):
        if value in keys:
            return "duplicate_key", f"the key {json.dumps(value[:60])} stands here twice"
        keys.add(value)
    return None


def _number_fault(written: str, max_digits: int) -> tuple[str, str] | None:
    if written.lstrip("-")[0] in "NI":
        return "not_finite", f"{written} is not JSON"
    if re.fullmatch(r"-?[0-9]+", written):
        digits = len(written.lstrip("-"))
        if digits > max_digits:
            return "number_too_large", f"a number of {digits} digits is too large"
        return None
    if not math.isfinite(float(written)):
        return "not_finite", f"{written[:60]} is too large for a number"
    return None
