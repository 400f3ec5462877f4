"""A task's inputs: fixed values, axes, and references to outputs of other tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import Section, shown, shown_key, suggestion
from airavata_scheduler.models.parameters import (
    Parameter,
    Value,
    check_name,
    environment_text,
    inferred,
)
from airavata_scheduler.models.sweep import (
    Axis,
    list_axis,
    looks_like_range,
    product,
    range_axis,
    range_end,
    range_ends_early,
    zip_axis,
)

MAX_AXIS_VALUES = 100_000
MAX_INPUTS = 200

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_-]*)\.([A-Za-z_][A-Za-z0-9_]*)(\[\*\])?\}")


@dataclass(kw_only=True)
class Inputs:
    """What a task's inputs say; the graph completes the references."""

    parameters: dict[str, Parameter] = field(default_factory=dict)
    fixed: dict[str, Value] = field(default_factory=dict)
    axes: list[Axis] = field(default_factory=list)
    references: list[dict[str, Any]] = field(default_factory=list)
    given: set[str] = field(default_factory=set)  # of `fixed`: not by default
    warnings: list[str] = field(default_factory=list)

    @property
    def own(self) -> int:
        """The product of the axes."""
        return product(self.axes)

    def explicit(self) -> set[str]:
        """The names that the task's own inputs and rows set."""
        varying = {name for axis in self.axes for name in axis["names"]}
        return {*self.given, *varying, *(entry["parameter"] for entry in self.references)}

    def names(self) -> set[str]:
        """Every name that has a value."""
        return {*self.parameters, *(reference["parameter"] for reference in self.references)}


