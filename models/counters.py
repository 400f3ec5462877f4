"""The progress counters of nodes: kept incrementally, never counted.

Every transaction that moves tasks collects the changes here and applies them at its end, one
UPDATE per node in the order of node ids. Tasks are always locked before nodes, so that two
transactions cannot wait for each other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models.database import change, dialect, execute, marks
from airavata_scheduler.models.states import NodeState, TaskState, may_follow

COUNTER_COLUMNS = tuple(state.name.lower() for state in TaskState)
DEFAULT_WINDOW = 2000

_STANDING = "id, experiment_id, state, total, next_index, generation, selection, " + ", ".join(
    COUNTER_COLUMNS
)
_ENDED = ("completed", "failed", "cancelled", "skipped")

_window = DEFAULT_WINDOW


def configure(window: int) -> None:
    """Set for this process how many rows of one node wait to be claimed (SWEEP_WINDOW)."""
    global _window  # noqa: PLW0603 - a setting, read once at the start of each process
    _window = window


def window_rows() -> int:
    """How many rows of one node wait to be claimed at a time."""
    return _window


@dataclass(frozen=True, kw_only=True)
class NodeStanding:
    """The moving side of one node at one moment."""

    id: str
    experiment_id: str
    state: NodeState
    total: int
    next_index: int
    generation: int
    selection: dict[str, Any] | None
    counts: dict[str, int]

    @property
    def waiting(self) -> int:
        """Instances that exist only as numbers so far."""
        return self.total - sum(self.counts.values())

    @property
    def ended(self) -> int:
        """Instances with their final state."""
        return sum(self.counts[name] for name in _ENDED)

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the node is still to come."""
        return self.ended >= self.total

    @property
    def may_expand(self) -> bool:
        """Whether the node itself makes instances; those below `foreach` come of their parents."""
        return self.waiting > 0 and (self.next_index < self.total or self.selection is not None)

    def wants_rows(self) -> bool:
        """Whether less than half of the window is left, and more is to come."""
        window = window_rows()
        open_ = self.state is NodeState.OPEN
        return open_ and self.may_expand and self.room(window) > window // 2

    def room(self, window: int) -> int:
        """How many more rows may wait to be claimed."""
        return max(0, window - self.counts["queued"] - self.counts["pending"])


class CounterChanges:
    """What one transaction changes in the counters; apply it as the last locks it takes."""

    def __init__(self) -> None:
        self._changes: Counter[tuple[str, str]] = Counter()

    def move(self, node_id: str, before: TaskState, after: TaskState, count: int = 1) -> None:
        """`count` instances went from one state to another. Raises ValueError if they may not."""
        if not may_follow(before, after):
            raise ValueError(f"a task may not go from {before.name} to {after.name}")
        self._changes[node_id, before.name.lower()] -= count
        self._changes[node_id, after.name.lower()] += count

    def add(self, node_id: str, state: TaskState, count: int = 1) -> None:
        """`count` instances, which had no row and no end before, are now in `state`."""
        self._changes[node_id, state.name.lower()] += count

    @property
    def node_ids(self) -> list[str]:
        """The nodes with a change, in the order in which they are locked."""
        return sorted({node_id for (node_id, _), count in self._changes.items() if count})

    def apply(self) -> None:
        """Write the changes: one UPDATE per node, by ascending node id."""
        for node_id in self.node_ids:
            columns = [c for c in COUNTER_COLUMNS if self._changes[node_id, c]]
            assignments = ", ".join(f"{column} = {column} + %s" for column in columns)
            change(
                f"UPDATE nodes SET {assignments} WHERE id = %s",
                [*(self._changes[node_id, c] for c in columns), node_id],
            )


def read_nodes(node_ids: Iterable[str]) -> dict[str, NodeStanding]:
    """Where the nodes stand now."""
    return _select(node_ids, "")


def lock_nodes(node_ids: Iterable[str]) -> dict[str, NodeStanding]:
    """The same, with the rows locked until the transaction ends."""
    return _select(node_ids, "" if dialect() == "sqlite" else " FOR UPDATE")


def nodes_of(experiment_id: str, *, lock: bool = False) -> dict[str, NodeStanding]:
    """Where all nodes of an experiment stand, on request with their rows locked."""
    suffix = " FOR UPDATE" if lock and dialect() != "sqlite" else ""
    rows = execute(
        f"SELECT {_STANDING} FROM nodes WHERE experiment_id = %s ORDER BY id{suffix}",
        [experiment_id],
    )
    return {row[0]: _standing(row) for row in rows}


def _select(node_ids: Iterable[str], suffix: str) -> dict[str, NodeStanding]:
    wanted = sorted(set(node_ids))
    if not wanted:
        return {}
    rows = execute(
        f"SELECT {_STANDING} FROM nodes WHERE id IN ({marks(wanted)}) ORDER BY id{suffix}",
        wanted,
    )
    return {row[0]: _standing(row) for row in rows}


def _standing(row: tuple[Any, ...]) -> NodeStanding:
    return NodeStanding(
        id=row[0],
        experiment_id=row[1],
        state=NodeState(row[2]),
        total=row[3],
        next_index=row[4],
        generation=row[5],
        selection=None if row[6] is None else json.loads(row[6]),
        counts=dict(zip(COUNTER_COLUMNS, row[7:], strict=True)),
    )
