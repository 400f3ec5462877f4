"""Collecting every fault of a document, so that a user mends them all at once.

A reader does not stop at the first fault: it notes where (`tasks.simulate.timeout`), a stable code
and a sentence, goes on with a harmless value, and `Faults.stop_if_any` raises one BadInput with
them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from airavata_scheduler.models.errors import BadInput, FieldError

MAX_FAULTS = 50
MAX_SHOWN_CHARS = 60


def did_you_mean(word: str, words: Iterable[str]) -> str | None:
    """The nearest of `words` to `word`, without regard to case; None where none is near."""
    by_folded = {known.casefold(): known for known in words}
    near = difflib.get_close_matches(word.casefold()[:64], by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def suggestion(word: str, words: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: a near one, or the list of what there is."""
    known = list(words)
    near = did_you_mean(word, known)
    if near is not None:
        return f'; did you mean "{near}"?'
    if not known:
        return "; there are none"
    listed = ", ".join(sorted(known)[:20])
    return f"; known here: {listed}{', …' if len(known) > 20 else ''}"


def shown(value: object) -> str:
    """A value for a message: short, printable, and never able to break a log line."""
    if isinstance(value, str):
        text = value[: MAX_SHOWN_CHARS + 1]
    elif isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    elif value is None:
        return "nothing"
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif isinstance(value, int) and abs(value) >= 10**MAX_SHOWN_CHARS:
        return "a huge number"  # str() of it may take long, or refuse
    else:
        text = str(value)
    cut = text[:MAX_SHOWN_CHARS] + ("…" if len(text) > MAX_SHOWN_CHARS else "")
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut) + '"'


def shown_key(key: object) -> str:
    """A key as part of a field path: short and printable."""
    return shown(key if isinstance(key, str) else str(type(key)))[1:-1]


class Faults:
    """The faults found so far in one document.

    `what` names the document in messages; `lines` maps field paths to the line on which the key
    stands, where the text is known.
    """

    def __init__(self, what: str, lines: Mapping[str, int] | None = None) -> None:
        self.what = what
        self.lines = lines or {}
        self.errors: list[FieldError] = []

    def add(self, field: str, code: str, detail: str) -> None:
        """Note one fault.

        At `MAX_FAULTS` reading stops with BadInput: nobody mends more at once, and looking for near
        words for a hundred thousand wrong keys would take minutes.
        """
        line = self._line_of(field)
        place = f" (line {line})" if line else ""
        self.errors.append(FieldError(field=field, code=code, detail=f"{detail}{place}"))
        if len(self.errors) >= MAX_FAULTS:
            self.stop_if_any()

    def _line_of(self, field: str) -> int | None:
        """The line of the field, or of the nearest key above it."""
        while field:
            if field in self.lines:
                return self.lines[field]
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return None

    def stop_if_any(self) -> None:
        """Raise BadInput with every fault; its `field` and `code` are those of the first."""
        if not self.errors:
            return
        first, count = self.errors[0], len(self.errors)
        detail = f"{first.field}: {first.detail}" if first.field else first.detail
        if count > 1:
            many = f"{count} faults" if count < MAX_FAULTS else f"{count} faults or more"
            detail = f"{self.what} has {many}; the first: {detail}"
        raise BadInput(detail, code=first.code, field=first.field or None, errors=self.errors)


class Section:
    """One mapping of a document, read key by key; unknown keys are faults at once."""

    def __init__(self, faults: Faults, path: str, value: Any, keys: Iterable[str]) -> None:
        self.faults = faults
        self.path = path
        self.value: dict[str, Any] = {}
        known = tuple(keys)
        if value is None:
            return
        if not isinstance(value, dict):
            faults.add(path, "not_a_mapping", f"must be a mapping of keys, not {shown(value)}")
            return
        for key, entry in value.items():
            if key in known:
                self.value[key] = entry
            else:
                detail = f"unknown key {shown(key)}{suggestion(key, known)}"
                faults.add(self.where(shown_key(key)), "unknown_key", detail)

    def where(self, key: str) -> str:
        """The path of one of this section's keys."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether the key is there with a value."""
        return self.value.get(key) is not None

    def fault(self, key: str, code: str, detail: str) -> None:
        """Note a fault of one key."""
        self.faults.add(self.where(key), code, detail)

    def text(self, key: str, default: str = "", *, max_chars: int = 1000) -> str:
        """A text of at most `max_chars` characters."""
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fault(key, "not_a_text", f"must be a text, not {shown(value)}; put it in quotes")
            return default
        if len(value) > max_chars:
            self.fault(key, "too_long", f"has {len(value)} characters; at most {max_chars} fit")
            return default
        return value

    def integer(self, key: str, default: int, *, minimum: int, maximum: int) -> int:
        """A whole number between the bounds."""
        value = self.value.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(key, "not_an_integer", f"must be a whole number, not {shown(value)}")
        elif not minimum <= value <= maximum:
            detail = f"must be from {minimum} to {maximum}, not {shown(value)}"
            self.fault(key, "out_of_range", detail)
        else:
            return value
        return default

    def number(self, key: str, default: float, *, minimum: float, maximum: float) -> float:
        """A finite number between the bounds."""
        value = self.value.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fault(key, "not_a_number", f"must be a number, not {shown(value)}")
        elif not minimum <= value <= maximum:  # NaN compares false, so it ends here
            detail = f"must be from {minimum:g} to {maximum:g}, not {shown(value)}"
            self.fault(key, "out_of_range", detail)
        else:
            return float(value)
        return default

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.text(key, default)
        if value in choices:
            return value
        detail = f"must be {' or '.join(choices)}, not {shown(value)}"
        self.fault(key, "not_a_choice", detail)
        return default

    def items(self, key: str, *, maximum: int) -> list[Any]:
        """A list of at most `maximum` entries; a single value counts as a list of one."""
        value = self.value.get(key)
        if value is None:
            return []
        entries = value if isinstance(value, list) else [value]
        if len(entries) > maximum:
            detail = f"has {len(entries)} entries; at most {maximum} fit"
            self.fault(key, "too_many", detail)
            return []
        return entries

    def texts(self, key: str, *, maximum: int, max_chars: int = 500) -> list[str]:
        """A list of texts without an empty one or one with control characters."""
        kept = []
        for position, entry in enumerate(self.items(key, maximum=maximum)):
            where = f"{self.where(key)}[{position}]"
            if not isinstance(entry, str) or not entry.strip():
                self.faults.add(where, "not_a_text", f"must be a text, not {shown(entry)}")
            elif len(entry) > max_chars or not entry.isprintable():
                detail = f"must be one line of at most {max_chars} printable characters"
                self.faults.add(where, "not_printable", detail)
            else:
                kept.append(entry)
        return kept
