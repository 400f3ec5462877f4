"""Experiment files with the local files that they name, and Python files that are read, not run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from airavata_scheduler.client.cli_function import read_inputs
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.experiment_sources import read_source
from airavata_scheduler.client.python_file import read_python_function, typed_arguments
from airavata_scheduler.client.task_names import TaskName


def write(folder: Path, text: str, name: str = "e.yml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_local_files_and_tables_are_found(tmp_path: Path) -> None:
    """Top level and tasks, as list and as mapping; keys are the paths as written."""
    for name in ("a.py", "b.py", "c.py"):
        write(tmp_path, name, name)
    write(tmp_path, "X\n1\n", "rows.csv")
    path = write(
        tmp_path,
        "files: [a.py]\ntasks:\n  t:\n    files: [./b.py, {lib/c.py: c.py}]\n    rows: rows.csv\n",
    )

    source = read_source(path)

    assert set(source.files) == {"a.py", "./b.py", "c.py"}
    assert source.files["a.py"].sha256 == hashlib.sha256(b"a.py").hexdigest()
    assert source.tables == {"rows.csv": "X\n1\n"}
    assert source.body(project="p")["name"] == "e"
    assert source.body(project="p")["document"] == path.read_text()


def test_the_name_of_the_document_wins_over_the_files(tmp_path: Path) -> None:
    """`name` is sent only where the document has none, or the user gives one."""
    source = read_source(write(tmp_path, "name: mine\ntasks: {}\n"))

    assert "name" not in source.body(project="p")
    assert source.body(project="p", name="given")["name"] == "given"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "~/x"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing above the document is ever sent."""
    with pytest.raises(BadInputError, match="leaves the folder"):
        read_source(write(tmp_path, f"files: ['{name}']\n"))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    """Also by way of a link."""
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "data").symlink_to(tmp_path / "secret")

    with pytest.raises(BadInputError, match="link"):
        read_source(write(folder, "files: [data]\n"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the place where it was looked for."""
    with pytest.raises(BadInputError, match=r"nowhere\.py") as caught:
        read_source(write(tmp_path, "files: [nowhere.py]\n"))

    assert str(tmp_path) in str(caught.value.reason)


def test_a_document_that_is_no_yaml_is_left_to_the_server(tmp_path: Path) -> None:
    """One place says what is wrong with a document."""
    assert read_source(write(tmp_path, "a: [")).body(project="p")["document"] == "a: ["


def test_yaml_of_a_function_keeps_text_as_text(tmp_path: Path) -> None:
    """YAML 1.2: `no`, `014` and `1:30:00` are text; a key twice or an alias is refused."""
    source = read_source(write(tmp_path, "a: no\nb: 014\nc: 1:30:00\nd: 3\ne: 1.5\nf: true\n"))

    assert source.document() == {
        "a": "no", "b": "014", "c": "1:30:00", "d": 3, "e": 1.5, "f": True,
    }  # fmt: skip
    for text in ("a: 1\na: 2\n", "a: &x [1]\nb: *x\n"):
        with pytest.raises(BadInputError):
            read_source(write(tmp_path, text)).document()


PYTHON = '''
import json
from typing import Literal

def helper(x):
    return x

def model(steps: int, rate: float = 1, mode: Literal["fast", "slow"] = "fast", name="n",
          *, deep: bool = False) -> dict:
    """Run the model.

    More words.
    """
    return {}

def free(values: list[int], limit=None):
    return values

def anonymous(*args):
    return args

raise RuntimeError("this file must never be run")
'''


def test_a_python_function_is_read_with_its_types(tmp_path: Path) -> None:
    """Annotations and defaults give the parameters; the file is not run."""
    spec = read_python_function(write(tmp_path, PYTHON, "m.py"), "model")

    assert spec["description"] == "Run the model."
    assert spec["parameters"] == {
        "steps": {"type": "int"},
        "rate": {"type": "float", "default": 1.0},
        "mode": {"type": "choice", "choices": ["fast", "slow"], "default": "fast"},
        "name": {"type": "string", "default": "n"},
        "deep": {"type": "bool", "default": False},
    }
    assert spec["python"]["entry"] == "model"
    assert spec["python"]["source"] == PYTHON


def test_types_without_a_name_of_ours_declare_nothing(tmp_path: Path) -> None:
    """A list or None cannot be declared: the function then takes what JSON holds."""
    assert read_python_function(write(tmp_path, PYTHON, "m.py"), "free")["parameters"] == {}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (PYTHON, "modell", "has no function"),
        (PYTHON, "anonymous", "without names"),
        ("def f(:\n", "f", "not valid Python, line 1"),
        ("import neighbour\ndef f(): pass\n", "f", "only this file is sent"),
        ("from . import x\ndef f(): pass\n", "f", "relatively"),
        ("async def f(): pass\n", "f", "async"),
    ],
)
def test_a_python_file_that_cannot_be_used(
    tmp_path: Path, text: str, name: str, message: str
) -> None:
    """Each with a sentence of its own."""
    write(tmp_path, "", "neighbour.py")

    with pytest.raises(BadInputError, match=message):
        read_python_function(write(tmp_path, text, "m.py"), name)


def test_arguments_are_text_where_text_is_declared() -> None:
    """`name=5` stays text for a string; elsewhere JSON is JSON."""
    declared = {"name": {"type": "string"}, "n": {"type": "int"}}

    assert typed_arguments({"name": "5", "n": "5", "other": "[1]", "word": "x y"}, declared) == {
        "name": "5", "n": 5, "other": [1], "word": "x y",
    }  # fmt: skip


def test_inputs_of_map(tmp_path: Path) -> None:
    """CSV and JSON lines; a bad line is named by its number."""
    table = write(tmp_path, 'x,name\n1,"a, b"\n', "t.csv")
    lines = write(tmp_path, '{"x": 1}\n\n{"x": 2}\n', "t.jsonl")
    ragged = write(tmp_path, "x,y\n1\n", "r.csv")
    broken = write(tmp_path, '{"x": 1}\n{x}\n', "b.jsonl")

    assert list(read_inputs(table, {})) == [{"x": 1, "name": "a, b"}]
    assert list(read_inputs(lines, {})) == [{"x": 1}, {"x": 2}]
    for path in (ragged, broken):
        with pytest.raises(BadInputError, match="line 2"):
            list(read_inputs(path, {}))


def test_task_names() -> None:
    """EXPERIMENT/TASK[INDEX]; the index may be left out."""
    name = TaskName.parse("my-sweep/simulate[17]")

    assert (name.experiment, name.node, name.index) == ("my-sweep", "simulate", 17)
    assert TaskName.parse("a/b").index == 0
    for text in ("a/b[x]", "a/b[-1]", "a/b/c", "/b"):
        with pytest.raises(BadInputError):
            TaskName.parse(text)
