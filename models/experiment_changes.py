"""An experiment derived from another: the same document with other values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown, suggestion


def with_parameters(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A document with other values, for an experiment derived from another.

    A change (a value, a list or a range) replaces the input of its name in every task that has it;
    else it becomes the default of the declared parameter. Raises BadInput for an unknown name.
    """
    changed: dict[str, Any] = json.loads(json.dumps(document))
    tasks = [task for task in (changed.get("tasks") or {}).values() if isinstance(task, dict)]
    bodies = [changed, *tasks]
    declared = changed.get("parameters")
    declared = declared if isinstance(declared, dict) else {}
    for name, value in changes.items():
        inputs = [b["task_inputs"] for b in bodies if isinstance(b.get("task_inputs"), dict)]
        holders = [given for given in inputs if name in given]
        columns = [
            b["rows"] for b in bodies if isinstance(b.get("rows"), dict) and name in b["rows"]
        ]
        if columns:
            detail = f"{name} is a column of `rows`; derive from a changed file instead"
            raise BadInput(detail, code="not_changeable", field=f"parameters.{name}")
        for given in holders:
            given[name] = value
        if not holders:
            _change_default(changed, declared, bodies, name, value)
    return changed


def _change_default(
    changed: dict[str, Any],
    declared: dict[str, Any],
    bodies: list[dict[str, Any]],
    name: str,
    value: Any,
) -> None:
    entry = declared.get(name)
    if isinstance(entry, dict | str) and not isinstance(value, list | dict):
        whole = {"type": entry} if isinstance(entry, str) else entry
        declared[name] = {**whole, "default": value}
        return
    if changed.get("function") and not changed.get("tasks") and entry is None:
        changed.setdefault("task_inputs", {})[name] = value
        return
    given = [b["task_inputs"] for b in bodies if isinstance(b.get("task_inputs"), dict)]
    known = {*declared, *(key for inputs in given for key in inputs)}
    if isinstance(entry, dict | str):
        detail = f"{name} is an input of no task, so it can have one value, not a list"
    else:
        detail = f"the experiment has no parameter {shown(name)}{suggestion(name, known)}"
    raise BadInput(detail, code="unknown_parameter", field=f"parameters.{name}")
