"""Experiment documents: what users write becomes nodes, and every fault is named."""

from __future__ import annotations

import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.experiment_file import (
    ExperimentSpec,
    NodeSpec,
    parse_text,
    read_experiment,
    with_parameters,
)
from airavata_scheduler.models.preview import preview
from airavata_scheduler.models.sweep import decode, typed

CORPUS = yaml.safe_load((Path(__file__).parent / "bad_input_experiment.yml").read_text())

GOOD: dict[str, Any] = {
    "name": "sweep",
    "parameters": {
        "RATE": {"type": "float", "default": 0.1},
        "STEPS": {"type": "int", "default": 100, "minimum": 1, "maximum": 100_000},
        "SEEDS": {"type": "int"},
        "MODE": {"type": "string", "default": "plain"},
    },
    "files": ["simulate.py"],
    "scripts": {"SIMULATE": "#!/bin/sh\npython3 simulate.py\n", "PLOT": "#!/bin/sh\nplot\n"},
    "tasks": {
        "simulate": {
            "script": "SIMULATE",
            "task_inputs": {"RATE": [0.1, 0.2, 0.5], "SEEDS": "1..100"},
            "task_outputs": {"RESULT": "result.csv"},
            "retries": 2,
            "timeout": "10m",
        },
        "plot": {
            "script": "PLOT",
            "foreach": ["simulate"],
            "task_inputs": {"INPUT": "${simulate.RESULT}"},
            "task_outputs": {"PICTURE": "plot.png"},
        },
        "report": {
            "script": "PLOT",
            "depends_on": ["plot"],
            "task_inputs": {"PICTURES": "${plot.PICTURE[*]}"},
            "task_outputs": {"TABLE": "table.csv"},
        },
    },
    "resources": {"compute": {"cpu": 2, "ram_gb": 4, "time": "0:10:00"}},
    "placement": {"compute": ["cluster-1"], "budget": "40 core-hours"},
}
SHA = "0" * 64
SENT = {
    "simulate.py": {"sha256": SHA, "size": 1000},
    "huge.bin": {"sha256": SHA, "size": 10**9},
}


def read(document: dict[str, Any], **more: Any) -> ExperimentSpec:
    """The document read with the files that the client sent."""
    return read_experiment(document, files=SENT, **more)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The good document with some values set by their paths; None removes."""
    document = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *above, last = path.split(".")
        part = document
        for key in above:
            part = part.setdefault(key, {})
        if value is None:
            del part[last]
        else:
            part[last] = value
    return document


def short(command: str, **more: Any) -> NodeSpec:
    """The only node of a document that is a command."""
    return read_experiment({"name": "x", "command": command, **more}).nodes[0]


def test_the_documented_shape_is_300_300_and_1_tasks() -> None:
    """Axes multiply, foreach has an instance for each, a barrier one."""
    spec = read(GOOD)

    assert spec.totals == {"simulate": 300, "plot": 300, "report": 1}
    assert spec.total == 601
    simulate = spec.nodes[0].to_json()
    assert decode(simulate, 0) == {
        "RATE": "0.1",
        "SEEDS": "1",
        "STEPS": "100",
        "MODE": "plain",
        "RESULT": "result.csv",
    }
    assert decode(simulate, 299)["RATE"] == "0.5"
    assert decode(simulate, 299)["SEEDS"] == "100"
    assert simulate["timeout_s"] == 600
    assert simulate["resources"]["ram_mb"] == 4096
    assert simulate["files"] == [{"destination": "simulate.py", "sha256": SHA, "size": 1000}]


def test_references_say_which_instance_they_read() -> None:
    """A foreach task reads its parent's instance; [*] reads all."""
    nodes = {node.name: node for node in read(GOOD).nodes}

    assert nodes["plot"].references == [
        {
            "parameter": "INPUT",
            "node": "simulate",
            "output": "RESULT",
            "gather": False,
            "many": False,
            "divisor": 1,
        }
    ]
    assert nodes["report"].references[0]["gather"] is True
    assert nodes["report"].depends_on == ["plot"]


