"""An experiment's document becomes an ExperimentSpec: every node of its graph, checked and counted.

The user's page of the format is docs/experiments.md. All faults are found in one run; each names
its field (`tasks.simulate.timeout`), a code and a sentence. Nothing is ever expanded: the time
taken depends on the length of the document only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from airavata_scheduler.models.attachments import SentFiles, read_files
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.experiment_changes import with_parameters
from airavata_scheduler.models.experiment_graph import Graph
from airavata_scheduler.models.experiment_resources import (
    Needs,
    Placement,
    read_needs,
    read_placement,
)
from airavata_scheduler.models.experiment_tasks import (
    BODY_KEYS,
    COMMAND_KEYS,
    Shared,
    TaskReader,
    read_scripts,
)
from airavata_scheduler.models.experiment_text import Document, parse_text
from airavata_scheduler.models.faults import Faults, Section, did_you_mean, shown, shown_key
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.parameters import Parameter, read_parameters
from airavata_scheduler.models.plain_data import tree_fault
from airavata_scheduler.models.sweep import MAX_EXPERIMENT_TASKS

__all__ = [
    "Document",
    "ExperimentSpec",
    "NodeSpec",
    "did_you_mean",
    "parse_text",
    "read_experiment",
    "with_parameters",
]

MAX_NODES = 200
TOP_KEYS = (
    *("name", "description", "function", "parameters", "scripts", "tasks", "resources"),
    *("placement", "on_failure", "files"),
    *BODY_KEYS,
)

FunctionLookup = Callable[[str], Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class ExperimentSpec:
    """A whole experiment. `nodes` are in an order in which parents come first."""

    name: str
    description: str = ""
    function: str | None = None
    nodes: list[NodeSpec] = field(default_factory=list)
    on_failure: str = "continue"
    placement: Placement = field(default_factory=Placement)
    totals: dict[str, int] = field(default_factory=dict)  # instances of each node
    warnings: list[str] = field(default_factory=list)
    # The user's document with files and rows resolved; reading it again gives this spec.
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many tasks the experiment has."""
        return sum(self.totals.values())

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return {**asdict(self), "total": self.total}


def read_experiment(
    document: Mapping[str, Any],
    *,
    functions: FunctionLookup | None = None,
    files: SentFiles | None = None,
    tables: Mapping[str, str] | None = None,
    name: str | None = None,
    max_tasks: int = MAX_EXPERIMENT_TASKS,
) -> ExperimentSpec:
    """Read a document: what `parse_text` gave, or the same as JSON.

    `functions` looks up `name` and `name@number`; `files` and `tables` are what was sent beside the
    document; `name` goes before the document's own. Raises BadInput with all faults in `errors`.
    """
    faults = Faults("the experiment", getattr(document, "lines", None))
    unfit = tree_fault(document)
    if unfit:
        raise BadInput(unfit[1], code=unfit[0], field="document")
    # A copy, since files and rows are resolved in place; far quicker than copy.deepcopy.
    whole = json.loads(json.dumps(document))
    section = Section(faults, "", whole, TOP_KEYS)
    reader = _ExperimentReader(section, functions, files, tables)
    spec = reader.read(name)
    faults.stop_if_any()
    if spec.total > max_tasks:
        detail = f"the experiment has {spec.total:,} tasks; this server takes at most {max_tasks:,}"
        hint = "make the axes shorter or their steps larger, or split the experiment"
        raise BadInput(detail, code="too_many_tasks", field="tasks", hint=hint)
    return spec


