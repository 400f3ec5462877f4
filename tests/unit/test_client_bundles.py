"""How functions travel: source where that is enough, else a bundle that unpickles itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.client import bundles
from airavata_scheduler.client.errors import BadInputError, ClientError
from airavata_scheduler.client.function_source import source_of

FACTOR = 3
TABLE = [1, 2]


def hypotenuse(a: float, b: float = 4.0) -> float:
    """Needs a module, a name imported from it, a constant and a neighbour."""
    return FACTOR * sqrt(square(a) + math.pow(b, 2))


def square(x: float) -> float:
    """A neighbour."""
    return x * x


def countdown(n: int) -> int:
    """Recursive."""
    return 0 if n == 0 else countdown(n - 1)


def even(n: int) -> bool:
    """Calls its twin, which calls it."""
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    """Calls its twin."""
    return n != 0 and even(n - 1)


def shares(x: int) -> list[int]:
    """Reads a list, which it may share with others."""
    return [*TABLE, x]


def counts() -> None:
    """Writes a global."""
    global FACTOR  # noqa: PLW0603 - that is what is tested
    FACTOR = 4


def stamped(at: Any = object()) -> Any:  # noqa: B008 - that is what is tested
    """Its default is no constant."""
    return at


async def later() -> int:
    """Not a plain function."""
    return 1


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator."""

    def wrapper(x: int) -> Any:
        return function(x)

    return wrapper


@decorated
def wrapped(x: int) -> int:
    """Behind a decorator."""
    return x


@pytest.mark.parametrize(
    ("function", "call", "expected"),
    [
        (hypotenuse, "hypotenuse(3.0)", 15.0),
        (countdown, "countdown(3)", 0),
        (even, "even(7)", False),
        (math.sqrt, "sqrt(9.0)", 3.0),
        (len, "len('abc')", 3),
    ],
)
def test_source_is_complete(function: Callable[..., Any], call: str, expected: object) -> None:
    """The text alone runs on the system's interpreter, without any package."""
    text = source_of(function)
    assert text is not None

    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", f"{text}\nprint({call})"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize("function", [shares, counts, stamped, later, wrapped, lambda x: x])
def test_source_is_not_enough(function: Callable[..., Any]) -> None:
    """Whatever depends on more than its text is not sent as text."""
    assert source_of(function) is None


def test_a_bundle_runs_with_the_standard_library_only(tmp_path: Path) -> None:
    """The zip carries cloudpickle: an interpreter without packages opens and calls it."""
    offset = 5
    path = tmp_path / "bundle.zip"
    path.write_bytes(bundles.bundle_of(lambda x: x + offset))
    code = (
        f"import sys, zipfile, pickle; sys.path.insert(0, {str(path)!r}); "
        f"f = pickle.loads(zipfile.ZipFile({str(path)!r}).read('function.pickle')); print(f(1))"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout == "6\n"


def test_a_bundle_says_its_python_and_is_reproducible() -> None:
    """The same function gives the same bytes, hence one blob."""
    first, second = bundles.bundle_of(shares), bundles.bundle_of(shares)

    with zipfile.ZipFile(BytesIO(first)) as archive:
        about = json.loads(archive.read("bundle.json"))

    assert about == {"entry": "function.pickle", "python": bundles.PYTHON_VERSION}
    assert first == second


def test_what_cannot_be_sent_is_a_sentence(tmp_path: Path) -> None:
    """An open file inside a function: what it is, why, what to do."""
    with (
        (tmp_path / "x").open("w") as stream,
        pytest.raises(BadInputError, match="cannot be sent") as caught,
    ):
        bundles.bundle_of(lambda: stream)

    assert "inside the function" in str(caught.value.hint)


def test_arguments_of_own_types_need_a_bundle() -> None:
    """Plain values do not; a class of the user's own file does."""

    class Own:
        pass

    assert bundles.pack_arguments(([1, {"a": (2.0, None)}],), {"k": b"x"}, in_bundle=False)
    with pytest.raises(bundles.NeedsBundleError):
        bundles.pack_arguments((Own(),), {}, in_bundle=False)
    with pytest.raises(bundles.NeedsBundleError):
        bundles.pack_arguments((shares,), {}, in_bundle=False)


def test_results_are_unpacked_by_their_encoding() -> None:
    """JSON, large JSON, and garbage."""
    large = {"encoding": "json", "artifact": "a1", "size": 3, "sha256": "…"}

    assert bundles.unpack({"encoding": "json", "data": [1]}, lambda _: b"") == [1]
    assert bundles.unpack(large, lambda name: f'"{name}"'.encode()) == "a1"
    with pytest.raises(ClientError, match="cannot be unpickled"):
        bundles.unpack({"encoding": "pickle", "data": "AAAA"}, lambda _: b"")
