"""Reading a file in the format of `zed validate`, with the line of each of its statements.

schemaFile: spicedb_schema.zed
relationships: |-
  project:spine#owner@user:ada
assertions:
  assertTrue: ["project:spine#read@user:ada"]
  assertFalse: ["project:spine#read@user:eve"]
validation:
  project:spine#view: ["[user:ada] is <project:spine#owner>"]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.relations import Relationship

PARTS: Final = frozenset({"schema", "schemaFile", "relationships", "assertions", "validation"})
ASSERTIONS: Final = ("assertTrue", "assertFalse")

_OBJECT = re.compile(r"(\w+):([\w/-]+)#(\w+)")
_EXPECTED = re.compile(r"\[(\w+:(?:[\w/-]+|\*)(?:#\w+)?)\] is <[^<>]+>(?:/<[^<>]+>)*")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A relationship that is written, or one that is asserted, at a line of the file."""

    line: int
    relationship: Relationship


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """`said` is whether the file says that it holds."""

    line: int
    asked: Relationship
    said: bool


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """All subjects that an object's relation or permission has, each with its line."""

    line: int
    kind: str
    id: str
    permission: str
    subjects: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ValidationFile:
    """What a validation file says."""

    path: Path
    schema: str
    facts: list[Fact]
    assertions: list[Assertion]
    expectations: list[Expectation]


def read(path: Path) -> ValidationFile:
    """Read the file at `path`. Raises BadInput that names the file and the line."""
    try:
        root = yaml.compose(_text(path), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise fault(path, mark.line + 1 if mark else 1, f"not YAML: {error.problem}") from None
    parts = dict(_pairs(path, root)) if root is not None else {}
    by_name = {key.value: value for key, value in parts.items()}
    for key in parts:
        if key.value not in PARTS:
            raise fault(path, _line(key), f"a validation file has no part {key.value!r}.")
    return ValidationFile(
        path=path,
        schema=_schema(path, by_name),
        facts=list(_facts(path, by_name.get("relationships"))),
        assertions=list(_assertions(path, by_name.get("assertions"))),
        expectations=list(_expectations(path, by_name.get("validation"))),
    )


def fault(path: Path, line: int, said: str) -> BadInput:
    """The error at a line of the file."""
    return BadInput(f"{path}:{line}: {said}", code="validation_file")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}.", code="validation_file") from None


def _schema(path: Path, parts: dict[str, yaml.Node]) -> str:
    named, written = parts.get("schemaFile"), parts.get("schema")
    if named is not None and written is None:
        return _text(path.parent / _scalar(path, named))
    if written is not None and named is None:
        return _scalar(path, written)
    raise fault(path, 1, "either schemaFile or schema must be there.")


def _facts(path: Path, node: yaml.Node | None) -> Iterator[Fact]:
    if node is None:
        return
    # A block of text begins in the line behind its `|-`.
    first = _line(node) + (1 if getattr(node, "style", None) in ("|", ">") else 0)
    for number, text in enumerate(_scalar(path, node).splitlines(), first):
        stripped = text.strip()
        if stripped and not stripped.startswith("//"):
            yield Fact(line=number, relationship=_relationship(path, number, stripped))


def _assertions(path: Path, node: yaml.Node | None) -> Iterator[Assertion]:
    for key, items in _pairs(path, node):
        if key.value not in ASSERTIONS:
            raise fault(path, _line(key), f"{key.value} is not one of {', '.join(ASSERTIONS)}.")
        for line, text in _items(path, items):
            yield Assertion(
                line=line,
                asked=_relationship(path, line, text),
                said=key.value == "assertTrue",
            )


def _expectations(path: Path, node: yaml.Node | None) -> Iterator[Expectation]:
    for key, items in _pairs(path, node):
        match = _OBJECT.fullmatch(key.value)
        if match is None:
            raise fault(path, _line(key), f"{key.value!r} is not like project:spine#view.")
        kind, object_id, permission = match.groups()
        subjects = {}
        for line, text in _items(path, items):
            expected = _EXPECTED.fullmatch(text)
            if expected is None:
                raise fault(path, line, f"{text!r} is not like [user:ada] is <project:spine#owner>")
            subjects[expected.group(1)] = line
        yield Expectation(
            line=_line(key), kind=kind, id=object_id, permission=permission, subjects=subjects
        )


def _relationship(path: Path, line: int, text: str) -> Relationship:
    try:
        return Relationship.read(text)
    except ValueError as error:
        raise fault(path, line, f"{error}.") from None


def _items(path: Path, node: yaml.Node) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.ScalarNode) and not node.value:
        return
    if not isinstance(node, yaml.SequenceNode):
        raise fault(path, _line(node), "a list must stand here.")
    for item in node.value:
        yield _line(item), _scalar(path, item)


def _pairs(path: Path, node: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return
    if not isinstance(node, yaml.MappingNode):
        raise fault(path, _line(node), "a mapping must stand here.")
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise fault(path, _line(key), "a name must stand here.")
        yield key, value


def _scalar(path: Path, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise fault(path, _line(node), "a text must stand here.")
    return str(node.value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
