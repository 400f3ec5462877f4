"""One entry of `tasks` becomes one NodeSpec; the graph completes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.models.attachments import SentFiles, read_files, read_rows
from airavata_scheduler.models.command_template import MAX_TEMPLATE_CHARS, template_script
from airavata_scheduler.models.durations import parse_duration, parse_walltime
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.experiment_inputs import Inputs, read_inputs
from airavata_scheduler.models.experiment_resources import (
    SOFTWARE,
    Needs,
    read_compute_names,
    read_needs,
)
from airavata_scheduler.models.faults import Faults, Section, shown, shown_key, suggestion
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.parameters import Parameter, check_name
from airavata_scheduler.models.paths import relative_path, twin_key

MAX_SCRIPT_BYTES = 1024 * 1024
MAX_RETRIES = 100
MAX_OUTPUTS = 100

COMMAND_KEYS = ("commandTemplate", "command_template", "command")
# What a task says, and an experiment of one task says at its top.
BODY_KEYS = (*COMMAND_KEYS, "task_inputs", "task_outputs", "rows", "zip", "retries", "timeout")
TASK_KEYS = (
    *("script", "foreach", "depends_on", "requires", "resources", "files", "placement"),
    *BODY_KEYS,
)

_TASK_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the tasks of one document share: its own sections over those of its function."""

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    files: list[dict[str, Any]] = field(default_factory=list)
    compute: list[str] = field(default_factory=list)
    sent_files: SentFiles | None = None
    tables: Mapping[str, str] | None = None
    # The function's own body, for tasks that name no script: script, python, outputs, retries, …
    function: Mapping[str, Any] | None = None
    infer: bool = False


