"""Parameters: typed, checked, and turned into environment text."""

from __future__ import annotations

from typing import Any

import pytest

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import Faults
from airavata_scheduler.models.parameters import (
    Parameter,
    check_name,
    environment_text,
    read_parameters,
)


def parameter(kind: str, **more: Any) -> Parameter:
    """A parameter X."""
    return Parameter(name="X", type=kind, **more)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        *(("int", 5, "5"), ("int", "5", "5"), ("int", -0, "0"), ("int", "-0", "0")),
        *(("int", 1e6, "1000000"), ("int", 2**63 - 1, "9223372036854775807"), ("int", "+7", "7")),
        *(("float", 1, "1.0"), ("float", "1e-3", "0.001"), ("float", 0.1, "0.1")),
        *(
            ("float", -0.0, "-0.0"),
            ("float", ".5", "0.5"),
            ("float", "014", "14.0"),
            ("float", 1e300, "1e+300"),
        ),
        *(("bool", True, "true"), ("bool", "False", "false")),
        *(("string", "a b\n$(rm)", "a b\n$(rm)"), ("string", 12, "12"), ("string", "", "")),
        *(("string", "-rf", "-rf"), ("string", "; rm -rf /", "; rm -rf /"), ("string", "😀", "😀")),
        *(("path", "./out/r.csv", "./out/r.csv"), ("path", "dir/", "dir/"), ("path", "-x", "-x")),
    ],
)
def test_values_that_fit(kind: str, value: object, text: str) -> None:
    """A value in its type has one environment text, and no shell character is special."""
    assert environment_text(parameter(kind).coerce(value)) == text


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [
        *(("int", "014", "not_an_integer"), ("int", "\u0661\u0662\u0663", "not_an_integer")),
        *(("int", True, "not_an_integer"), ("int", 1.5, "not_an_integer")),
        *(("int", "1_000", "not_an_integer"), ("int", " 1", "not_an_integer")),
        *(("int", "0x10", "not_an_integer"), ("int", "", "not_an_integer")),
        *(("int", 2**63, "out_of_range"), ("int", -(2**63) - 1, "out_of_range")),
        *(("int", 10**5000, "out_of_range"), ("int", "9" * 5000, "not_an_integer")),
        *(("int", "99999999999999999999", "out_of_range"), ("int", 1e300, "not_an_integer")),
        *(("float", "nan", "not_a_number"), ("float", float("nan"), "not_a_number")),
        *(("float", float("inf"), "not_a_number"), ("float", "1e999", "not_a_number")),
        *(("float", "1,5", "not_a_number"), ("float", True, "not_a_number")),
        *(("float", "\u0661.\u0665", "not_a_number"), ("float", 10**400, "out_of_range")),
        *(("float", "1" * 5000, "not_a_number"), ("float", "1_0", "not_a_number")),
        *(("bool", "yes", "not_a_bool"), ("bool", "no", "not_a_bool"), ("bool", 1, "not_a_bool")),
        *(("bool", "1", "not_a_bool"), ("bool", None, "not_a_value")),
        *(("string", 1.10, "not_a_text"), ("string", True, "not_a_text")),
        *(("string", "a\0b", "nul_character"), ("string", "\ud800", "lone_surrogate")),
        *(("string", "x" * 65_537, "too_long"), ("string", ["a"], "not_a_value")),
        *(("path", "/etc/passwd", "path_absolute"), ("path", "../x", "path_traversal")),
        *(("path", "~/.ssh/id", "path_absolute"), ("path", "a/../../b", "path_traversal")),
    ],
    ids=lambda value: type(value).__name__,  # str() of 10**5000 raises
)
def test_values_that_do_not_fit(kind: str, value: object, code: str) -> None:
    """Nothing is guessed: leading zeros, other digits, infinite and huge numbers are refused."""
    with pytest.raises(BadInput) as refusal:
        parameter(kind).coerce(value)

    assert refusal.value.code == code
    assert len(refusal.value.detail) < 250


def test_bounds_and_choices() -> None:
    """Bounds include their ends; a choice is met by its text, and a near miss is suggested."""
    bounded = parameter("int", minimum=1, maximum=10)
    chosen = parameter("choice", choices=("fast", "exact", 2))

    assert [bounded.coerce(1), bounded.coerce(10), chosen.coerce("2")] == [1, 10, 2]
    for value in (0, 11):
        with pytest.raises(BadInput) as refusal:
            bounded.coerce(value)
        assert refusal.value.code == "out_of_range"
    with pytest.raises(BadInput, match='did you mean "exact"'):
        chosen.coerce("exacd")


def test_true_is_not_the_choice_1() -> None:
    """Python takes True for 1; a parameter does not."""
    with pytest.raises(BadInput):
        parameter("choice", choices=(1, 2)).coerce(True)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "PYTHONPATH", "SLURM_JOB_ID", "IFS"),
        *("AIRAVATA_TASK", "HOME", "BASH_FUNC_x", "1A", "", "A-B", "A B", "A=B", "Ä", "A" * 65),
        *("A\n", "\u0410"),  # the last is a Cyrillic A
    ],
)
def test_names_that_a_system_obeys_are_refused(name: str) -> None:
    """No parameter may become what the linker, a shell or a batch system reads."""
    with pytest.raises(BadInput) as refusal:
        check_name(name)

    assert refusal.value.code in {"bad_name", "reserved_name"}


def test_declarations_are_read_with_aliases_and_short_forms() -> None:
    """`X: int`, `integer`, and a type inferred from the default or the choices."""
    faults = Faults("it")

    read = read_parameters(
        faults,
        "parameters",
        {
            "A": "integer",
            "B": {"default": 0.5},
            "C": {"choices": ["x", "y"], "default": "x"},
            "D": {"type": "bool", "default": False},
        },
    )

    assert not faults.errors
    assert {name: p.type for name, p in read.items()} == {
        "A": "int",
        "B": "float",
        "C": "choice",
        "D": "bool",
    }
    assert all(Parameter.from_json(name, p.to_json()) == p for name, p in read.items())


@pytest.mark.parametrize(
    ("declared", "field", "code"),
    [
        ({"type": "flaot"}, "type", "unknown_type"),
        ({"type": "int", "default": 1.5}, "default", "not_an_integer"),
        ({"type": "int", "default": 0, "minimum": 1}, "default", "out_of_range"),
        ({"type": "int", "minimum": 5, "maximum": 4}, "minimum", "out_of_range"),
        ({"type": "string", "minimum": 5}, "minimum", "not_allowed"),
        ({"type": "choice"}, "choices", "missing"),
        ({"type": "int", "min": 5}, "min", "unknown_key"),
        ({}, "type", "missing"),
        ({"type": 5}, "type", "not_a_text"),
    ],
)
def test_faulty_declarations(declared: dict[str, Any], field: str, code: str) -> None:
    """Each fault of a declaration names its key."""
    faults = Faults("it")

    read_parameters(faults, "parameters", {"X": declared})

    assert [(e.field, e.code) for e in faults.errors] == [(f"parameters.X.{field}", code)]