class _ExperimentReader:
    """Reads the top of a document, then its tasks, then their graph."""

    def __init__(
        self,
        section: Section,
        functions: FunctionLookup | None,
        files: SentFiles | None,
        tables: Mapping[str, str] | None,
    ) -> None:
        self.section = section
        self.faults = section.faults
        self.functions = functions
        self.files = files
        self.tables = tables
        self.warnings: list[str] = []
        self.explicit: dict[str, set[str]] = {}

    def read(self, given_name: str | None) -> ExperimentSpec:
        section = self.section
        name = self._name(given_name)
        self._move_listed_parameters()
        function_name = section.text("function", max_chars=300) or None
        function = self._function(function_name)
        placement = read_placement(self.faults, "placement", section.value.get("placement"))
        shared = self._shared(function, placement)
        # Also beside an unreadable top: its tasks' own faults are worth knowing at once.
        nodes = self._nodes(shared, function_name)
        graph = Graph(self.faults, nodes, self.explicit)
        return ExperimentSpec(
            name=name,
            description=section.text("description", max_chars=10_000),
            function=function_name,
            nodes=graph.ordered(),
            on_failure=section.choice("on_failure", "continue", ("continue", "stop")),
            placement=placement,
            totals={node: graph.totals[node] for node in graph.order},
            warnings=self.warnings,
            document={**section.value, "name": name},
        )

    def _name(self, given: str | None) -> str:
        name = given or self.section.text("name", max_chars=200)
        if not name.strip():
            self.section.fault("name", "missing", "an experiment needs a name")
        elif len(name) > 200 or not name.isprintable() or name != name.strip():
            detail = "must be one line of at most 200 printable characters, without outer blanks"
            self.section.fault("name", "not_printable", detail)
        return name

    def _move_listed_parameters(self) -> None:
        """The REST form has its parameter sets where this format has declarations."""
        value = self.section.value.get("parameters")
        if isinstance(value, list):
            if "rows" in self.section.value:
                self.section.fault("rows", "ambiguous", "`parameters` lists parameter sets already")
            self.section.value["rows"] = self.section.value.pop("parameters")

    def _function(self, name: str | None) -> Mapping[str, Any] | None:
        if name is None:
            return None
        found = self.functions(name) if self.functions is not None else None
        if found is None:
            detail = f"there is no function {shown(name)} in this project"
            self.section.fault("function", "unknown_function", detail)
        return found

    def _shared(self, function: Mapping[str, Any] | None, placement: Placement) -> Shared:
        section = self.section
        base = function or {}
        inherited = {
            name: Parameter.from_json(name, stored)
            for name, stored in base.get("parameters", {}).items()
        }
        declared = read_parameters(self.faults, "parameters", section.value.get("parameters"))
        scripts = read_scripts(self.faults, "scripts", section.value.get("scripts"))
        needs = read_needs(self.faults, "resources", section.value.get("resources"))
        files = read_files(self.faults, "files", section.value.get("files"), self.files)
        if files:
            section.value["files"] = files
        return Shared(
            parameters={**inherited, **declared},
            scripts={**base.get("scripts", {}), **scripts},
            needs=needs.over(function_needs(base)),
            files=[*base.get("files", []), *files],
            compute=placement.compute,
            sent_files=self.files,
            tables=self.tables,
            function=function,
            infer=not section.has("parameters") and not inherited,
        )

    def _nodes(self, shared: Shared, function: str | None) -> dict[str, NodeSpec]:
        section = self.section
        tasks = section.value.get("tasks")
        if tasks is None:
            return self._single_task(shared, function)
        for key in BODY_KEYS:
            if section.has(key):
                section.fault(key, "misplaced", "belongs into a task, where `tasks` are given")
        if not isinstance(tasks, dict) or not 0 < len(tasks) <= MAX_NODES:
            detail = f"must map 1 to {MAX_NODES} task names to tasks, not {shown(tasks)}"
            section.fault("tasks", "bad_tasks", detail)
            return {}
        folded: dict[str, str] = {}
        nodes = {}
        for name, task in tasks.items():
            twin = folded.setdefault(name.casefold(), name)
            if twin != name:
                detail = f"differs from {twin} in case only, so their folders could be one"
                section.fault(f"tasks.{shown_key(name)}", "duplicate_task", detail)
            nodes[name] = self._read_task(f"tasks.{shown_key(name)}", name, task, shared)
        return nodes

    def _single_task(self, shared: Shared, function: str | None) -> dict[str, NodeSpec]:
        """The short form: a command or a function, with a task's keys at the top."""
        section = self.section
        if function is None and not any(section.has(key) for key in COMMAND_KEYS):
            section.fault(
                "tasks", "missing", "an experiment needs `tasks`, a `command` or a `function`"
            )
            return {}
        body = {key: section.value[key] for key in BODY_KEYS if key in section.value}
        name = (function or "run").partition("@")[0]
        node = self._read_task("", name, body, shared)
        section.value.update({"rows": body["rows"]} if "rows" in body else {})
        return {name: node}

    def _read_task(self, path: str, name: str, task: Any, shared: Shared) -> NodeSpec:
        reader = TaskReader(self.faults, path, name, task, shared)
        node = reader.node()
        self.warnings += reader.warnings
        self.explicit[name] = reader.explicit
        if isinstance(task, dict):
            # Rows and files as they were resolved, so that the stored document is complete.
            task.update(
                {key: reader.section.value[key] for key in ("rows", "files") if key in task}
            )
        return node


def function_needs(spec: Mapping[str, Any]) -> Needs:
    """What a stored function says that it needs."""
    return Needs(
        sizes=dict(spec.get("resources") or {}),
        stage_in=list(spec.get("stage_in") or []),
        environment=dict(spec.get("environment") or {}),
        software=dict(spec.get("software") or {}),
    )
