"""Sweeps: the axes of a node, counted in closed form and decoded by number, never expanded.

An axis is stored as plain JSON:
- `{"kind": "list", "names": [N], "values": […]}`
- `{"kind": "range", "names": [N], "type": "int"|"float", "start", "step", "scale", "count"}`:
  point k is (start + k·step) / scale, all whole numbers, so that decimal steps are exact
- `{"kind": "zip", "names": [N, M, …], "count", "axes": […]}`: axes that advance together

Instance i of a node is decoded by mixed radix over the axes in their order in the file; the last
one advances fastest, as the innermost of nested loops would. With `foreach`, instance i belongs to
the parent's instance i // own; the parent's axes stand first in the list, so that its values come
out of the same decoding. Where the node sets a value itself, an axis without names keeps the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeVar

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown
from airavata_scheduler.models.parameters import MAX_INT, MIN_INT, Value, environment_text

MAX_EXPERIMENT_TASKS = 10**12
MAX_DECIMALS = 15

Axis = dict[str, Any]
Decoder = Callable[[int], dict[str, str]]
T = TypeVar("T")

_NUMBER = r"[+-]?[0-9]{1,19}(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?|[0-9]{1,2}\^[0-9]{1,2}"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?: +step +({_NUMBER}))?")
_LOOKS_LIKE_RANGE = re.compile(r"\s*[+-]?[0-9][^ ]*\.\.[^.].*")


def looks_like_range(value: object) -> bool:
    """Whether a text was probably meant as a range, right or wrong."""
    return isinstance(value, str) and len(value) < 200 and bool(_LOOKS_LIKE_RANGE.fullmatch(value))


def list_axis(name: str, values: list[Value]) -> Axis:
    """An axis of given values."""
    return {"kind": "list", "names": [name], "values": values}


def zip_axis(axes: list[Axis]) -> Axis:
    """Axes of equal length as one. Raises BadInput (`zip_length`) where the lengths differ."""
    counts = {axis["names"][0]: axis_count(axis) for axis in axes}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise BadInput(f"zip pairs lists of equal length: {said} values", code="zip_length")
    names = [name for axis in axes for name in axis["names"]]
    return {"kind": "zip", "names": names, "count": axis_count(axes[0]), "axes": axes}


def axis_count(axis: Mapping[str, Any]) -> int:
    """How many points an axis has."""
    return len(axis["values"]) if axis["kind"] == "list" else int(axis["count"])


def axis_values(axis: Mapping[str, Any]) -> int:
    """How many values an axis stores: none for a range, whatever its length."""
    if axis["kind"] == "zip":
        return sum(axis_values(part) for part in axis["axes"])
    return len(axis["values"]) if axis["kind"] == "list" else 0


def range_axis(name: str, text: str, kind: str) -> Axis:
    """The axis of `1..100`, `0..1 step 0.25` or `100..1 step -1`; both ends are included.

    `kind` is `int` or `float`. Raises BadInput with code `bad_range` and a sentence.
    """
    written = _RANGE.fullmatch(text.strip())
    if written is None:
        detail = f"{shown(text)} is not a range; write 1..100, 0..1 step 0.25 or 100..1 step -1"
        raise _bad(detail)
    first, last = _number(written[1]), _number(written[2])
    step = Fraction(1) if written[3] is None else _number(written[3])
    if step == 0:
        raise _bad("the step must not be 0")
    if (last - first) * step < 0:
        if written[3] is None:
            raise _bad(f"{text} counts down; write {written[1]}..{written[2]} step -1")
        raise _bad(f"a step of {written[3]} never leads from {written[1]} to {written[2]}")
    scale = 10 ** max(_decimals(number) for number in (first, last, step))
    if kind == "int" and scale != 1:
        raise _bad(f"{text} has decimals, and {name} is an int")
    start, stop, stride = (int(number * scale) for number in (first, last, step))
    count = (stop - start) // stride + 1
    return {
        "kind": "range",
        "names": [name],
        "type": kind,
        "start": start,
        "step": stride,
        "scale": scale,
        "count": count,
    }


def range_end(axis: Mapping[str, Any]) -> Value:
    """The last point of a range, which is below the written end where the step does not hit it."""
    return _point(axis, axis["count"] - 1)


def range_ends_early(axis: Mapping[str, Any], text: str) -> bool:
    """Whether the written end of a range is not one of its points."""
    last = _number(text.strip().split("..")[1].split(" ")[0])
    reached = axis["start"] + (axis["count"] - 1) * axis["step"]
    return bool(last * axis["scale"] != reached)


def _number(text: str) -> Fraction:
    base, _, power = text.partition("^")
    number = Fraction(base) ** int(power or 1)
    # 10^15 is a multiple of every denominator that at most 15 decimals can have
    if not MIN_INT <= number <= MAX_INT or 10**MAX_DECIMALS % number.denominator:
        raise _bad(f"{text} is out of range: 64 bits and at most {MAX_DECIMALS} decimals fit")
    return number


def _decimals(number: Fraction) -> int:
    """Digits after the point that are needed to write the number."""
    return next(n for n in range(MAX_DECIMALS + 1) if 10**n % number.denominator == 0)


def _point(axis: Mapping[str, Any], index: int) -> Value:
    number: int = axis["start"] + index * axis["step"]
    # int / int is correctly rounded, so 0.1 steps give 0.3 and never 0.30000000000000004
    return number if axis["type"] == "int" else number / axis["scale"]


def product(axes: list[Axis]) -> int:
    """How many points the axes have together."""
    total = 1
    for axis in axes:
        total *= axis_count(axis)
    return total


def parent_index(node_spec: Mapping[str, Any], index: int) -> int:
    """The instance of the `foreach` parent to which instance `index` belongs."""
    return index // int(node_spec["own"])


def compile_decoder(node_spec: Mapping[str, Any]) -> Decoder:
    """A fast `index -> {NAME: environment text}` for one node; keep it as long as the node is used.

    It has fixed values, axes and outputs (each output's variable holds its pattern). References are
    not in it: their paths are known at the start gate only.
    """
    shared = {name: environment_text(value) for name, value in node_spec["fixed"].items()}
    shared.update(node_spec["outputs"])
    # An output's variable wins over a parameter of the same name: it is where the file will be.
    hidden = frozenset(node_spec["outputs"])
    return _compiled(node_spec, shared, environment_text, hidden)


def decode(node_spec: Mapping[str, Any], index: int) -> dict[str, str]:
    """The environment of one instance; `compile_decoder` is for many."""
    return compile_decoder(node_spec)(index)


def typed(node_spec: Mapping[str, Any], index: int) -> dict[str, Value]:
    """The parameters of one instance as typed values: the keyword arguments of a python node."""
    return _compiled(node_spec, dict(node_spec["fixed"]), lambda value: value, frozenset())(index)


def _compiled(
    node_spec: Mapping[str, Any],
    shared: dict[str, T],
    render: Callable[[Value], T],
    hidden: frozenset[str],
) -> Callable[[int], dict[str, T]]:
    wheels = []  # fastest first: (radix, [(name, point of the digit)])
    for axis in reversed(node_spec["axes"]):
        parts = [
            (part["names"][0], _reader(part, render))
            for part in (axis["axes"] if axis["kind"] == "zip" else [axis])
            if part["names"][0] not in hidden
        ]
        wheels.append((axis_count(axis), parts))

    def decoder(index: int) -> dict[str, T]:
        values = shared.copy()
        rest = index
        for radix, parts in wheels:
            rest, digit = divmod(rest, radix)
            for name, point in parts:
                values[name] = point(digit)
        return values

    return decoder


def _reader(axis: Mapping[str, Any], render: Callable[[Value], T]) -> Callable[[int], T]:
    if axis["kind"] == "list":
        return [render(value) for value in axis["values"]].__getitem__
    return lambda digit: render(_point(axis, digit))


def _bad(detail: str) -> BadInput:
    return BadInput(detail, code="bad_range")