def test_a_foreach_task_inherits_the_values_of_its_parent() -> None:
    """A plot knows the RATE of its simulation; what it sets itself wins, and own axes multiply."""
    document = changed(
        {"tasks.plot.task_inputs": {"INPUT": "${simulate.RESULT}", "MODE": ["a", "b"]}}
    )

    spec = read(document)

    plot = spec.nodes[1]
    assert spec.totals["plot"] == 600
    assert plot.references[0]["divisor"] == 2
    assert decode(plot.to_json(), 599) == {
        "RATE": "0.5",
        "SEEDS": "100",
        "STEPS": "100",
        "MODE": "b",
        "PICTURE": "plot.png",
    }
    own = read(changed({"tasks.plot.task_inputs.RATE": 9})).nodes[1].to_json()
    assert decode(own, 250)["RATE"] == "9.0"
    assert decode(own, 250)["SEEDS"] == "51"


def test_a_reference_reaches_through_several_foreach() -> None:
    """Two own axes below each other: instance 11 of the last reads instance 1 of the first."""
    document = changed(
        {
            "tasks.plot.task_inputs": {"MODE": ["a", "b"]},
            "tasks.crop": {
                "script": "PLOT",
                "foreach": "plot",
                "task_inputs": {"STEPS": "1..3", "IN": "${simulate.RESULT}"},
            },
        }
    )

    crop = next(node for node in read(document).nodes if node.name == "crop")

    assert 11 // crop.references[0]["divisor"] == 1
    assert decode(crop.to_json(), 11) == {"RATE": "0.1", "SEEDS": "2", "MODE": "b", "STEPS": "3"}


def test_an_ancestor_of_one_instance_can_be_read_by_all() -> None:
    """A mesh is made once and read by each simulation."""
    document = changed(
        {
            "tasks.mesh": {"script": "PLOT", "task_outputs": {"MESH": "mesh/*.bin"}},
            "tasks.simulate.depends_on": ["mesh"],
            "tasks.simulate.task_inputs.MESH": "${mesh.MESH}",
        }
    )

    simulate = next(node for node in read(document).nodes if node.name == "simulate")

    assert simulate.references[0]["divisor"] == 300
    assert simulate.references[0]["many"] is True


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: json.dumps(case["set"])[:70])
def test_bad_documents_are_refused(case: dict[str, Any]) -> None:
    """The first fault has the field, the code and the advice that the corpus says."""
    with pytest.raises(BadInput) as refusal:
        read(changed(case["set"]))

    said = refusal.value
    assert (said.field, said.code) == (case["field"], case["code"])
    assert case.get("says", "") in said.detail
    assert said.status == 422
    assert re.search(r"[\x00-\x1f\x7f\u202e]", said.detail) is None


def test_all_faults_are_found_in_one_run() -> None:
    """Three mistakes are three errors, each with its line."""
    text = yaml.safe_dump(
        changed({"tasks.simulate.retires": 1, "on_failure": "no", "tasks.plot.timeout": 5})
    )

    with pytest.raises(BadInput) as refusal:
        read(parse_text(text))

    errors = refusal.value.errors
    assert {e.field for e in errors} == {
        *("tasks.simulate.retires", "on_failure", "tasks.plot.timeout")
    }
    assert all(re.search(r"\(line \d+\)$", e.detail) for e in errors)
    assert "3 faults" in refusal.value.detail


def test_a_stored_document_gives_the_same_experiment() -> None:
    """Files and rows are resolved in it, so nothing must be sent again."""
    document = changed({"tasks.simulate.rows": "t.csv", "tasks.simulate.task_inputs": {"SEEDS": 1}})
    spec = read(document, tables={"t.csv": 'RATE,MODE\n0.5,a b\n0.25,"c,d"\n'})

    again = read_experiment(json.loads(json.dumps(spec.document)))

    assert again == spec
    assert spec.totals["simulate"] == 2
    assert typed(spec.nodes[0].to_json(), 1) == {
        "RATE": 0.25,
        "MODE": "c,d",
        "SEEDS": 1,
        "STEPS": 100,
    }
    assert [NodeSpec.from_json(node.to_json()) for node in spec.nodes] == spec.nodes


def test_reading_leaves_the_document_as_it_was() -> None:
    """The caller's document is not changed."""
    before = copy.deepcopy(GOOD)

    read(GOOD)

    assert before == GOOD


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("", "is empty"),
        ("RATE\n", "at least one"),
        ("RATE,MODE\n1\n", "row 2: 1 values for 2 columns"),
        ("RATE,RATE\n1,2\n", "two columns of one name"),
        ("RA TE\n1\n", "not a name"),
        ('RATE\n"1\n', "row 2"),
        ("SPEED\n1\n", "not declared"),
        ("RATE\nfast\n", "must be a number"),
    ],
)
def test_faulty_tables(table: str, says: str) -> None:
    """A CSV table's fault names the row."""
    document = changed({"tasks.simulate.rows": "t.csv", "tasks.simulate.task_inputs": {"SEEDS": 1}})

    with pytest.raises(BadInput, match=re.escape(says)):
        read(document, tables={"t.csv": table})


