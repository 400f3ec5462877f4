"""Where a JSON text breaks our rules: the slow, exact reader behind `experiment_text`.

Python's json module says that a key stands twice or that a number is NaN, but not where. This walks
the tokens once, only after the fast reader refused the text, and names the first fault's position.
"""

from __future__ import annotations

import json
import math
import re

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
