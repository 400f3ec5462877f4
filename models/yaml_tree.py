"""A tree of plain data from YAML's events, by YAML 1.2's core rules and ours.

`1:30:00`, `no` and `014` stay texts. Anchors, aliases, tags, merge keys, directives, duplicate keys
and several documents are refused where they stand. No recursion, and time linear in the events.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import yaml

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown
from airavata_scheduler.models.plain_data import MAX_DEPTH, MAX_INTEGER_DIGITS, value_fault

# A script is one value and a range one text, so only pasted tables are larger than this.
MAX_VALUES = 200_000
MAX_FLOAT_CHARS = 400

_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[+-]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def refused(code: str, detail: str, line: int, column: int) -> BadInput:
    """The fault of a text at a place; both count from 1."""
    return BadInput(f"{detail} (line {line}, column {column})", code=code, field="document")


class _Level:
    """One open mapping or list: what it holds so far, and the key that waits for its value."""

    __slots__ = ("key", "path", "tree")

    def __init__(self, tree: Any, path: str) -> None:
        self.tree = tree
        self.path = path
        self.key: str | None = None


class YamlTree:
    """Builds the tree from events; each event's deed is one short method."""

    def __init__(self) -> None:
        self.levels: list[_Level] = []
        self.lines: dict[str, int] = {}
        self.root: Any = None
        self.values = 0
        self.documents = 0
        self.deeds: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._mapping,
            yaml.SequenceStartEvent: self._sequence,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }

    def add(self, event: Any) -> None:
        """Take one event of the parser."""
        deed = self.deeds.get(type(event))
        if deed is not None:
            deed(event)

    def _document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            raise _at(event, "several_documents", "a second document begins; one file has one")
        if event.tags or event.version not in {None, (1, 2)}:
            raise _at(event, "yaml_directive", "directives such as %YAML 1.1 or %TAG are not taken")

    def _alias(self, event: Any) -> None:
        name = shown(event.anchor)[1:-1]
        detail = f"aliases (*{name}) are not taken; write the value out, or quote a pattern"
        raise _at(event, "yaml_alias", detail)

    def _check_node(self, event: Any) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            detail = f"more than {MAX_VALUES:,} values; write ranges (1..1000) or put rows in a CSV"
            raise _at(event, "too_many_values", detail)
        if event.anchor is not None:
            detail = f"anchors (&{shown(event.anchor)[1:-1]}) are not taken; write the value out"
            raise _at(event, "yaml_anchor", detail)
        if event.tag is not None:
            detail = f"tags ({shown(event.tag)[1:-1]}) are not taken"
            raise _at(event, "yaml_tag", detail)

    def _mapping(self, event: Any) -> None:
        self._open(event, {})

    def _sequence(self, event: Any) -> None:
        self._open(event, [])

    def _open(self, event: Any, tree: Any) -> None:
        self._check_node(event)
        if len(self.levels) >= MAX_DEPTH:
            raise _at(event, "too_deep", f"nested deeper than {MAX_DEPTH} levels")
        top = self.levels[-1] if self.levels else None
        if top is not None and isinstance(top.tree, dict) and top.key is None:
            raise _at(event, "key_not_text", "a key must be a text; quote {{…}} in values")
        self.levels.append(_Level(tree, self._path()))

    def _end(self, _event: Any) -> None:
        self._put(self.levels.pop().tree)

    def _path(self) -> str:
        """Where the next value will stand."""
        if not self.levels:
            return ""
        top = self.levels[-1]
        if isinstance(top.tree, list):
            return f"{top.path}[{len(top.tree)}]"
        return f"{top.path}.{top.key}" if top.path else str(top.key)

    def _scalar(self, event: Any) -> None:
        self._check_node(event)
        text: str = event.value
        fault = value_fault(text)
        if fault:
            raise _at(event, *fault)
        top = self.levels[-1] if self.levels else None
        if top is not None and isinstance(top.tree, dict) and top.key is None:
            self._take_key(event, top, text)
        else:
            self._put(text if event.style else _plain(event, text))

    def _take_key(self, event: Any, top: _Level, key: str) -> None:
        if key == "<<" and not event.style:
            raise _at(event, "yaml_merge", "merge keys (<<) are not taken; write the keys out")
        if key in top.tree:
            raise _at(event, "duplicate_key", f"the key {shown(key)} stands here twice")
        top.key = key
        # Paths of deep trees would be long: no key of the format lies deeper than this.
        if len(self.levels) <= 6 and len(key) <= 64:
            self.lines[self._path()] = event.start_mark.line + 1

    def _put(self, value: Any) -> None:
        if not self.levels:
            self.root = value
            return
        top = self.levels[-1]
        if isinstance(top.tree, list):
            top.tree.append(value)
        else:
            top.tree[top.key] = value
            top.key = None


def _plain(event: Any, text: str) -> Any:
    """The value of an unquoted scalar by YAML 1.2's core rules, but without leading zeros."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        raise _at(event, "not_finite", f"{text} is not a number here; quote it for a text")
    if _INTEGER.fullmatch(text) or _OTHER_BASE.fullmatch(text):
        if len(text) > MAX_INTEGER_DIGITS:
            detail = f"a number of {len(text)} digits is too large; quote it for a text"
            raise _at(event, "number_too_large", detail)
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        # float() of a million digits would take long
        number = float(text) if len(text) <= MAX_FLOAT_CHARS else math.inf
        if not math.isfinite(number):
            raise _at(event, "not_finite", f"{shown(text)} is too large for a number")
        return number
    return text


def _at(event: Any, code: str, detail: str) -> BadInput:
    mark = event.start_mark
    return refused(code, detail, mark.line + 1, mark.column + 1)