def test_tables_from_spreadsheets_are_read() -> None:
    """A byte order mark, semicolons, Windows line ends and blank lines are no matter."""
    document = changed({"tasks.simulate.rows": "t.csv", "tasks.simulate.task_inputs": {"SEEDS": 1}})

    spec = read(document, tables={"t.csv": "\ufeffRATE; MODE\r\n1;x\r\n\r\n2;y\r\n"})

    assert decode(spec.nodes[0].to_json(), 1)["MODE"] == "y"


def test_zip_pairs_axes_at_the_place_of_the_first() -> None:
    """Paired axes advance together; the others still multiply."""
    document = changed(
        {
            "tasks.simulate.task_inputs": {
                "RATE": [1, 2],
                "SEEDS": [7, 8, 9],
                "STEPS": "10..20 step 10",
            },
            "tasks.simulate.zip": ["RATE", "STEPS"],
        }
    )

    simulate = read(document).nodes[0].to_json()

    assert simulate["own"] == 6
    points = [typed(simulate, i) for i in range(6)]
    assert [(p["RATE"], p["STEPS"], p["SEEDS"]) for p in points] == [
        *((1.0, 10, 7), (1.0, 10, 8), (1.0, 10, 9), (2.0, 20, 7), (2.0, 20, 8), (2.0, 20, 9))
    ]


def test_a_document_without_declarations_takes_types_from_values() -> None:
    """Short files need no `parameters`; numbers, ranges and texts are what they look like."""
    spec = read_experiment(
        {
            "name": "x",
            "command": "echo {{A}} {{B}} {{C}}",
            "task_inputs": {"A": "1..3", "B": [1, 0.5], "C": "a b"},
        }
    )

    assert spec.totals == {"run": 6}
    assert decode(spec.nodes[0].to_json(), 5) == {"A": "3", "B": "0.5", "C": "a b"}


def test_the_rest_form_with_parameter_sets() -> None:
    """`commandTemplate` with a list of parameter sets, as the earlier program had it."""
    spec = read_experiment(
        {
            "name": "x",
            "commandTemplate": "run --rate {{rate}}",
            "parameters": [{"values": {"rate": "0.1"}}, {"values": {"rate": "0.2; rm -rf /"}}],
        }
    )

    assert spec.total == 2
    assert spec.nodes[0].script == '#!/bin/sh\nrun --rate "${rate}"\n'
    assert decode(spec.nodes[0].to_json(), 1) == {"rate": "0.2; rm -rf /"}
    assert read_experiment(spec.document) == spec


def test_a_function_gives_parameters_scripts_and_needs() -> None:
    """`function: f@1` alone is an experiment of one task; its own keys go before the function's."""
    function: dict[str, Any] = {
        "kind": "script",
        "name": "f",
        "description": "",
        "script": "S",
        "python": None,
        "parameters": {"X": {"type": "int", "default": 5}},
        "scripts": {"S": "#!/bin/sh\n"},
        "outputs": {"OUT": "o.txt"},
        "resources": {"cpu": 4},
        "stage_in": [],
        "files": [],
        "environment": {},
        "software": {},
        "retries": 3,
        "timeout_s": 60.0,
    }
    document = {"name": "x", "function": "f@1", "task_inputs": {"X": "1..10"}, "retries": 1}

    spec = read_experiment(document, functions=lambda name: function if name == "f@1" else None)

    node = spec.nodes[0]
    assert (node.name, node.retries, node.timeout_s, node.resources["cpu"]) == ("f", 1, 60.0, 4)
    assert decode(node.to_json(), 9) == {"X": "10", "OUT": "o.txt"}


def test_deriving_changes_values_wherever_they_are() -> None:
    """An input is replaced in its tasks, else the default; unknown names are refused."""
    document = read(GOOD).document

    spec = read_experiment(with_parameters(document, {"RATE": [0.3], "STEPS": 7}))

    assert spec.totals["simulate"] == 100
    assert decode(spec.nodes[0].to_json(), 0)["STEPS"] == "7"
    with pytest.raises(BadInput, match='did you mean "RATE"'):
        with_parameters(document, {"RAET": 1})
    with pytest.raises(BadInput, match="one value, not a list"):
        with_parameters(document, {"STEPS": [1, 2]})


