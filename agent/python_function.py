"""Loading and calling a user's Python function: as source, or as a bundle with its own unpickler.

Arguments come as JSON (an object: keyword arguments), as a pickle of `(args, kwargs)` in base64, or
as a blob file that holds such a pickle. A result goes back in the codec of the function; one above
60 kB goes to a file of the lease, which is then an artifact called `__result__`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import linecache
import pickle
import site
import sys
import traceback
import types
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
RESULT_BYTES = 60_000  # the whole result, wrapped, may have 65,536 characters on the wire
MODULE = "airavata_function"
RESULT_FILE = "result"


class LoadError(Exception):
    """The function cannot be loaded here; `failure` is what the user is told."""

    def __init__(self, code: str, message: str, trace: str = "", kind: str = "user") -> None:
        super().__init__(message)
        self.failure: Json = {"kind": kind, "code": code, "message": message}
        if trace:
            self.failure["traceback"] = trace


def python_mismatch(wanted: str | None) -> str | None:
    """Why a function made for Python `wanted` (3.11) cannot run here; None when it can.

    Byte code and pickles of functions are bound to one minor version.
    """
    if not wanted:
        return None
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if ".".join(str(wanted).split(".")[:2]) == here:
        return None
    return (
        f"The function was made with Python {wanted} and this agent runs Python {here}. "
        f"Start an agent with Python {wanted}, or register the function as source."
    )


class Function:
    """A loaded function."""

    def __init__(
        self, target: Callable[..., Any], codec: str, unpickle: Callable[[bytes], Any]
    ) -> None:
        self._target = target
        self.codec = codec
        self._unpickle = unpickle

    @classmethod
    def load(cls, python: Json, bundle: str | None) -> Function:
        """The function of a spec; `bundle` is the path of the downloaded zip. Raises LoadError."""
        _see_site_packages()
        try:
            if bundle is not None:
                return cls._from_bundle(python, Path(bundle))
            return cls._from_source(python)
        except LoadError:
            raise
        except BaseException as error:
            raise LoadError(
                "function_raised",
                f"The function's module cannot be loaded: {type(error).__name__}: {error}",
                users_traceback(error),
            ) from error

    @classmethod
    def _from_source(cls, python: Json) -> Function:
        source = str(python["source"])
        module = types.ModuleType(MODULE)
        module.__file__ = f"<{MODULE}>"
        sys.modules[MODULE] = module
        # So that tracebacks show the user's own lines.
        linecache.cache[module.__file__] = (
            len(source),
            None,
            source.splitlines(True),
            module.__file__,
        )
        exec(compile(source, module.__file__, "exec"), module.__dict__)  # noqa: S102  that is the task
        return cls(
            _entry(module, str(python["entry"])), str(python.get("codec", "json")), pickle.loads
        )

    @classmethod
    def _from_bundle(cls, python: Json, path: Path) -> Function:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            about = json.loads(archive.read("bundle.json"))
            mismatch = python_mismatch(about.get("python"))
            if mismatch is not None:
                raise LoadError("python_mismatch", mismatch, kind="policy")
            pickled = archive.read("function.pickle") if "function.pickle" in names else None
        sys.path.insert(0, str(path))
        loads: Callable[[bytes], Any] = pickle.loads
        with contextlib.suppress(ImportError):
            loads = importlib.import_module("cloudpickle").loads
        codec = str(python.get("codec", "pickle"))
        if pickled is not None:
            return cls(loads(pickled), codec, loads)
        module_name, _, name = str(about.get("entry") or python["entry"]).rpartition(":")
        return cls(_entry(importlib.import_module(module_name), name), codec, loads)

    def call(self, call: Json, folder: Path) -> Json:
        """Run one call; {"result": …} or a large result as a file in `folder`."""
        positional, named = self._arguments(call.get("arguments"))
        value = self._target(*positional, **named)
        return pack_result(value, self.codec, folder)

    def _arguments(self, arguments: Json | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if arguments is None:
            return (), {}
        if arguments["encoding"] == "json":
            data = arguments.get("data")
            if isinstance(data, list):
                return tuple(data), {}
            return (), dict(data or {})
        if "file" in arguments:
            raw = Path(arguments["file"]).read_bytes()
            if self.codec == "json":
                return (), dict(json.loads(raw))
        else:
            raw = b64decode(arguments["data"])
        positional, named = self._unpickle(raw)
        return tuple(positional), dict(named)


def pack_result(value: Any, codec: str, folder: Path) -> Json:
    """A result in its codec. Raises TypeError or ValueError when it does not fit into JSON."""
    if codec == "json":
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"the function's result does not fit into JSON: {error}") from None
        if len(text) <= RESULT_BYTES:
            return {"result": {"encoding": "json", "data": value}}
        raw = text.encode()
    else:
        raw = _pickle(value)
        data = b64encode(raw).decode()
        if len(data) <= RESULT_BYTES:
            return {"result": {"encoding": "pickle", "data": data}}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / RESULT_FILE).write_bytes(raw)
    return {"result_file": codec, "result_size": len(raw)}


def failure_of(error: BaseException, codec: str) -> Json:
    """What the user is told of an exception of the function."""
    failure: Json = {
        "kind": "user",
        "code": "function_raised",
        "message": f"{type(error).__name__}: {error}"[:2000],
        "traceback": users_traceback(error)[-32768:],
    }
    if codec == "pickle":
        # An exception that does not survive the way back still has its message and traceback.
        with contextlib.suppress(Exception):
            raw = _pickle(error.with_traceback(None))
            if len(raw) <= RESULT_BYTES // 2:
                failure["exception"] = b64encode(raw).decode()
    return failure


def users_traceback(error: BaseException) -> str:
    """The traceback from the user's first line on: the frames before it are ours."""
    ours = Path(users_traceback.__code__.co_filename).parent
    trace = error.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == ours:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _pickle(value: Any) -> bytes:
    module = sys.modules.get("cloudpickle")
    if module is not None:
        data: bytes = module.dumps(value)
        return data
    return pickle.dumps(value)


def _entry(module: types.ModuleType, name: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.rpartition(":")[2].split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise LoadError("function_raised", f"The module has no function {name!r}.")
    target: Callable[..., Any] = found
    return target


def _see_site_packages() -> None:
    """The agent runs isolated (-I -S); the user's function sees what `python3` would see."""
    if "sitecustomize" not in sys.modules and not any("-packages" in path for path in sys.path):
        site.main()
        site.addsitedir(site.getusersitepackages())
