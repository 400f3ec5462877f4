"""The numbers of a dry run: what an experiment would be, before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airavata_scheduler.models.experiment_file import ExperimentSpec
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.sweep import compile_decoder

FIRST = 5
MAX_SHOWN_CHARS = 200


def preview(spec: ExperimentSpec, *, hints: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `--dry-run` prints; `hints` says where tasks would run and why, as the planner knows it.

    `core_hours` is the most that the tasks may take, None where a task says no time.
    `bytes_to_stage` counts the files sent along, once for each task that gets them; sizes within
    storage resources are not known before the start.
    """
    nodes = [_node(node, spec.totals[node.name]) for node in spec.nodes]
    hours = [node["core_hours"] for node in nodes]
    wanted = sorted({feature for node in spec.nodes for feature in node.features})
    files = {entry["sha256"]: entry["size"] for node in spec.nodes for entry in node.files}
    return {
        "name": spec.name,
        "tasks": spec.total,
        "nodes": nodes,
        "core_hours": None if None in hours else round(sum(hours), 3),
        "bytes_to_stage": sum(node["bytes_to_stage"] for node in nodes),
        "bytes_to_send": sum(files.values()),
        "features": wanted,
        "warnings": [
            *spec.warnings,
            *_warnings(spec, wanted, None if None in hours else sum(hours)),
        ],
        "placement": dict(hints or {}),
    }


def _node(node: NodeSpec, tasks: int) -> dict[str, Any]:
    stored = node.to_json()
    decoder = compile_decoder(stored)
    sizes = node.resources
    cores = sizes["cpu"] * sizes["node"]
    hours = tasks * cores * sizes["time_s"] / 3600 if sizes["time_s"] else None
    return {
        "name": node.name,
        "kind": node.kind,
        "tasks": tasks,
        "foreach": node.foreach,
        "depends_on": node.depends_on,
        "first": [_shown(node, decoder(index), index) for index in range(min(FIRST, tasks))],
        "cpu": cores,
        "ram_mb": sizes["ram_mb"],
        "gpu": sizes["gpu"],
        "time_s": sizes["time_s"],
        "core_hours": None if hours is None else round(hours, 3),
        "bytes_to_stage": tasks * sum(entry["size"] for entry in node.files),
        "stage_in": [f"{e['storage']}:{e['source']}" for e in node.stage_in],
        "features": node.features,
    }


def _shown(node: NodeSpec, environment: dict[str, str], index: int) -> dict[str, str]:
    """One instance's variables, references as the instance they read."""
    shown = {name: text[:MAX_SHOWN_CHARS] for name, text in environment.items()}
    for entry in node.references:
        which = "*" if entry["gather"] else str(index // entry["divisor"])
        shown[entry["parameter"]] = f"{entry['node']}[{which}].{entry['output']}"
    return shown


def _warnings(spec: ExperimentSpec, features: list[str], core_hours: float | None) -> list[str]:
    warnings = []
    if features:
        listed = ", ".join(features)
        warnings.append(f"tasks ask for {listed}: they wait until there is an agent that offers it")
    budget = spec.placement.budget_core_hours
    if budget is not None and core_hours is None:
        warnings.append("a budget is set, but not every task says its compute time")
    elif budget is not None and core_hours is not None and core_hours > budget:
        warnings.append(
            f"the tasks may take {core_hours:g} core-hours, more than the budget of {budget:g}"
        )
    return warnings