def read_scripts(faults: Faults, path: str, value: Any) -> dict[str, str]:
    """The `scripts` section: NAME → text."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.add(path, "not_a_mapping", f"must be a mapping of names, not {shown(value)}")
        return {}
    scripts = {}
    for name, script in value.items():
        where = f"{path}.{shown_key(name)}"
        if not _TASK_NAME.fullmatch(name):
            detail = "is not a name: letters, digits, _ and -, at most 64, a letter or _ first"
            faults.add(where, "bad_name", detail)
        elif read_script(faults, where, script):
            scripts[name] = script
    return scripts


def read_script(faults: Faults, where: str, script: Any) -> bool:
    """Whether a script can be stored and run; notes why not."""
    if not isinstance(script, str) or not script.strip():
        faults.add(where, "not_a_text", f"must be the text of a script, not {shown(script)}")
        return False
    size = len(script.encode("utf-8", "surrogatepass"))
    if size > MAX_SCRIPT_BYTES:
        detail = f"has {size:,} bytes; at most {MAX_SCRIPT_BYTES:,} fit; send it under `files:`"
        faults.add(where, "script_too_large", detail)
        return False
    first = script.split("\n", 1)[0]
    if first.startswith("#!") and first.endswith("\r"):
        detail = "has Windows line ends, so its first line names no program; save it with Unix ones"
        faults.add(where, "windows_line_ends", detail)
        return False
    return True


class TaskReader:
    """Reads one task; `node()` gives its NodeSpec.

    Afterwards `warnings` has what is odd but allowed, and `explicit` the names that its inputs set.
    """

    def __init__(self, faults: Faults, path: str, name: str, value: Any, shared: Shared) -> None:
        self.faults = faults
        self.name = name
        self.shared = shared
        self.section = Section(faults, path, value, TASK_KEYS)
        self.warnings: list[str] = []
        self.explicit: set[str] = set()
        if not _TASK_NAME.fullmatch(name):
            detail = "is not a task's name: letters, digits, _ and -, at most 64, no digit first"
            faults.add(path, "bad_name", detail)

    def node(self) -> NodeSpec:
        """The task as a node; its references are still without divisors."""
        section, shared = self.section, self.shared
        script, template, used = self._script()
        python = None if script is not None else (shared.function or {}).get("python")
        if script is None and python is None:
            section.fault("script", "missing", f"must name a script{self._known_scripts()}")
        inputs = self._inputs(python=python is not None)
        self.explicit = inputs.explicit()
        outputs = self._outputs()
        self._check_names(inputs, outputs, used)
        # A foreach task inherits its parent's values, which are not known here.
        if script is not None and template is None and not section.has("foreach"):
            self._warn_of_unset(script, inputs, outputs)
        needs = read_needs(self.faults, section.where("resources"), section.value.get("resources"))
        needs = needs.over(shared.needs)
        software = needs.all_software()
        foreach = section.texts("foreach", maximum=1)
        return NodeSpec(
            name=self.name,
            kind="script" if python is None else "python",
            script=script,
            command_template=template,
            parameters={name: p.to_json() for name, p in inputs.parameters.items()},
            fixed=inputs.fixed,
            axes=inputs.axes,
            own=inputs.own,
            references=inputs.references,
            foreach=foreach[0] if foreach else None,
            depends_on=section.texts("depends_on", maximum=200),
            requires=section.choice("requires", "any", ("any", "all")),
            outputs=outputs,
            retries=section.integer(
                "retries", self._from_function("retries", 0), minimum=0, maximum=MAX_RETRIES
            ),
            timeout_s=self._timeout(needs),
            resources=needs.all_sizes(),
            stage_in=needs.stage_in,
            files=self._files(),
            environment=needs.environment,
            software=software,
            features=[kind for kind in SOFTWARE if software[kind]],
            python=python,
            compute=self._compute(),
        )

    def _from_function(self, key: str, default: Any) -> Any:
        """What the function says, for a task that runs the function's own script."""
        if self.shared.function is None or self.section.has("script"):
            return default
        value = self.shared.function.get(key)
        return default if value is None else value

    def _script(self) -> tuple[str | None, str | None, list[str]]:
        """The script, the template it was made of, and the template's names."""
        section = self.section
        said = [key for key in ("script", *COMMAND_KEYS) if section.has(key)]
        if len(said) > 1:
            section.fault(said[1], "ambiguous", f"a task has one of {said[0]} and {said[1]}")
        if said and said[0] != "script":
            return self._command(said[0])
        name = section.text("script", max_chars=MAX_SCRIPT_BYTES)
        if not name:
            named = self._from_function("script", None)
            return (self.shared.scripts.get(named) if named else None), None, []
        if name in self.shared.scripts:
            return self.shared.scripts[name], None, []
        if name.startswith("#!") or "\n" in name:
            return (
                (name if read_script(self.faults, section.where("script"), name) else None),
                None,
                [],
            )
        detail = f"there is no script {shown(name)}{suggestion(name, self.shared.scripts)}"
        if " " in name:
            detail += "; if this is the text of a script, write it as a block below `script: |`"
        section.fault("script", "unknown_script", detail)
        return "", None, []

    def _command(self, key: str) -> tuple[str | None, str | None, list[str]]:
        template = self.section.text(key, max_chars=MAX_TEMPLATE_CHARS)
        try:
            script, names = template_script(template)
        except BadInput as error:
            self.section.fault(key, error.code, error.detail)
            return "", template, []
        return script, template, names

    def _known_scripts(self) -> str:
        names = sorted(self.shared.scripts)[:10]
        return f" of `scripts`: {', '.join(names)}" if names else "; add it under `scripts:`"

    def _inputs(self, *, python: bool) -> Inputs:
        section, shared = self.section, self.shared
        declared = shared.parameters
        if python and shared.function is not None and shared.function["parameters"]:
            # A Python function takes its own parameters, and fails with any other.
            declared = {name: declared[name] for name in shared.function["parameters"]}
        rows = section.value.get("rows")
        columns = read_rows(self.faults, section.where("rows"), rows, shared.tables)
        if columns:
            section.value["rows"] = columns
        inputs = read_inputs(section, declared, columns, infer=shared.infer)
        self.warnings += inputs.warnings
        return inputs

    def _outputs(self) -> dict[str, str]:
        section = self.section
        value = section.value.get("task_outputs")
        if value is None:
            return dict(self._from_function("outputs", {}))
        return read_outputs(self.faults, section.where("task_outputs"), value)

    def _check_names(self, inputs: Inputs, outputs: Mapping[str, str], used: list[str]) -> None:
        """One variable has one meaning, and a template's names all have a value."""
        given = self.section.value.get("task_inputs")
        for name in outputs:
            if isinstance(given, dict) and name in given:
                detail = f"{name} is an input of this task already; its variable can be one only"
                self.section.fault(f"task_outputs.{name}", "duplicate_output", detail)
        known = inputs.names() | set(outputs)
        for name in used:
            if name not in known:
                detail = f"{{{{{name}}}}} has no value here{suggestion(name, known)}"
                self.section.fault("command", "unknown_parameter", detail)

    def _warn_of_unset(self, script: str, inputs: Inputs, outputs: Mapping[str, str]) -> None:
        unset = set(self.shared.parameters) - inputs.names() - set(outputs)
        for name in sorted(unset & set(re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", script))):
            self.warnings.append(
                f"{self.section.path}: the script reads ${name}, which has no default and no input"
            )

    def _timeout(self, needs: Needs) -> float | None:
        walltime = needs.sizes.get("time_s")
        if not self.section.has("timeout"):
            inherited = self._from_function("timeout_s", None)
            return inherited if inherited is not None else float(walltime) if walltime else None
        try:
            value = self.section.value["timeout"]
            clock = isinstance(value, str) and ":" in value
            timeout_s = float(parse_walltime(value)) if clock else parse_duration(value)
        except BadInput as error:
            self.section.fault("timeout", error.code, error.detail)
            return None
        if walltime and timeout_s > walltime:
            self.warnings.append(
                f"{self.section.where('timeout')} is longer than the compute time, which ends first"
            )
            return float(walltime)
        return timeout_s

    def _files(self) -> list[dict[str, Any]]:
        section = self.section
        where, value = section.where("files"), section.value.get("files")
        files = read_files(self.faults, where, value, self.shared.sent_files)
        if files:
            section.value["files"] = files
        own = {twin_key(entry["destination"]) for entry in files}
        inherited = [e for e in self.shared.files if twin_key(e["destination"]) not in own]
        return [
            {key: entry[key] for key in ("destination", "sha256", "size")}
            for entry in [*inherited, *files]
        ]

    def _compute(self) -> list[str]:
        path = self.section.where("placement")
        placement = Section(self.faults, path, self.section.value.get("placement"), ("compute",))
        return read_compute_names(placement) or list(self.shared.compute)


def read_outputs(faults: Faults, path: str, value: Any) -> dict[str, str]:
    """The `task_outputs` section: NAME → path or pattern, relative to the task's directory."""
    if not isinstance(value, dict) or len(value) > MAX_OUTPUTS:
        detail = f'must map at most {MAX_OUTPUTS} names to paths, as in {{RESULT: "result.csv"}}'
        faults.add(path, "not_a_mapping", detail)
        return {}
    outputs: dict[str, str] = {}
    places: dict[str, str] = {}
    for name, pattern in value.items():
        where = f"{path}.{shown_key(name)}"
        try:
            check_name(name)
            checked = relative_path(pattern, globs=True)
        except BadInput as error:
            faults.add(where, error.code, error.detail)
            continue
        twin = places.setdefault(twin_key(checked), name)
        if twin != name:
            detail = f"{shown(pattern)} is the place of {twin} already"
            faults.add(where, "duplicate_output", detail)
        outputs[name] = checked
    return outputs
