"""Families 25 to 32: what would become a command, an option, an environment or a pattern."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.api import Answered
from tests.bad_input.case import Case
from tests.bad_input.world import World
from tests.wire_agent import completed, settle

# Each reaches the script as the value of a variable, byte for byte.
VERBATIM: Mapping[str, str] = {
    "semicolon": "x; rm -rf ~",
    "substitution": "$(touch /tmp/owned)",
    "backticks": "`touch /tmp/owned`",
    "newline": "x\nrm -rf ~",
    "quotes": "'; touch owned; '\"; touch owned; \"",
    "ampersand": "x & touch owned &",
    "pipe and redirection": "x | tee owned > owned2",
    "variable": "$HOME $$ $1",
    "glob": "* ?? [a-z]*",
    "backslashes": "a\\nb\\\\",
    "option": "-rf",
    "long option": "--help",
    "batch line": "x\n#SBATCH --account=root",
    "jinja": "{{ 7 * 7 }}{% for x in y %}",
    "own placeholder": "{{VALUE}}",
    "reference as text": "$${simulate.RESULT}",
    "formula": "=cmd|' /C calc'!A0",
    "other formula": "@SUM(1+1)*cmd",
    "terminal": "tab\tand e\u0301 and 😀",
}
SCRIPT = "#!/bin/sh\nprintf '%s' \"$VALUE\"\n"


def expected(value: str) -> str:
    """What the script sees: `$${` is how a document writes `${`."""
    return value.replace("$${", "${")


def _verbatim(family: int, name: str, value: str) -> Case:
    def holds(world: World, answer: Answered) -> None:
        settle()
        (lease,) = world.agent.claim(1)["leases"]
        assert lease["experiment_id"] == answer.json["id"]
        assert lease["environment"]["VALUE"] == expected(value)
        world.agent.report(completed(lease))

    return Case(
        family=family,
        name=f"value: {name}",
        send="ada POST /experiments",
        json={
            "project": "spine",
            "submit": True,
            "priority": 100,
            "document": {
                "name": "verbatim",
                "parameters": {"VALUE": "string"},
                "scripts": {"S": SCRIPT},
                "tasks": {"a": {"script": "S", "task_inputs": {"VALUE": value}}},
            },
        },
        status=201,
        holds=holds,
    )


def _family_of(name: str) -> int:
    return {"option": 26, "long option": 26, "batch line": 27, "jinja": 29, "own placeholder": 29,
            "formula": 32, "other formula": 32}.get(name, 25)  # fmt: skip


def _document(family: int, name: str, keys: Mapping[str, Any], code: str, field: str) -> Case:
    return Case(
        family=family,
        name=f"document: {name}",
        send="ada POST /experiments",
        json={"project": "spine", "document": {"name": "x", "command": "true", **keys}},
        code=code,
        field=field,
    )


def _command(family: int, name: str, command: str) -> Case:
    """A template whose placeholder would stand where a shell reads code."""
    return _document(
        family,
        f"template: {name}",
        {"command": command, "parameters": {"A": "string"}, "task_inputs": {"A": "x"}},
        "bad_template",
        "command",
    )


def _named(family: int, kind: str, who: str, path: str, name: str) -> Case:
    body: dict[str, Any] = {"name": name}
    if path == "/compute-resources":
        body["kind"] = "SLURM"
    return Case(
        family=family,
        name=f"{kind} called {name!r}",
        send=f"{who} POST {path}",
        json=body,
        code="invalid_string_pattern_mismatch",
        field="name",
    )


def _within(seconds: float) -> Callable[[World, Answered], None]:
    """Asked again, it is answered soon: no pattern of a user is matched by backtracking."""

    def holds(world: World, answer: Answered) -> None:
        began = time.monotonic()
        again = world.ada.get(answer.request.full_path.removeprefix("/api/v1"))
        assert again.status_code == answer.status_code
        assert time.monotonic() - began < seconds

    return holds


CASES = (
    *(_verbatim(_family_of(name), name, value) for name, value in VERBATIM.items()),
    _command(25, "in backticks", "echo `{{A}}`"),
    _command(25, "in a substitution", "echo $(cat {{A}})"),
    _command(25, "for another shell", "sh -c {{A}}"),
    _command(25, "for eval", "eval {{A}}"),
    *(
        _named(26, kind, who, path, "-rf")
        for kind, who, path in (
            ("project", "ada", "/projects"), ("group", "ada", "/groups"),
            ("user", "root", "/users"), ("compute resource", "root", "/compute-resources"),
        )
    ),
    _document(26, "a task called by an option", {"command": None, "scripts": {"S": "true"},
              "tasks": {"-rf": {"script": "S"}}}, "bad_name", "tasks.-rf"),
    *(
        _document(27, f"{key} with a line for the batch system", keys, code, field)
        for key, keys, code, field in (
            ("name", {"name": "a\n#SBATCH --account=x"}, "not_printable", "name"),
            ("compute", {"placement": {"compute": ["c\n#SBATCH -A x"]}}, "not_printable",
             "placement.compute[0]"),
            ("modules", {"resources": {"modules": ["gcc\n#SBATCH -A x"]}}, "not_printable",
             "resources.modules[0]"),
            ("environment", {"resources": {"environment": ["A=x\n#SBATCH -A x"]}}, "not_printable",
             "resources.environment[0]"),
            ("container", {"resources": {"container": "a\n#SBATCH -A x"}}, "not_printable",
             "resources.container[0]"),
        )
    ),
    Case(family=27, name="name beside the document", send="ada POST /experiments",
         json={"project": "spine", "name": "a\n#SBATCH -A x",
               "document": {"command": "true"}}, code="not_printable", field="name"),
    Case(family=27, name="an agent's name", send="agent POST /enroll",
         json={"name": "a\n#SBATCH", "secret_hash": "0" * 64}, code="invalid_value_error",
         field="name"),
    *(
        _document(28, f"{place} {name}", keys, "reserved_name", field)
        for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "PATH", "PYTHONPATH",
                     "PYTHONSTARTUP", "SLURM_JOB_ID", "SBATCH_ACCOUNT", "IFS", "AIRAVATA_TASK",
                     "HOME", "PERL5LIB", "DYLD_INSERT_LIBRARIES", "BASH_FUNC_x")
        for place, keys, field in (
            ("parameter", {"parameters": {name: "string"}, "task_inputs": {name: "x"}},
             f"parameters.{name}"),
            ("environment", {"resources": {"environment": [f"{name}=x"]}},
             "resources.environment[0]"),
        )
    ),
    _document(29, "jinja in a template", {"command": "echo {{ config.__class__ }}"},
              "bad_template", "command"),
    _document(29, "a jinja statement in a template", {"command": "echo {% for x in y %}"},
              "bad_template", "command"),
    Case(family=29, name="jinja in a description", send="ada POST /projects",
         json={"name": "jinja", "description": "{{ config }}"}, status=201),
    _document(30, "two compute resources in one name", {"placement": {"compute": ["a,b"]}},
              "bad_name", "placement.compute[0]"),
    _document(30, "a blank in a compute resource", {"placement": {"compute": ["a b"]}}, "bad_name",
              "placement.compute[0]"),
    *(_named(30, "compute resource", "root", "/compute-resources", text)
      for text in ("a b", "a,b", "a;b", "a=b")),
    _document(31, "a pattern for a parameter", {"parameters": {"A": {
        "type": "string", "default": "x", "pattern": "(a+)+$"}}}, "unknown_key",
              "parameters.A.pattern"),
    _document(31, "nine wildcards", {"task_outputs": {"R": "*a*a*a*a*a*a*a*a*b"}}, "path_glob",
              "task_outputs.R"),
    *(
        Case(family=31, name=f"filter of outputs: {name}",
             send=f"ada GET /experiments/{{experiment}}/artifacts?path={text}", status=200,
             holds=_within(2))
        for name, text in {"stars": "*a" * 100 + "b", "brackets": "[" * 100,
                           "plus": "(a%2b)%2b$", "all stars": "*" * 500}.items()
    ),
    Case(family=31, name="search by a regular expression",
         send="ada GET /experiments?q=(a%2b)%2b%24", status=200, holds=_within(2)),
    Case(family=32, name="a table's cell is a text", send="ada POST /experiments",
         json={"project": "spine", "dry_run": True, "tables": {"t.csv": "A\n=1+1\n@SUM(1)\n"},
               "document": {"name": "x", "command": "echo {{A}}", "rows": "t.csv"}}, status=200),
)  # fmt: skip
