"""Calls of functions: tasks that are queued at once, without a plan job in between.

A user's calls of one function version are the instances of the one node of one hidden experiment of
kind `calls`, which grows with each call and never ends.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import peewee

from airavata_scheduler.models import outbox
from airavata_scheduler.models.counters import CounterChanges
from airavata_scheduler.models.database import change, execute, now_ms, retried, transaction
from airavata_scheduler.models.errors import Conflict, NotFound
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.flow_create import NODE_COLUMNS, node_row
from airavata_scheduler.models.function_file import function_node
from airavata_scheduler.models.ids import new_id, new_ids
from airavata_scheduler.models.node_facts import NodeFacts, node_facts
from airavata_scheduler.models.placement import Choice, choose, usable_computes
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.states import ExperimentState, NodeState, TaskState
from airavata_scheduler.models.task_rows import for_update
from airavata_scheduler.models.wakeups import Wakeups

PRIORITY = 10  # before sweeps: somebody waits for the answer
CHOICES_KEPT_S = 2.0

_COLUMNS = (
    *("id", "experiment_id", "node_id", "idx", "generation", "compute_id", "state", "priority"),
    *("available_at", "cpu", "ram_mb", "gpu", "gate_open", "pinned", "arguments", "created_at"),
)
_choices: dict[tuple[str, str, tuple[str, ...]], tuple[float, list[Choice]]] = {}
_choices_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Calls:
    """The tasks that were made, in the order of their arguments."""

    task_ids: list[str]
    experiment_id: str
    wakeups: Wakeups = field(default_factory=Wakeups)


@retried
def add_calls(
    *,
    function_version_id: str,
    owner_id: str,
    arguments: Sequence[Mapping[str, Any]],
    compute: Sequence[str] | None = None,
    priority: int = PRIORITY,
) -> Calls:
    """Queue one task for each of `arguments`.

    These are {"encoding", "data"}, or {"encoding": "blob", "sha256"}. `compute` are ids of the
    resources that may run them, and then they stay where they are put; without any, all that the
    project may use, and they are moved where the agents of one have left. Raises NotFound
    (`function_unknown`), or Conflict (`no_compute`) when nothing can ever run the function.
    """
    node, project_id = _calls_node(function_version_id, owner_id)
    weights = _weights(node, project_id, tuple(sorted(compute or ())))
    with transaction():
        rows = execute(f"SELECT total FROM nodes WHERE id = %s{for_update()}", [node.id])
        first, now = int(rows[0][0]), now_ms()
        task_ids = new_ids(len(arguments))
        placed = _placed(weights, len(arguments), first)
        insert_rows(
            "tasks",
            _COLUMNS,
            [
                (
                    *(task_id, node.experiment_id, node.id, first + offset, 0, compute_id),
                    *(int(TaskState.QUEUED), priority, now, *node.needs),
                    *(_gate_open(node, given), bool(compute)),
                    *(canonical_json(dict(given)), now),
                )
                for offset, (task_id, given, compute_id) in enumerate(
                    zip(task_ids, arguments, placed, strict=True)
                )
            ],
        )
        total = first + len(task_ids)
        change(
            "UPDATE nodes SET total = %s, next_index = %s WHERE id = %s", [total, total, node.id]
        )
        changes = CounterChanges()
        changes.add(node.id, TaskState.QUEUED, len(task_ids))
        changes.apply()
    return Calls(
        task_ids=task_ids,
        experiment_id=node.experiment_id,
        wakeups=Wakeups(computes=set(placed)),
    )


def _gate_open(node: NodeFacts, given: Mapping[str, Any]) -> bool:
    """Arguments that lie in the storage have to be fetched before the payload starts."""
    return node.gate_open and given.get("encoding") != "blob"


def _placed(weights: dict[str, float], count: int, first: int) -> list[str]:
    """A compute resource for each call: smooth weighted round robin, going on where calls ended."""
    if len(weights) == 1:
        return list(weights) * count
    best = sorted(weights, key=lambda compute_id: -weights[compute_id])
    given = {compute_id: first * weights[compute_id] % 1.0 for compute_id in best}
    placed = []
    for _ in range(count):
        for compute_id in best:
            given[compute_id] += weights[compute_id]
        chosen = max(best, key=lambda compute_id: given[compute_id])
        given[chosen] -= 1.0
        placed.append(chosen)
    return placed


def _weights(node: NodeFacts, project_id: str, allowed: tuple[str, ...]) -> dict[str, float]:
    """The shares of the resources that can run the function; two seconds old at most."""
    key = (node.id, project_id, allowed)
    with _choices_lock:
        read_at_s, choices = _choices.get(key, (0.0, []))
    if not choices or time.monotonic() - read_at_s > CHOICES_KEPT_S:
        choices = choose(node.spec, usable_computes(project_id, allowed))
        with _choices_lock:
            if len(_choices) > 1000:
                _choices.clear()
            _choices[key] = (time.monotonic(), choices)
    able = {choice.compute.id: choice.share for choice in choices if choice.able}
    if not able:
        reasons = "; ".join(f"{c.compute.name}: {c.why}" for c in choices)
        raise Conflict(
            f"No compute resource can run {node.name}. {reasons or 'The project has none'}.",
            code="no_compute",
            hint="Create a compute resource, or ask for less in the function's resources.",
        )
    return {compute_id: share for compute_id, share in able.items() if share} or able


def _calls_node(function_version_id: str, owner_id: str) -> tuple[NodeFacts, str]:
    """The node that holds a user's calls of a function version, made on the first call."""
    sql = (
        "SELECT n.id, e.project_id FROM experiments e JOIN nodes n ON n.experiment_id = e.id "
        "WHERE e.function_version_id = %s AND e.owner_id = %s"
    )
    rows = execute(sql, [function_version_id, owner_id])
    if not rows:
        # Another request may make it at the same moment: then theirs is found.
        with suppress(peewee.IntegrityError):
            _create(function_version_id, owner_id)
        rows = execute(sql, [function_version_id, owner_id])
    return node_facts(rows[0][0]), rows[0][1]


def _create(function_version_id: str, owner_id: str) -> None:
    with transaction():
        rows = execute(
            "SELECT f.project_id, f.name, v.number, v.spec FROM function_versions v "
            "JOIN functions f ON f.id = v.function_id WHERE v.id = %s",
            [function_version_id],
        )
        if not rows:
            raise NotFound("There is no such function version.", code="function_unknown")
        project_id, name, number, spec = rows[0]
        experiment_id, now = new_id(), now_ms()
        insert_rows(
            "experiments",
            (
                *("id", "project_id", "owner_id", "kind", "function_version_id", "name", "state"),
                *("spec", "source", "total", "on_failure", "compute", "priority", "version"),
                *("created_at", "submitted_at", "started_at", "updated_at"),
            ),
            [
                (
                    *(experiment_id, project_id, owner_id, "calls", function_version_id),
                    *(f"{name}@{number}", ExperimentState.RUNNING.value, "{}", "", 0, "continue"),
                    *("[]", PRIORITY, 1, now, now, now, now),
                )
            ],
        )
        outbox.created("experiment", experiment_id, project_id=project_id, owner_id=owner_id)
        node = function_node(json.loads(spec), name=name)
        insert_rows("nodes", NODE_COLUMNS, [node_row(experiment_id, 0, node, 0)])
        change(
            "UPDATE nodes SET state = %s, opened_at = %s WHERE experiment_id = %s",
            [NodeState.OPEN.value, now, experiment_id],
        )
