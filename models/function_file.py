"""Functions as they are registered: a script with typed parameters, or a Python callable.

The stored form, a version's `spec`, has always the same keys:
`kind`, `name`, `description`, `parameters`, `scripts`, `script`, `outputs`, `resources`,
`stage_in`, `files`, `environment`, `software`, `retries`, `timeout_s`, `python`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airavata_scheduler.models.attachments import SentFiles, read_files
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.experiment_resources import SOFTWARE, read_needs
from airavata_scheduler.models.experiment_tasks import (
    COMMAND_KEYS,
    Shared,
    TaskReader,
    read_outputs,
    read_scripts,
)
from airavata_scheduler.models.faults import Faults, Section, shown, shown_key, suggestion
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.parameters import Parameter, read_parameters
from airavata_scheduler.models.plain_data import tree_fault

KEYS = (
    *("kind", "name", "description", "parameters", "scripts", "script", *COMMAND_KEYS),
    *("outputs", "task_outputs", "resources", "files", "retries", "timeout", "python"),
)
PYTHON_KEYS = ("entry", "source", "blob", "codec", "requires_python")
CODECS = ("json", "pickle")
MAX_SOURCE_CHARS = 1024 * 1024
OWN_SCRIPT = "SCRIPT"  # the name under which a function's one script is kept

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}(?::[A-Za-z_][A-Za-z0-9_.]{0,199})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSIONS = re.compile(r"[0-9.,<>=!~* ]{0,100}")


def read_function(
    document: Mapping[str, Any], *, files: SentFiles | None = None, name: str | None = None
) -> dict[str, Any]:
    """A function's document (a YAML file's, or what the SDK sends) in its stored form.

    `files` are those sent beside it; `name` goes before the document's own. Raises BadInput with
    all faults in `errors`.
    """
    unfit = tree_fault(document)
    if unfit:
        raise BadInput(unfit[1], code=unfit[0], field="document")
    faults = Faults("the function", getattr(document, "lines", None))
    section = Section(faults, "", dict(document), KEYS)
    named = name or section.text("name", max_chars=200)
    if not _NAME.fullmatch(named):
        detail = (
            f"{shown(named)} is not a function's name: letters, digits, _, - and ., at most 100"
        )
        section.fault("name", "bad_name", detail)
    parameters = read_parameters(faults, "parameters", section.value.get("parameters"))
    kind = section.choice("kind", _kind(section), ("script", "python"))
    outputs = _outputs(section)
    names = [*parameters, *outputs]
    scripts, script = ({}, None) if kind == "python" else _scripts(section, names)
    needs = read_needs(faults, "resources", section.value.get("resources"))
    sent = read_files(faults, "files", section.value.get("files"), files)
    node = _body(faults, section, parameters, files)
    spec = {
        "kind": kind,
        "name": named,
        "description": section.text("description", max_chars=10_000),
        "parameters": {key: value.to_json() for key, value in parameters.items()},
        "scripts": scripts,
        "script": script,
        "outputs": outputs,
        "resources": needs.sizes,
        "stage_in": needs.stage_in,
        "files": sent,
        "environment": needs.environment,
        "software": needs.software,
        "retries": node.retries,
        "timeout_s": node.timeout_s,
        "python": _python(section) if kind == "python" else None,
    }
    faults.stop_if_any()
    return spec


def _kind(section: Section) -> str:
    return "python" if section.has("python") else "script"


def _body(
    faults: Faults, section: Section, parameters: Mapping[str, Parameter], files: SentFiles | None
) -> NodeSpec:
    """Retries and time-out, by the rules of a task."""
    keys = ("retries", "timeout", "resources")
    body = {key: section.value[key] for key in keys if section.has(key)}
    # Resources are read once more here for the time-out's default; their faults were noted above.
    quiet = Faults("the function")
    shared = Shared(parameters=parameters, sent_files=files)
    task = TaskReader(quiet, "", "function", {**body, "script": "#!/bin/sh\n"}, shared)
    node = task.node()
    for fault in quiet.errors:
        if not fault.field.startswith("resources"):
            faults.add(fault.field, fault.code, fault.detail)
    return node


def _scripts(section: Section, names: list[str]) -> tuple[dict[str, str], str | None]:
    """The scripts by name, and the name of the one that a call runs."""
    faults = section.faults
    scripts = read_scripts(faults, "scripts", section.value.get("scripts"))
    said = [key for key in ("script", *COMMAND_KEYS) if section.has(key)]
    if not said:
        if not section.has("scripts"):
            section.fault("script", "missing", "a function needs a `script`, or `python`")
        return scripts, next(iter(scripts)) if len(scripts) == 1 else None
    if section.value[said[0]] in scripts:
        return scripts, section.value[said[0]]
    # A template may use parameters and outputs, whatever their values will be.
    inputs = dict.fromkeys(names, "")
    body = {key: section.value[key] for key in said}
    shared = Shared(parameters={name: Parameter(name=name, type="string") for name in inputs})
    task = TaskReader(faults, "", "function", {**body, "task_inputs": inputs}, shared)
    node = task.node()
    return {**scripts, OWN_SCRIPT: node.script or ""}, OWN_SCRIPT


def _outputs(section: Section) -> dict[str, str]:
    key = "outputs" if section.has("outputs") else "task_outputs"
    if not section.has(key):
        return {}
    return read_outputs(section.faults, key, section.value[key])


def _python(section: Section) -> dict[str, Any] | None:
    part = Section(section.faults, "python", section.value.get("python"), PYTHON_KEYS)
    entry = part.text("entry", max_chars=401)
    if not _ENTRY.fullmatch(entry):
        part.fault("entry", "bad_entry", f"must name a callable, not {shown(entry)}")
    requires = part.text("requires_python", max_chars=100)
    if not _VERSIONS.fullmatch(requires):
        detail = f'must be versions as in ">=3.9", not {shown(requires)}'
        part.fault("requires_python", "bad_versions", detail)
    if part.has("source") == part.has("blob"):
        part.fault("source", "missing", "a Python function has either `source` or `blob`")
    python: dict[str, Any] = {
        "entry": entry,
        "codec": part.choice("codec", "json", CODECS),
        "requires_python": requires or None,
    }
    if part.has("source"):
        python["source"] = part.text("source", max_chars=MAX_SOURCE_CHARS)
    if part.has("blob"):
        python["blob"] = _blob(part)
    return python


def _blob(part: Section) -> dict[str, Any]:
    blob = Section(part.faults, "python.blob", part.value["blob"], ("sha256", "size"))
    sha256 = blob.text("sha256", max_chars=64)
    if not _SHA256.fullmatch(sha256):
        blob.fault("sha256", "bad_sha256", f"{shown(sha256)} is not a SHA-256 in lower-case hex")
    return {"sha256": sha256, "size": blob.integer("size", 0, minimum=0, maximum=2**40)}


def function_node(spec: Mapping[str, Any], *, name: str = "call") -> NodeSpec:
    """The node of a function's calls: each call is one instance with arguments of its own.

    Raises BadInput (`no_script`) for a function of several scripts that does not say which to call.
    """
    if spec["kind"] == "script" and spec["script"] is None:
        known = ", ".join(spec["scripts"])
        detail = (
            f"{spec['name']} has several scripts ({known}) and no `script` that says which to call"
        )
        raise BadInput(detail, code="no_script")
    sizes = {"node": 1, "cpu": 1, "ram_mb": 0, "gpu": 0, "disk_mb": 0, "vram_mb": 0, "time_s": 0}
    software = {"conda": [], "pip": [], "container": None, "modules": [], **spec["software"]}
    return NodeSpec(
        name=name,
        kind=spec["kind"],
        script=spec["scripts"].get(spec["script"]) if spec["script"] else None,
        parameters=dict(spec["parameters"]),
        outputs=dict(spec["outputs"]),
        retries=spec["retries"],
        timeout_s=spec["timeout_s"],
        resources={**sizes, **spec["resources"]},
        stage_in=list(spec["stage_in"]),
        files=[{k: e[k] for k in ("destination", "sha256", "size")} for e in spec["files"]],
        environment=dict(spec["environment"]),
        software=software,
        features=[kind for kind in SOFTWARE if software[kind]],
        python=spec["python"],
    )


def check_arguments(spec: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, in their declared types and with the defaults.

    A Python function that declares no parameters takes any, as they are.
    Raises BadInput with every fault; `field` is `arguments.NAME`.
    """
    unfit = tree_fault(dict(arguments))
    if unfit:
        raise BadInput(unfit[1], code=unfit[0], field="arguments")
    if spec["kind"] == "python" and not spec["parameters"]:
        return dict(arguments)
    faults = Faults("the call")
    declared = {
        name: Parameter.from_json(name, stored) for name, stored in spec["parameters"].items()
    }
    typed: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in declared:
            detail = f"{spec['name']} has no parameter {shown(name)}{suggestion(name, declared)}"
            faults.add(f"arguments.{shown_key(name)}", "unknown_parameter", detail)
            continue
        try:
            typed[name] = declared[name].coerce(value)
        except BadInput as error:
            faults.add(f"arguments.{name}", error.code, error.detail)
    for name, parameter in declared.items():
        if name not in arguments and parameter.default is None:
            faults.add(f"arguments.{name}", "missing", f"{name} ({parameter.type}) is not given")
        elif name not in arguments and parameter.default is not None:
            typed[name] = parameter.default
    faults.stop_if_any()
    return typed
