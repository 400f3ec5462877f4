"""Functions as they are registered, and the arguments of their calls."""

from __future__ import annotations

from typing import Any

import pytest

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.experiment_file import parse_text, read_experiment
from airavata_scheduler.models.function_file import check_arguments, function_node, read_function
from airavata_scheduler.models.sweep import typed

SCRIPT = """
name: heat
description: one rod
parameters:
  RATE: {type: float, default: 0.1, maximum: 0.5}
  SEED: {type: int}
script: |
  #!/bin/sh
  python3 simulate.py "$RATE" "$SEED" > "$RESULT"
outputs: {RESULT: result.csv}
files: [simulate.py]
resources: {compute: {cpu: 2, ram_gb: 1, time: "0:05:00"}, environment: ["OMP_NUM_THREADS=2"]}
retries: 2
"""
SENT = {"simulate.py": {"sha256": "a" * 64, "size": 7}}
PYTHON: dict[str, Any] = {
    "kind": "python",
    "name": "square",
    "python": {"entry": "square", "source": "def square(x):\n    return x * x\n"},
    "timeout": "10m",
}


def test_a_script_function_is_complete() -> None:
    """Its node has the script, the needs and the limits; the time is the time-out's default."""
    spec = read_function(parse_text(SCRIPT), files=SENT)

    node = function_node(spec)

    assert node.script is not None and node.script.startswith("#!/bin/sh")
    assert (node.retries, node.timeout_s, node.resources["cpu"]) == (2, 300.0, 2)
    assert node.outputs == {"RESULT": "result.csv"}
    assert node.files == [{"destination": "simulate.py", "sha256": "a" * 64, "size": 7}]
    assert node.environment == {"OMP_NUM_THREADS": "2"}


def test_a_function_can_be_swept() -> None:
    """An experiment over it needs its name and the inputs, no more."""
    spec = read_function(parse_text(SCRIPT), files=SENT)

    swept = read_experiment(
        {"name": "x", "function": "heat@1", "task_inputs": {"SEED": "1..50"}},
        functions=lambda _: spec,
    )

    assert swept.totals == {"heat": 50}
    assert swept.nodes[0].files[0]["destination"] == "simulate.py"
    assert typed(swept.nodes[0].to_json(), 49) == {"SEED": 50, "RATE": 0.1}


def test_a_python_function_in_an_experiment_gets_its_own_arguments() -> None:
    """No other parameter reaches a Python callable, which would fail with it."""
    spec = read_function({**PYTHON, "parameters": {"x": {"type": "int"}}})
    document = {
        "name": "x",
        "function": "square",
        "parameters": {"OTHER": {"default": 1}},
        "tasks": {"a": {"task_inputs": {"x": "1..3"}}},
    }

    node = read_experiment(document, functions=lambda _: spec).nodes[0]

    assert node.kind == "python"
    assert node.script is None
    assert typed(node.to_json(), 2) == {"x": 3}


def test_a_command_makes_a_function() -> None:
    """The short form: a template over parameters and outputs."""
    spec = read_function(
        {
            "name": "run",
            "command": "solve {{N}} -o {{OUT}}",
            "parameters": {"N": "int"},
            "outputs": {"OUT": "o.txt"},
        }
    )

    assert function_node(spec).script == '#!/bin/sh\nsolve "${N}" -o "${OUT}"\n'


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"name": "a b"}, "name", "bad_name"),
        ({"nmae": "x"}, "nmae", "unknown_key"),
        ({"python": {"entry": "f"}}, "python.source", "missing"),
        ({"python": {"entry": "os.system('x')", "source": "x"}}, "python.entry", "bad_entry"),
        (
            {"python": {"entry": "f", "source": "x", "codec": "yaml"}},
            "python.codec",
            "not_a_choice",
        ),
        (
            {"python": {"entry": "f", "source": "x", "requires_python": "$(id)"}},
            *("python.requires_python", "bad_versions"),
        ),
        (
            {"python": {"entry": "f", "blob": {"sha256": "../x", "size": 1}}},
            *("python.blob.sha256", "bad_sha256"),
        ),
        ({"timeout": 60}, "timeout", "bad_duration"),
        ({"retries": -1}, "retries", "out_of_range"),
        ({"outputs": {"A": "../x"}}, "outputs.A", "path_traversal"),
        ({"kind": "script", "python": None}, "script", "missing"),
    ],
)
def test_faulty_functions(change: dict[str, Any], field: str, code: str) -> None:
    """Each fault names its field."""
    with pytest.raises(BadInput) as refusal:
        read_function({**PYTHON, **change})

    assert (refusal.value.field, refusal.value.code) == (field, code)


def test_arguments_of_a_call() -> None:
    """Typed, bounded, with defaults; each fault names its argument."""
    spec = read_function(parse_text(SCRIPT), files=SENT)

    assert check_arguments(spec, {"SEED": "7"}) == {"SEED": 7, "RATE": 0.1}
    with pytest.raises(BadInput) as refusal:
        check_arguments(spec, {"SEDE": 7, "RATE": 0.9})

    assert {(e.field, e.code) for e in refusal.value.errors} == {
        ("arguments.SEDE", "unknown_parameter"),
        ("arguments.RATE", "out_of_range"),
        ("arguments.SEED", "missing"),
    }


def test_a_python_function_without_declarations_takes_any_arguments() -> None:
    """Its own signature checks them; what cannot be stored is refused all the same."""
    spec = read_function(PYTHON)

    assert check_arguments(spec, {"x": [1, {"y": None}]}) == {"x": [1, {"y": None}]}
    with pytest.raises(BadInput):
        check_arguments(spec, {"x": float("nan")})


def test_a_function_of_several_scripts_must_say_which_to_call() -> None:
    """An experiment can use each; a call needs one."""
    spec = read_function({"name": "f", "scripts": {"A": "#!/bin/sh\n", "B": "#!/bin/sh\n"}})

    with pytest.raises(BadInput, match="A, B"):
        function_node(spec)