def test_a_huge_sweep_is_accepted_at_once() -> None:
    """10^12 points are a number, not a list."""
    began = time.process_time()

    spec = read_experiment(
        {"name": "x", "command": "run {{A}}", "task_inputs": {"A": "1..10^12"}}, max_tasks=10**12
    )

    assert spec.total == 10**12
    assert preview(spec)["nodes"][0]["first"][4] == {"A": "5"}
    assert time.process_time() - began < 1


def test_many_wrong_keys_do_not_take_long() -> None:
    """After some dozens of faults reading stops; near words are not sought a thousandfold."""
    began = time.process_time()

    with pytest.raises(BadInput, match="50 faults or more"):
        read_experiment({f"nmae{i}": 1 for i in range(100_000)})

    assert time.process_time() - began < 5


def test_preview_shows_numbers_and_what_is_odd() -> None:
    """Tasks for each node, core-hours, bytes, first sets, and wishes that no agent may meet."""
    document = changed({"resources.pip": ["numpy"], "placement.budget": "1 core-hours"})

    shown = preview(read(document), hints={"cluster-1": "fits"})

    assert shown["tasks"] == 601
    assert shown["core_hours"] == pytest.approx(601 * 2 / 6, abs=0.01)
    assert shown["bytes_to_stage"] == 601_000
    assert shown["nodes"][1]["first"][3]["INPUT"] == "simulate[3].RESULT"
    assert len(shown["nodes"][0]["first"]) == 5
    assert any("pip" in warning for warning in shown["warnings"])
    assert any("budget" in warning for warning in shown["warnings"])
    assert shown["placement"] == {"cluster-1": "fits"}


def test_warnings_of_what_is_allowed_but_odd() -> None:
    """A range that misses its end, and a variable that nothing sets."""
    document = changed(
        {
            "tasks.simulate.task_inputs": {"RATE": "0..1 step 0.3"},
            "scripts.SIMULATE": '#!/bin/sh\necho "$SEEDS"\n',
        }
    )

    warnings = read(document).warnings

    assert any("ends at 0.9" in warning for warning in warnings)
    assert any("$SEEDS" in warning for warning in warnings)


def test_more_nodes_than_200_are_refused() -> None:
    """A graph has a bounded size; a sweep is one node whatever its length."""
    tasks = {f"t{i}": {"script": "PLOT"} for i in range(201)}

    with pytest.raises(BadInput) as refusal:
        read(changed({"tasks": tasks}))

    assert refusal.value.code == "bad_tasks"


def test_a_chain_of_200_nodes_is_read_quickly() -> None:
    """References and inheritance through a deep graph stay cheap."""
    tasks: dict[str, Any] = {"t0": {"script": "PLOT", "task_outputs": {"O": "o"}}}
    for i in range(1, 200):
        tasks[f"t{i}"] = {
            "script": "PLOT",
            "foreach": f"t{i - 1}",
            "task_inputs": {"IN": "${t0.O}"},
            "task_outputs": {"O": "o"},
        }
    began = time.process_time()

    spec = read(changed({"tasks": tasks}))

    assert len(spec.nodes) == 200
    assert time.process_time() - began < 5


def test_a_template_quotes_by_its_place() -> None:
    """In the open, within double quotes and within single quotes, a value stays one word."""
    node = short(
        """run {{A}} --x="v={{A}}" 'w={{ A }}'""", task_inputs={"A": "$(rm -rf /) `id` ; 'x"}
    )

    assert node.script == ("""#!/bin/sh\nrun "${A}" --x="v=${A}" 'w='"${A}"''\n""")


@pytest.mark.parametrize(
    "template",
    [
        *("{{A}}", "run {{A.b}}", "run {{7*7}}", "run {% x %}", "run {{A", "run A}}", "run '{{A}}"),
        *("sh -c '{{A}}'", "bash -xc {{A}}", "python3 -c 'print({{A}})'", "eval {{A}}"),
        *("run `id {{A}}`", 'run "$(x {{A}})"', "cat <<E\n{{A}}\nE", "run \\{{A}}", "", " "),
    ],
)
def test_templates_that_could_run_a_value(template: str) -> None:
    """What cannot be quoted for certain is refused; a script reads the variable instead."""
    with pytest.raises(BadInput):
        short(template, task_inputs={"A": "x"})


def test_a_template_must_have_its_names() -> None:
    """A placeholder without a value is a fault with a suggestion."""
    with pytest.raises(BadInput, match='did you mean "RATE"'):
        short("run {{RAET}}", task_inputs={"RATE": 1})