class _InputsReader:
    """Reads one task's `task_inputs`, `rows` and `zip`."""

    def __init__(self, section: Section, declared: Mapping[str, Parameter], infer: bool) -> None:
        self.section = section
        self.declared = declared
        self.infer = infer
        self.inputs = Inputs()
        self.axes: dict[str, Axis] = {}

    def read(self, columns: Mapping[str, list[Any]]) -> Inputs:
        """All of it; `columns` are the task's rows."""
        inputs = self.inputs
        paired = [self._axis_of_list("rows", name, values) for name, values in columns.items()]
        rows = [axis for axis in paired if axis is not None]
        given = self.section.value.get("task_inputs") or {}
        if not isinstance(given, dict):
            self._fault("", "not_a_mapping", f"must be a mapping of names, not {shown(given)}")
            given = {}
        if len(given) > MAX_INPUTS:
            self._fault("", "too_many", f"{len(given)} inputs; at most {MAX_INPUTS} fit")
            given = {}
        for name, value in given.items():
            if name in columns:
                self._fault(name, "duplicate_input", "is a column of `rows` already")
            else:
                self._read_input(name, value)
        inputs.axes = [*([zip_axis(rows)] if rows else []), *self._zipped()]
        taken = {name for axis in inputs.axes for name in axis["names"]}
        taken.update(reference["parameter"] for reference in inputs.references)
        for name, parameter in self.declared.items():
            if parameter.default is not None and name not in inputs.fixed and name not in taken:
                inputs.parameters[name] = parameter
                inputs.fixed[name] = parameter.default
        return inputs

    def _fault(self, name: str, code: str, detail: str) -> None:
        self.section.fault(
            f"task_inputs.{shown_key(name)}" if name else "task_inputs", code, detail
        )

    def _read_input(self, name: str, value: Any) -> None:
        try:
            check_name(name)
        except BadInput as error:
            self._fault(name, error.code, error.detail)
            return
        if isinstance(value, str) and "${" in value.replace("$${", ""):
            self._read_reference(name, value)
        elif isinstance(value, list):
            axis = self._axis_of_list("task_inputs", name, value)
            if axis is not None:
                self.axes[name] = axis
        elif self._is_range(name, value):
            self._read_range(name, value)
        else:
            self._read_fixed(name, value)

    def _read_reference(self, name: str, text: str) -> None:
        parts = _REFERENCE.fullmatch(text)
        if parts is None:
            detail = (
                f"{shown(text)} is not a reference; write ${{task.OUTPUT}}, or ${{task.OUTPUT[*]}}"
            )
            self._fault(name, "bad_reference", f"{detail} for all; $${{ stands for a plain ${{")
            return
        self.inputs.references.append(
            {
                "parameter": name,
                "node": parts[1],
                "output": parts[2],
                "gather": parts[3] is not None,
                "many": False,
                "divisor": 1,
            }
        )

    def _is_range(self, name: str, value: Any) -> bool:
        if not looks_like_range(value):
            return False
        parameter = self.declared.get(name)
        return self.infer if parameter is None else parameter.type in {"int", "float"}

    def _read_range(self, name: str, text: str) -> None:
        parameter = self.declared.get(name)
        try:
            if parameter is None:
                kind = "float" if re.search(r"[0-9]\.[0-9]|e-", text) else "int"
                parameter = Parameter(name=name, type=kind)
            axis = range_axis(name, text, parameter.type)
            for end in (text.strip().split("..")[0], range_end(axis)):
                if "^" not in str(end):
                    parameter.coerce(float(end) if parameter.type == "float" else end)
        except BadInput as error:
            self._fault(name, error.code, error.detail)
            return
        if range_ends_early(axis, text):
            last = environment_text(range_end(axis))
            where = self.section.where(f"task_inputs.{name}")
            self.inputs.warnings.append(f"{where}: {text} ends at {last}, by its step")
        self.inputs.parameters[name] = parameter
        self.axes[name] = axis

    def _read_fixed(self, name: str, value: Any) -> None:
        parameter = self._parameter(f"task_inputs.{name}", name, [value])
        if parameter is None:
            return
        coerced = self._coerced(f"task_inputs.{name}", parameter, value)
        if coerced is not None:
            self.inputs.parameters[name] = parameter
            self.inputs.fixed[name] = coerced
            self.inputs.given.add(name)

    def _axis_of_list(self, key: str, name: str, values: list[Any]) -> Axis | None:
        where = f"{key}.{name}"
        if not 0 < len(values) <= MAX_AXIS_VALUES:
            detail = f"a list must have 1 to {MAX_AXIS_VALUES} values, not {len(values)}"
            self.section.fault(where, "bad_list", detail)
            return None
        parameter = self._parameter(where, name, values)
        if parameter is None:
            return None
        kept = []
        for position, value in enumerate(values):
            coerced = self._coerced(f"{where}[{position}]", parameter, value)
            kept.append(coerced)
        if any(value is None for value in kept):
            return None
        self.inputs.parameters[name] = parameter
        return list_axis(name, [value for value in kept if value is not None])

    def _coerced(self, where: str, parameter: Parameter, value: Any) -> Value | None:
        try:
            if isinstance(value, str) and "${" in value:
                if "${" in value.replace("$${", ""):
                    raise BadInput("a reference cannot stand in a list", code="bad_reference")
                value = value.replace("$${", "${")
            return parameter.coerce(value)
        except BadInput as error:
            self.section.fault(where, error.code, error.detail)
            return None

    def _parameter(self, where: str, name: str, values: list[Any]) -> Parameter | None:
        """The declared parameter; where nothing at all is declared, one of the values' own type."""
        if name in self.declared:
            return self.declared[name]
        if not self.infer:
            detail = f"{name} is not declared in `parameters`{suggestion(name, self.declared)}"
            self.section.fault(where, "unknown_parameter", detail)
            return None
        types = {inferred(name, value).type for value in values}
        kind = "float" if types == {"int", "float"} else min(types)
        return Parameter(name=name, type=kind if len(types) == 1 or kind == "float" else "string")

    def _zipped(self) -> list[Axis]:
        """The axes in their order, those of each `zip` group as one at the place of its first."""
        groups = self._zip_groups()
        axes = []
        for name, axis in self.axes.items():
            group = next((group for group in groups if name in group), None)
            if group is None:
                axes.append(axis)
            elif name == next(first for first in self.axes if first in group):
                try:
                    axes.append(zip_axis([self.axes[member] for member in group]))
                except BadInput as error:
                    self.section.fault("zip", error.code, error.detail)
        return axes

    def _zip_groups(self) -> list[list[str]]:
        listed = self.section.items("zip", maximum=100)
        groups = listed if listed and isinstance(listed[0], list) else [listed] if listed else []
        seen: set[str] = set()
        kept = []
        for group in groups:
            names = group if isinstance(group, list) else [group]
            wrong = [name for name in names if not isinstance(name, str) or name not in self.axes]
            if wrong:
                detail = f"{shown(wrong[0])} is not a list or range of `task_inputs`"
                detail += suggestion(wrong[0], self.axes) if isinstance(wrong[0], str) else ""
                self.section.fault("zip", "unknown_axis", detail)
            elif len(names) < 2 or len({*names, *seen}) < len(names) + len(seen):
                detail = "must name two or more different inputs, as in [A, B]"
                self.section.fault("zip", "bad_zip", detail)
            else:
                kept.append(names)
                seen.update(names)
        return kept


def read_inputs(
    section: Section,
    declared: Mapping[str, Parameter],
    columns: Mapping[str, list[Any]],
    *,
    infer: bool,
) -> Inputs:
    """What a task's section says about its inputs.

    `infer` is for documents that declare no parameters: types then come from the values.
    """
    return _InputsReader(section, declared, infer).read(columns)
