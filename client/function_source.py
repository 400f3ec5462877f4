"""A Python function as source text, where that is enough to run it elsewhere.

It is enough when everything that the function reaches is in the text itself: builtins, modules of
the standard library, things imported from them, plain constants, and other functions of which the
same is true. Source runs on any Python of the agent's, a bundle only on our own version.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any


class NotSourceError(Exception):
    """The function needs more than its source."""


def source_of(function: Callable[..., Any]) -> str | None:
    """A module's text that defines `function` under its own name, None where text is not enough."""
    if _importable(function):
        return f"{_line(function.__name__, function)}\n"
    if not isinstance(function, types.FunctionType):
        return None
    lines: dict[str, str] = {}
    try:
        _collect(function, lines, own_name=function.__name__)
    except NotSourceError:
        return None
    # Annotations are not run, so that they may name what only exists here.
    return "from __future__ import annotations\n\n" + "\n\n".join(lines.values()) + "\n"


def _collect(function: types.FunctionType, lines: dict[str, str], *, own_name: str) -> None:
    """Add to `lines` (name → text) what `function` needs, then itself."""
    if own_name in lines:
        return
    text = _definition(function)
    lines[own_name] = ""  # a recursive function meets itself here
    for name in sorted(_globals_read(function.__code__)):
        if name not in function.__globals__:
            if hasattr(builtins, name):
                continue
            raise NotSourceError(name)
        value = function.__globals__[name]
        if value is not function and name not in lines:
            _add(name, value, lines)
    del lines[own_name]  # to stand after what it needs
    lines[own_name] = text


def _add(name: str, value: Any, lines: dict[str, str]) -> None:
    """Add the line that makes `name` mean `value`."""
    if isinstance(value, types.FunctionType) and value.__name__ == name and not _importable(value):
        _collect(value, lines, own_name=name)
        return
    lines[name] = _line(name, value)


def _line(name: str, value: Any) -> str:
    if isinstance(value, types.ModuleType):
        if not _is_standard(value.__name__):
            raise NotSourceError(name)
        return f"import {value.__name__} as {name}"
    if _is_constant(value):
        return f"{name} = {value!r}"
    if _importable(value):
        return f"from {value.__module__} import {value.__qualname__} as {name}"
    raise NotSourceError(name)


def _definition(function: types.FunctionType) -> str:
    """The function's own text, if it is a plain module-level `def`."""
    flags = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    if function.__closure__ or function.__code__.co_flags & flags:
        raise NotSourceError(function.__name__)
    if function.__qualname__ != function.__name__ or hasattr(function, "__wrapped__"):
        raise NotSourceError(function.__name__)
    try:
        text = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError) as error:
        raise NotSourceError(function.__name__) from error
    definition = tree.body[0] if len(tree.body) == 1 else None
    if not isinstance(definition, ast.FunctionDef) or definition.decorator_list:
        raise NotSourceError(function.__name__)
    if definition.name != function.__name__:
        raise NotSourceError(function.__name__)
    # Defaults were computed here, once; only constants are certain to be the same there.
    for default in [*definition.args.defaults, *definition.args.kw_defaults]:
        if default is not None and not _is_literal(default):
            raise NotSourceError(function.__name__)
    return text.rstrip()


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _globals_read(code: types.CodeType) -> Iterator[str]:
    """Names that the code, or a function inside it, may look up outside itself."""
    import dis  # noqa: PLC0415 - only needed where a function is sent

    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            raise NotSourceError(str(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_read(constant)


def _is_standard(module: str | None) -> bool:
    return bool(module) and str(module).partition(".")[0] in sys.stdlib_module_names


def _importable(value: Any) -> bool:
    """Whether `value` is found under its own name in a module of the standard library."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not _is_standard(module) or module == "__main__" or not name or "." in name:
        return False
    return getattr(sys.modules.get(str(module)), name, None) is value


def _is_constant(value: Any) -> bool:
    """Whether `repr` writes exactly the value (of exact builtin types, finite)."""
    if type(value) in (list, dict, set):
        return False  # mutable: the function may rely on sharing it
    if type(value) is tuple:
        return all(_is_constant(entry) for entry in value)
    if type(value) is float:
        return value == value and value not in (float("inf"), float("-inf"))  # noqa: PLR0124
    return value is None or type(value) in (bool, int, str, bytes)
