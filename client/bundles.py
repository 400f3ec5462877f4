"""How Python functions, their arguments and their results travel.

A function goes as source text where that is enough (`function_source`), else as a bundle: a zip
with the pickled function and the cloudpickle package that can unpickle it, so that an agent needs
the standard library only. A bundle holds byte code, hence it runs on our own Python version only.
Arguments and results are pickled (or JSON); what is larger than 48 KiB goes as a blob or artifact.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import inspect
import io
import json
import pickle
import site
import sys
import sysconfig
import types
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airavata_scheduler.client.errors import BadInputError, ClientError
from airavata_scheduler.client.function_source import source_of

INLINE_LIMIT_BYTES = 48 * 1024
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_PICKLE_PROTOCOL = 5  # the highest that the oldest agent's Python (3.9) reads


class NeedsBundleError(Exception):
    """An argument is of a type that only a bundle's unpickler can make again."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A function ready to travel: `python` is that part of its spec, `blob` what must be sent."""

    python: Mapping[str, Any]
    blob: bytes | None = None


def pack_source(function: Callable[..., Any], codec: str) -> Packed | None:
    """The function as source text, None where that is not enough."""
    source = source_of(function)
    if source is None:
        return None
    return Packed(
        python={
            "entry": function.__name__,
            "source": source,
            "codec": codec,
        }
    )


def pack_bundle(function: Callable[..., Any], codec: str) -> Packed:
    """The function as a bundle.

    Raises `BadInputError` when something that it holds cannot be pickled (an open file, a lock).
    """
    content = bundle_of(function)
    blob = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return Packed(
        python={
            "entry": "function.pickle",
            "blob": blob,
            "codec": codec,
            "requires_python": PYTHON_VERSION,
        },
        blob=content,
    )


def bundle_of(function: Callable[..., Any]) -> bytes:
    """The zip: bundle.json, function.pickle and cloudpickle; same input, same bytes."""
    cloudpickle = importlib.import_module("cloudpickle")  # slow, and seldom needed

    entries = {
        "bundle.json": json.dumps(
            {"entry": "function.pickle", "python": PYTHON_VERSION}, sort_keys=True
        ).encode(),
        "function.pickle": dumps_by_value(function),
    }
    for path in sorted(Path(str(cloudpickle.__file__)).parent.glob("*.py")):
        entries[f"cloudpickle/{path.name}"] = path.read_bytes()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(entries.items()):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return target.getvalue()


def dumps_by_value(value: Any) -> bytes:
    """Pickle with everything that only exists on this machine inside, not by name.

    Raises `BadInputError` when it cannot be pickled.
    """
    cloudpickle = importlib.import_module("cloudpickle")
    ours = [module for module in list(sys.modules.values()) if is_local_module(module)]
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled: bytes = cloudpickle.dumps(value, protocol=_PICKLE_PROTOCOL)
    except Exception as error:
        name = getattr(value, "__qualname__", type(value).__name__)
        raise BadInputError(
            f"{name} cannot be sent to an agent.",
            reason=f"{type(error).__name__}: {error}.",
            hint="Open files, locks and connections inside the function, not around it.",
        ) from error
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)
    return pickled


def pack_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], *, in_bundle: bool) -> bytes:
    """The arguments pickled as (args, kwargs).

    Raises `NeedsBundleError` when `in_bundle` is false and an argument is of a type of our own.
    """
    value = (args, dict(kwargs))
    if in_bundle:
        return dumps_by_value(value)
    target = io.BytesIO()
    try:
        _PortablePickler(target, _PICKLE_PROTOCOL).dump(value)
    except NeedsBundleError:
        raise
    except Exception as error:
        raise NeedsBundleError from error
    return target.getvalue()


class _PortablePickler(pickle.Pickler):
    """Plain pickle that refuses what only this machine could import again."""

    def reducer_override(self, obj: Any) -> Any:
        """Called for everything but exact builtin containers and scalars."""
        named = obj if isinstance(obj, type | types.FunctionType) else type(obj)
        module = sys.modules.get(str(getattr(named, "__module__", "")))
        if module is None or is_local_module(module) or module.__name__ == "__main__":
            raise NeedsBundleError(str(named))
        return NotImplemented


_INSTALLED = tuple(
    Path(folder)
    for folder in {
        *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
)


def is_local_module(module: types.ModuleType) -> bool:
    """Whether the module is the user's own: not built in, not installed, not `__main__`.

    (`__main__` is always pickled by value.) Our own package is installed wherever it is needed.
    """
    name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    if name in ("__main__", "__mp_main__") or not file or name not in sys.modules:
        return False
    if name.partition(".")[0] in (*sys.stdlib_module_names, "airavata_scheduler", "cloudpickle"):
        return False
    path = Path(file)
    return not any(path.is_relative_to(folder) for folder in _INSTALLED)


def unpack(result: Mapping[str, Any] | None, fetch: Callable[[str], bytes]) -> Any:
    """The value of a call's result; `fetch(artifact id)` gets one that is too large to be inline.

    Pickled results run code of whoever made them: call this for functions of your own project only.
    Raises `ClientError` when it cannot be decoded here.
    """
    if result is None:
        return None
    encoding = result.get("encoding", "json")
    if encoding == "json":
        if result.get("artifact"):
            return json.loads(fetch(str(result["artifact"])))
        return result.get("data")
    if result.get("artifact"):
        content = fetch(str(result["artifact"]))
    else:
        content = base64.b64decode(str(result.get("data", "")))
    try:
        return pickle.loads(content)  # noqa: S301 - said in the docstring
    except Exception as error:
        raise ClientError(
            "The result cannot be unpickled here.",
            reason=f"{type(error).__name__}: {error}.",
            hint="Import the modules of its types here, or return plain values.",
        ) from error


def named_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments by name, as JSON carries them.

    Raises `BadInputError` for arguments without a name, or that are not JSON values.
    """
    signature = inspect.signature(function)
    fixed = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL
    if any(parameter.kind in fixed for parameter in signature.parameters.values()):
        raise BadInputError(
            f"{getattr(function, '__name__', function)} takes arguments without names.",
            hint="Name them in its definition, or use codec='pickle'.",
        )
    arguments: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[name] = value
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInputError(
            "The arguments are not JSON values.",
            reason=f"{error}.",
            hint="Use numbers, text, lists and dictionaries, or codec='pickle'.",
        ) from error
    return arguments
