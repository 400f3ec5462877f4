"""The stable codes that the code can say, read from its source.

A code is a lower-case word that stands where a parameter, a keyword or an attribute is called
`code`. So a new error cannot be written without being found here, and its page tells when it is
missing from the documentation.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
_CODE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(kw_only=True)
class _Source:
    """The modules of some rooms, and which functions take a code in which place."""

    trees: dict[Path, ast.Module]
    places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tree in self.trees.values():
            for node in ast.walk(tree):
                for name, function in _callables(node):
                    names = [argument.arg for argument in function.args.args]
                    if "code" in names:
                        self.places[name] = names.index("code") - (names[0] in {"self", "cls"})


def _callables(node: ast.AST) -> Iterator[tuple[str, ast.FunctionDef]]:
    """A function by its name, a constructor by its class's."""
    if isinstance(node, ast.FunctionDef):
        yield node.name, node
    elif isinstance(node, ast.ClassDef):
        yield from (
            (node.name, item)
            for item in node.body
            if isinstance(item, ast.FunctionDef) and item.name == "__init__"
        )


def codes_said(*rooms: str) -> dict[str, set[str]]:
    """Each code that a call or a class of the rooms' modules says, with who says it.

    The speaker is the called name, such as `NotFound`, `Reason` or `fault`; for an error class with
    a code of its own its name; `timeline` for the kinds of `events.add`.
    """
    source = _Source(
        trees={
            path: ast.parse(path.read_text(encoding="utf-8"))
            for room in rooms
            for path in sorted((ROOT / room).glob("*.py"))
        }
    )
    found: dict[str, set[str]] = defaultdict(set)
    for tree in source.trees.values():
        for speaker, value in _said(tree, source.places):
            for code in _texts(value):
                if _CODE.fullmatch(code):
                    found[code].add(speaker)
    return dict(found)


def _said(tree: ast.Module, places: dict[str, int]) -> Iterator[tuple[str, ast.expr]]:
    """Each (speaker, expression of the code) of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            name = called.rpartition(".")[2]
            yield from ((name, item.value) for item in node.keywords if item.arg == "code")
            place = places.get(name)
            if called.endswith("events.add"):
                yield "timeline", node.args[1]
            elif place is not None and len(node.args) > place:
                yield name, node.args[place]
        elif isinstance(node, ast.ClassDef):
            yield from ((node.name, value) for value in _attributes(node))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
            yield "variable", node.value
        elif isinstance(node, ast.Dict):
            yield from (
                ("dict", value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "code"
            )
        elif (
            isinstance(node, ast.Return)
            and isinstance(node.value, ast.Tuple)
            and len(node.value.elts) > 1
        ):
            # Checks give `code, sentence` or `code, sentence, position`.
            first, second = node.value.elts[:2]
            if isinstance(second, ast.Constant | ast.JoinedStr) or "_" in ast.unparse(first):
                yield "check", first


def _attributes(node: ast.ClassDef) -> Iterator[ast.expr]:
    for item in node.body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "code":
            yield item.value


def _texts(value: ast.expr) -> Iterator[str]:
    """The literal words of an expression, both branches of a condition among them."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _texts(value.body)
        yield from _texts(value.orelse)
