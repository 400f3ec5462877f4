"""What may stand in a document at all, whether it came as YAML, as JSON or within a request."""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 20


def tree_fault(tree: Any) -> tuple[str, str] | None:
    """The first thing in plain data that cannot be stored, as (code, sentence); None where it can.

    For data that arrived as JSON within a request, and after a fast reader that is not strict.
    """
    waiting: list[tuple[Any, int]] = [(tree, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                return "too_deep", f"the document is nested deeper than {MAX_DEPTH} levels"
            if isinstance(value, dict):
                waiting.extend((key, depth) for key in value)
                value = value.values()
            waiting.extend((entry, depth + 1) for entry in value)
        else:
            fault = value_fault(value)
            if fault:
                return fault
    return None


def value_fault(value: Any) -> tuple[str, str] | None:
    """What is wrong with one text, number or nothing, as (code, sentence)."""
    if isinstance(value, str):
        if "\0" in value:
            return "nul_character", "a text has a NUL character"
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            return "lone_surrogate", "a text has half a surrogate pair"
    elif isinstance(value, float) and not math.isfinite(value):
        return "not_finite", "NaN and Infinity are not numbers here"
    elif isinstance(value, int) and abs(value) >= 10**MAX_INTEGER_DIGITS:
        return "number_too_large", f"a number has more than {MAX_INTEGER_DIGITS} digits"
    elif value is not None and not isinstance(value, int | float):
        return "not_plain", "the document holds something other than text, numbers and lists"
    return None
