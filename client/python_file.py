"""A Python function in a file, read without running the file.

The annotations and defaults give the typed parameters, the docstring's first line the description.
The whole file travels as source; on the agent it is loaded as a module, not as `__main__`.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.json_body import decoded

SOURCE_LIMIT_BYTES = 1024 * 1024
_TYPES = {"int": "int", "float": "float", "bool": "bool", "str": "string"}


def read_python_function(path: Path, name: str) -> dict[str, Any]:
    """The function's spec, as POST /functions takes it.

    Raises `BadInputError` for a file or function that cannot be used, and says why.
    """
    source = _source_of(path)
    try:
        module = ast.parse(source, filename=path.name)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise BadInputError(
            f"{path} is not valid Python{f', line {line}' if line else ''}.",
            reason=f"{getattr(error, 'msg', error)}.",
        ) from error
    definition = _definition(module, path, name)
    _refuse_neighbours(module, path)
    return {
        "kind": "python",
        "description": _first_line(ast.get_docstring(definition)),
        "parameters": parameters_of(definition),
        "python": {"entry": name, "source": source, "codec": "json"},
    }


def _source_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BadInputError(f"There is no file {path}.") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read.", reason=error.strerror) from error
    if len(content) > SOURCE_LIMIT_BYTES:
        raise BadInputError(f"{path} is larger than {SOURCE_LIMIT_BYTES // 1024} KiB.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not UTF-8 text.") from error


def _definition(module: ast.Module, path: Path, name: str) -> ast.FunctionDef:
    """The module-level `def` called `name`."""
    found = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    for node in reversed(found):  # a later definition replaces an earlier one
        if node.name == name:
            return node
    if any(isinstance(node, ast.AsyncFunctionDef) and node.name == name for node in module.body):
        raise BadInputError(
            f"{name} in {path} is an async function.",
            hint="Write a plain one that calls asyncio.run(…).",
        )
    names = [node.name for node in found]
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    hint = f"It has: {', '.join(nearest)}." if nearest else "It defines no function at all."
    raise BadInputError(f"{path} has no function “{name}”.", hint=hint)


def _refuse_neighbours(module: ast.Module, path: Path) -> None:
    """Raises `BadInputError` for an import of a file beside this one: only one file travels."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.level:
            name = "." * node.level + (node.module or "")
            raise BadInputError(
                f"{path} imports “{name}” relatively; only this file is sent.",
                hint="Put what it needs into it, or use the SDK's Executor, which sends all.",
            )
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            beside = (path.parent / f"{top}.py").exists() or (
                path.parent / top / "__init__.py"
            ).exists()
            if beside and top != path.stem:
                raise BadInputError(
                    f"{path} imports “{top}”, which lies beside it; only this file is sent.",
                    hint="Put what it needs into it, or use the SDK's Executor, which sends all.",
                )


def parameters_of(definition: ast.FunctionDef) -> dict[str, dict[str, Any]]:
    """The typed parameters; {} (take any) where one of them has no type that can be declared.

    Raises `BadInputError` for `*args` and positional-only parameters: calls name their arguments.
    """
    arguments = definition.args
    if arguments.vararg or arguments.posonlyargs:
        raise BadInputError(
            f"{definition.name} takes arguments without names.",
            reason="A call gives its arguments by name.",
            hint="Remove * or / from its definition.",
        )
    plain = [*arguments.args, *arguments.kwonlyargs]
    missing: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults, *arguments.kw_defaults]
    declared: dict[str, dict[str, Any]] = {}
    for argument, default in zip(plain, defaults, strict=True):
        parameter = _parameter(argument.annotation, default)
        if parameter is None or arguments.kwarg is not None:
            return {}
        declared[argument.arg] = parameter
    return declared


def _parameter(annotation: ast.expr | None, default: ast.expr | None) -> dict[str, Any] | None:
    """One parameter's declaration, None where its type or default has no name in our format."""
    value: Any = None
    if default is not None:
        try:
            value = ast.literal_eval(default)
        except ValueError:
            return None
        if value is None:
            return None
    type_ = _TYPES.get(_annotated_name(annotation)) if annotation else None
    choices = _choices(annotation)
    if choices:
        declared: dict[str, Any] = {"type": "choice", "choices": choices}
    elif annotation is not None:
        declared = {"type": type_}
    else:
        declared = {"type": _TYPES.get(type(value).__name__)}
    if declared["type"] is None:
        return None
    if declared["type"] == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return declared if default is None else {**declared, "default": value}


def _annotated_name(annotation: ast.expr) -> str:
    """The annotation as text; a string annotation is what is in it."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value.strip()
    return ast.unparse(annotation)


def _choices(annotation: ast.expr | None) -> list[str]:
    """The texts of `Literal["a", "b"]`, else []."""
    if not isinstance(annotation, ast.Subscript):
        return []
    if ast.unparse(annotation.value) not in ("Literal", "typing.Literal"):
        return []
    try:
        values = ast.literal_eval(annotation.slice)
    except ValueError:
        return []
    values = list(values) if isinstance(values, tuple) else [values]
    return values if all(isinstance(value, str) for value in values) else []


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0].strip()


def typed_arguments(
    texts: Mapping[str, str], declared: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """`k=v` texts as values: text where the function declares text, else JSON where it is JSON."""
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if declared.get(name, {}).get("type") in ("string", "path", "choice"):
            values[name] = text
            continue
        try:
            values[name] = decoded(text)
        except ValueError:
            values[name] = text
    return values
