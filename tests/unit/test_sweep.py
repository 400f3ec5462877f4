"""Sweeps: counted in closed form, decoded by number."""

from __future__ import annotations

import itertools
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.sweep import (
    Axis,
    axis_count,
    compile_decoder,
    decode,
    list_axis,
    parent_index,
    product,
    range_axis,
    typed,
    zip_axis,
)

NAMES = ["A", "B", "C", "D", "E", "F"]


def node(axes: list[Axis], **more: Any) -> dict[str, Any]:
    """The parts of a node that decoding reads."""
    return {"fixed": {}, "outputs": {}, "axes": axes, "own": product(axes), **more}


def naive(axis: Axis) -> list[dict[str, Any]]:
    """Every point of an axis, by the simplest means."""
    if axis["kind"] == "zip":
        parts = [naive(part) for part in axis["axes"]]
        return [
            {k: v for point in points for k, v in point.items()}
            for points in zip(*parts, strict=True)
        ]
    name = axis["names"][0]
    if axis["kind"] == "list":
        return [{name: value} for value in axis["values"]]
    points = []
    for k in range(axis["count"]):
        exact = (Decimal(axis["start"]) + k * Decimal(axis["step"])) / Decimal(axis["scale"])
        points.append({name: int(exact) if axis["type"] == "int" else float(exact)})
    return points


values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text("aZ é\n$", max_size=5),
)


@st.composite
def axes_lists(draw: st.DrawFn) -> list[Axis]:
    """Up to three axes of all kinds, with different names."""
    names = iter(NAMES)
    axes: list[Axis] = []
    for kind in draw(st.lists(st.sampled_from(["list", "range", "zip"]), max_size=3)):
        if kind == "range":
            first, count = draw(st.integers(-50, 50)), draw(st.integers(0, 6))
            step = draw(st.sampled_from(["1", "0.25", "0.1", "3"]))
            last = Decimal(first) + count * Decimal(step)
            axes.append(range_axis(next(names), f"{first}..{last} step {step}", "float"))
            continue
        length = draw(st.integers(1, 5))
        columns = [
            list_axis(next(names), draw(st.lists(values, min_size=length, max_size=length)))
            for _ in range(2 if kind == "zip" else 1)
        ]
        axes.append(zip_axis(columns) if kind == "zip" else columns[0])
    return axes


@settings(derandomize=True, deadline=None, database=None)
@given(axes_lists())
def test_decoding_gives_what_nested_loops_give(axes: list[Axis]) -> None:
    """Counts and every point equal a naive expansion, the last axis fastest."""
    expanded = [
        {k: v for point in points for k, v in point.items()}
        for points in itertools.product(*(naive(axis) for axis in axes))
    ]
    spec = node(axes)

    assert product(axes) == len(expanded)
    assert [typed(spec, i) for i in range(len(expanded))] == expanded


@settings(derandomize=True, deadline=None, database=None)
@given(st.integers(-1000, 1000), st.integers(1, 400), st.sampled_from(["1", "0.5", "0.01", "7"]))
def test_a_range_counts_both_ends_and_decodes_exactly(first: int, steps: int, step: str) -> None:
    """Decimal steps never drift: every point is the float nearest to the exact decimal."""
    exact = [Decimal(first) + k * Decimal(step) for k in range(steps + 1)]

    axis = range_axis("X", f"{first}..{exact[-1]} step {step}", "float")

    assert axis_count(axis) == steps + 1
    assert [typed(node([axis]), k)["X"] for k in range(steps + 1)] == [float(x) for x in exact]


@pytest.mark.parametrize(
    ("text", "kind", "count", "first", "last"),
    [
        ("1..100", "int", 100, "1", "100"),
        ("100..1 step -1", "int", 100, "100", "1"),
        ("0..1 step 0.25", "float", 5, "0.0", "1.0"),
        ("0..1 step 0.1", "float", 11, "0.0", "1.0"),
        ("0..1 step 0.3", "float", 4, "0.0", "0.9"),
        ("-5..5", "int", 11, "-5", "5"),
        ("7..7", "int", 1, "7", "7"),
        ("1..10^12", "int", 10**12, "1", "1000000000000"),
        ("0..1 step 1e-9", "float", 10**9 + 1, "0.0", "1.0"),
        ("-0..2", "int", 3, "0", "2"),
    ],
)
def test_ranges_as_users_write_them(
    text: str, kind: str, count: int, first: str, last: str
) -> None:
    """Each documented form has its count, first and last point, whatever its length."""
    axis = range_axis("X", text, kind)

    assert axis_count(axis) == count
    assert decode(node([axis]), 0) == {"X": first}
    assert decode(node([axis]), count - 1) == {"X": last}


@pytest.mark.parametrize(
    "text",
    [
        *("0..1 step 0", "100..1", "1..100 step -1", "1..2..3", "1...3", "..3", "1..", "a..b"),
        *(
            "1..1e99",
            "1..10^99",
            "0..1 step 1e-30",
            "1..9223372036854775808",
            "\u0661..\u0663",
            "1..NaN",
        ),
        *("1..2 step", "1..2 step 1 step 1", "0x1..0x5", "1_000..2_000", "1..2; x", "9^99..1"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(text: str) -> None:
    """Step 0, a step in the wrong direction, other digits and huge numbers have one sentence."""
    with pytest.raises(BadInput) as refusal:
        range_axis("X", text, "int")

    assert refusal.value.code == "bad_range"


def test_a_range_with_decimals_is_not_one_of_integers() -> None:
    """0..1 step 0.25 for an int parameter is a fault, not a row of zeros."""
    with pytest.raises(BadInput, match="decimals"):
        range_axis("X", "0..1 step 0.25", "int")


def test_a_zip_needs_equal_lengths() -> None:
    """Three values cannot be paired with two."""
    with pytest.raises(BadInput, match="A has 3, B has 2"):
        zip_axis([list_axis("A", [1, 2, 3]), list_axis("B", [1, 2])])


def test_environment_texts() -> None:
    """Floats as the shortest text that reads back, integers decimal, true and false, text as is."""
    spec = node([list_axis("A", [0.1, 1e22, -0.0, 5, True, "x y"])], fixed={"F": False})

    texts = [decode(spec, i)["A"] for i in range(6)]

    assert texts == ["0.1", "1e+22", "-0.0", "5", "true", "x y"]
    assert decode(spec, 0)["F"] == "false"


def test_an_output_hides_a_parameter_of_its_name() -> None:
    """The variable says where the file will be; typed values keep the parameter."""
    spec = node([list_axis("R", ["a"])], fixed={"S": 1}, outputs={"R": "r.csv"})

    assert decode(spec, 0) == {"S": "1", "R": "r.csv"}
    assert typed(spec, 0) == {"S": 1, "R": "a"}


def test_a_foreach_instance_knows_its_parent_instance() -> None:
    """With own axes of three points, instances 3, 4 and 5 belong to the parent's instance 1."""
    spec = node([list_axis("P", [10, 20]), list_axis("X", [1, 2, 3])], own=3)

    assert [parent_index(spec, i) for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert decode(spec, 4) == {"P": "20", "X": "2"}


def test_decoding_costs_the_same_anywhere_in_a_huge_sweep() -> None:
    """Nothing is expanded: the last of 10^12 points is found at once."""
    axes = [range_axis("A", "1..10^6", "int"), range_axis("B", "1..10^6", "int")]
    began = time.process_time()

    last = compile_decoder(node(axes))(10**12 - 1)

    assert last == {"A": "1000000", "B": "1000000"}
    assert time.process_time() - began < 0.5
