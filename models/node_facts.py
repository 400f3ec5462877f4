"""What never changes about a node once its experiment is stored, kept in memory.

Claims and reports need a node's specification thousands of times a second; it is read from SQL
once per process. Only immutable columns are here: counters and states are read where they count.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models.database import execute, marks

CAPACITY = 8192  # nodes kept per process; a specification is a few KiB at most

_COLUMNS = "n.id, n.experiment_id, n.name, n.position, n.spec, e.kind, e.priority, e.on_failure"

_known: OrderedDict[str, NodeFacts] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """The immutable side of one node.

    `own` is the number of instances per instance of the `foreach` parent; `parent_id` and
    `children` follow `foreach` edges only, `after` names the barriers in front of the node.
    """

    id: str
    experiment_id: str
    name: str
    position: int
    spec: dict[str, Any]
    is_calls: bool
    priority: int
    stops_on_failure: bool
    parent_id: str | None
    children: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def own(self) -> int:
        """Instances per instance of the `foreach` parent."""
        return int(self.spec.get("own") or 1)

    @property
    def retries(self) -> int:
        """How often a failure of the task itself is tried again."""
        return int(self.spec.get("retries") or 0)

    @property
    def timeout_s(self) -> float | None:
        """How long the payload may run; None means as long as it likes."""
        value = self.spec.get("timeout_s")
        return None if value is None else float(value)

    @property
    def needs(self) -> tuple[int, int, int]:
        """Cores, MiB of memory and GPUs of one instance.

        One core is counted where none is named; an explicit 0 is a task that mostly waits.
        """
        resources = self.spec.get("resources") or {}
        return (
            int(resources.get("cpu", 1)),
            int(resources.get("ram_mb") or 0),
            int(resources.get("gpu") or 0),
        )

    @property
    def gate_open(self) -> bool:
        """Whether the claim itself may start the payload: there is nothing to stage before."""
        return not any(self.spec.get(key) for key in ("stage_in", "references", "files"))


def node_facts(node_id: str) -> NodeFacts:
    """The facts of one node. Raises KeyError when there is no such node."""
    return facts_of([node_id])[node_id]


def facts_of(node_ids: Iterable[str]) -> dict[str, NodeFacts]:
    """The facts of several nodes, at most one query for those not in memory yet.

    Raises KeyError when one of them does not exist.
    """
    wanted = set(node_ids)
    with _lock:
        found = {node_id: _known[node_id] for node_id in wanted if node_id in _known}
        for node_id in found:
            _known.move_to_end(node_id)
    missing = wanted - found.keys()
    if missing:
        read = _read(sorted(missing))
        found |= {node_id: read[node_id] for node_id in missing}
        _keep(read)
    return found


def graph_of(experiment_id: str) -> list[NodeFacts]:
    """All nodes of one experiment in the order of its file."""
    rows = execute(f"SELECT id FROM nodes WHERE experiment_id = {marks([0])}", [experiment_id])
    return sorted(facts_of(row[0] for row in rows).values(), key=lambda node: node.position)


def _keep(read: dict[str, NodeFacts]) -> None:
    with _lock:
        _known.update(read)
        while len(_known) > CAPACITY:
            _known.popitem(last=False)


def _read(node_ids: list[str]) -> dict[str, NodeFacts]:
    """The named nodes together with their whole graphs, whose edges go by name."""
    rows = execute(
        f"SELECT {_COLUMNS} FROM nodes n JOIN experiments e ON e.id = n.experiment_id "
        "WHERE n.experiment_id IN (SELECT experiment_id FROM nodes "
        f"WHERE id IN ({marks(node_ids)}))",
        node_ids,
    )
    specs = {row[0]: json.loads(row[4]) for row in rows}
    by_name = {(row[1], row[2]): row[0] for row in rows}
    parents = {
        row[0]: by_name[row[1], specs[row[0]]["foreach"]]
        for row in rows
        if specs[row[0]].get("foreach") is not None
    }
    return {
        row[0]: NodeFacts(
            id=row[0],
            experiment_id=row[1],
            name=row[2],
            position=row[3],
            spec=specs[row[0]],
            is_calls=row[5] == "calls",
            priority=row[6],
            stops_on_failure=row[7] == "stop",
            parent_id=parents.get(row[0]),
            children=tuple(sorted(c for c, parent in parents.items() if parent == row[0])),
            after=tuple(by_name[row[1], name] for name in _barriers(specs[row[0]])),
        )
        for row in rows
    }


def _barriers(spec: dict[str, Any]) -> list[str]:
    """The nodes that must have ended before this one opens: named ones, and gathered outputs."""
    named = list(spec.get("depends_on") or [])
    gathered = [r["node"] for r in spec.get("references") or [] if r.get("gather")]
    ordinary = [
        r["node"]
        for r in spec.get("references") or []
        if not r.get("gather") and r["node"] != spec.get("foreach")
    ]
    return sorted({*named, *gathered, *_unforeseen(ordinary, spec)})


def _unforeseen(nodes: list[str], spec: dict[str, Any]) -> list[str]:
    """References to single outputs of nodes further up a `foreach` chain wait for nothing more.

    A node without `foreach` that reads one output of another has to wait for that node.
    """
    return nodes if spec.get("foreach") is None else []
