"""The text of an experiment or function file, YAML or JSON, as plain dictionaries and lists.

YAML is read by YAML 1.2's core rules, with PyYAML's parser beneath and our own rules for values:
`1:30:00`, `no` and `014` stay texts. What could mean two things or explode is refused with its line
and column: anchors and aliases, tags, merge keys, directives, duplicate keys, several documents,
depth beyond `MAX_DEPTH`, infinite numbers, NUL, half surrogate pairs, anything but UTF-8.

`yaml_tree` builds the tree from parser events on a stack of its own: no recursion, linear time.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from airavata_scheduler.models.errors import BadInput, TooLarge
from airavata_scheduler.models.faults import shown
from airavata_scheduler.models.json_faults import json_fault
from airavata_scheduler.models.plain_data import MAX_DEPTH, MAX_INTEGER_DIGITS, tree_fault
from airavata_scheduler.models.yaml_tree import YamlTree, refused

MAX_TEXT_BYTES = 4 * 1024 * 1024

# What YAML 1.2 (5.1) lets a stream hold, without a byte order mark inside.
_NOT_IN_YAML = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# libyaml is ten times as fast; PyYAML's own parser gives the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Document(dict[str, Any]):
    """A document's mapping, which also knows on which line each of its keys stands.

    `lines` maps paths such as `tasks.simulate.timeout` and `files[0].source` to line numbers.
    """

    lines: dict[str, int]


def parse_text(text: str | bytes, fmt: str = "yaml") -> Document:
    """The mapping that the text holds; `fmt` is `yaml` or `json`.

    A YAML text that begins with `{` is tried as JSON first, since users name files as they like.
    Raises BadInput with one sentence, line and column, or TooLarge above `MAX_TEXT_BYTES`.
    """
    decoded = _decoded(text)
    if fmt == "json":
        return _parse_json(decoded)
    if decoded.lstrip()[:1] == "{":
        try:
            return _parse_json(decoded)
        except BadInput as error:
            if error.code != "json_syntax":
                raise
    return _parse_yaml(decoded)


def _decoded(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else _encoded(text)
    if len(raw) > MAX_TEXT_BYTES:
        detail = f"the document has {len(raw):,} bytes; at most {MAX_TEXT_BYTES:,} fit"
        hint = "write long lists as ranges (1..1000), or put data in files"
        raise TooLarge(detail, code="document_too_large", hint=hint)
    for mark, name in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            raise refused("not_utf8", f"the document is {name}; save it as UTF-8", 1, 1)
    if raw.startswith(b"\xef\xbb\xbf"):
        detail = "the document begins with a byte order mark; save it as UTF-8 without BOM"
        raise refused("byte_order_mark", detail, 1, 1)
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise refused("not_utf8", "the document is not UTF-8", line, column) from None
    control = _NOT_IN_YAML.search(decoded)
    if control:
        code = "nul_character" if control[0] == "\0" else "control_character"
        detail = f"the document has the character U+{ord(control[0]):04X}"
        raise _refused_at(code, detail, decoded, control.start())
    return decoded


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        detail = "the document has half a surrogate pair"
        raise _refused_at("lone_surrogate", detail, text, error.start) from None


def _refused_at(code: str, detail: str, text: str, position: int) -> BadInput:
    line = text.count("\n", 0, position) + 1
    return refused(code, detail, line, position - text.rfind("\n", 0, position))


def _parse_json(text: str) -> Document:
    try:
        tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        detail = f"the document is not JSON: {error.msg}"
        raise refused("json_syntax", detail, error.lineno, error.colno) from None
    except (ValueError, RecursionError):
        tree = None  # the slow reader below says what and where
    fault = tree_fault(tree) or (tree is None and text.strip() != "null")
    if fault:
        code, detail, position = json_fault(text, MAX_DEPTH, MAX_INTEGER_DIGITS)
        raise _refused_at(code, detail, text, position)
    return _as_document(tree, {})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("duplicate key")
    return mapping


def _not_json(constant: str) -> Any:
    raise ValueError(constant)


def _as_document(tree: Any, lines: dict[str, int]) -> Document:
    if not isinstance(tree, dict):
        detail = f"the document must be a mapping of keys such as `tasks:`, not {shown(tree)}"
        raise refused("not_a_mapping", detail, 1, 1)
    document = Document(tree)
    document.lines = lines
    return document


def _parse_yaml(text: str) -> Document:
    tree = YamlTree()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            tree.add(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or error.context or ""
        detail = f"the document is not YAML: {problem}{_syntax_advice(problem, text, mark)}"
        raise refused("yaml_syntax", detail, line, column) from None
    except yaml.YAMLError as error:
        raise refused("yaml_syntax", f"the document is not YAML: {error}", 1, 1) from None
    return _as_document(tree.root, tree.lines)


def _syntax_advice(problem: str, text: str, mark: Any) -> str:
    """What the parser's words most often mean."""
    if "cannot start any token" in problem:
        if mark and "\t" in text.splitlines()[mark.line][: mark.column + 1]:
            return "; indent with spaces, not tabs"
        return "; put the value in quotes"
    if "mapping values are not allowed" in problem:
        return "; quote a value that has a colon, and indent keys of one mapping alike"
    if "alphabetic or numeric character" in problem:
        return "; quote a text that begins with *, & or !"
    if "expected <block end>" in problem or "did not find expected key" in problem:
        return "; keys of one mapping must be indented alike"
    return ""
