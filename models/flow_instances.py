"""Which instances of a node come next: by number, of an earlier run, or of another experiment.

`nodes.next_index` walks through the plain numbers. `nodes.selection` holds the cursors of what is
not plain:

  - `{"retry": {"cursor": c, "before": g}}`: instances of this node that ended without success
  before its present generation; below `foreach`, those whose parent had succeeded in a generation
  before g.
- `{"source": id, "state": s, "cursor": c}`: instances that ended in state `s` in node `id` of
  another experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models.counters import NodeStanding
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.node_facts import NodeFacts

_ENDED_WITHOUT_SUCCESS = "(6, 7, 8)"  # FAILED, CANCELLED, SKIPPED

_RETRIED = (
    "SELECT t.idx FROM tasks t WHERE t.node_id = %s AND t.idx > %s AND t.generation < %s "
    f"AND t.state IN {_ENDED_WITHOUT_SUCCESS} AND NOT EXISTS (SELECT 1 FROM tasks newer "
    "WHERE newer.node_id = t.node_id AND newer.idx = t.idx AND newer.generation > t.generation) "
    "ORDER BY t.idx LIMIT %s"
)
# Parents that succeeded before, and do not have all their instances here completed.
_PARENTS = (
    "SELECT p.idx FROM tasks p WHERE p.node_id = %s AND p.idx > %s AND p.state = 5 "
    "AND p.generation < %s AND (SELECT COUNT(*) FROM tasks c WHERE c.node_id = %s "
    "AND c.idx >= p.idx * %s AND c.idx < (p.idx + 1) * %s AND c.state = 5) < %s "
    "ORDER BY p.idx LIMIT %s"
)
_DONE_BELOW = (
    "SELECT idx FROM tasks WHERE node_id = %s AND idx >= %s AND idx < %s "
    "AND (state = 5 OR generation = %s)"
)
_SELECTED = (
    "SELECT t.idx FROM tasks t WHERE t.node_id = %s AND t.idx > %s AND t.state = %s "
    "AND NOT EXISTS (SELECT 1 FROM tasks newer WHERE newer.node_id = t.node_id "
    "AND newer.idx = t.idx AND newer.generation > t.generation) ORDER BY t.idx LIMIT %s"
)


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The next instances, and the cursors behind them."""

    indices: list[int]
    next_index: int
    selection: dict[str, Any] | None


def next_instances(
    node: NodeFacts, standing: NodeStanding, limit: int, parent: NodeStanding | None
) -> Instances:
    """Up to about `limit` instances that have no row in the present generation yet.

    `parent` is the `foreach` parent's standing, where there is one.
    """
    selection = dict(standing.selection or {})
    if "retry" in selection:
        if parent is None:
            return _retried(standing, selection, limit)
        return _retried_below(node, standing, selection, limit, parent)
    if "source" in selection:
        found = _column(
            _SELECTED, [selection["source"], selection["cursor"], selection["state"], limit]
        )
        selection["cursor"] = found[-1] if found else selection["cursor"]
        return Instances(
            indices=found,
            next_index=standing.next_index,
            selection=selection if len(found) == limit else None,
        )
    end = min(standing.total, standing.next_index + limit)
    return Instances(indices=list(range(standing.next_index, end)), next_index=end, selection=None)


def _retried(standing: NodeStanding, selection: dict[str, Any], limit: int) -> Instances:
    cursor = selection["retry"]["cursor"]
    found = _column(_RETRIED, [standing.id, cursor, standing.generation, limit])
    return Instances(
        indices=found,
        next_index=standing.next_index,
        selection=_advanced(selection, found, done=len(found) < limit),
    )


def _retried_below(
    node: NodeFacts,
    standing: NodeStanding,
    selection: dict[str, Any],
    limit: int,
    parent: NodeStanding,
) -> Instances:
    cursor, own = selection["retry"]["cursor"], node.own
    most = max(1, limit // own)
    parents = _column(
        _PARENTS, [parent.id, cursor, selection["retry"]["before"], node.id, own, own, own, most]
    )
    indices: list[int] = []
    if parents:
        first, last = parents[0] * own, (parents[-1] + 1) * own
        done = set(_column(_DONE_BELOW, [node.id, first, last, standing.generation]))
        for idx in parents:
            indices += [i for i in range(idx * own, (idx + 1) * own) if i not in done]
    return Instances(
        indices=indices,
        next_index=standing.next_index,
        selection=_advanced(selection, parents, done=len(parents) < most),
    )


def _advanced(selection: dict[str, Any], seen: list[int], *, done: bool) -> dict[str, Any] | None:
    """The selection behind the instances that were seen; what is left of it when all were."""
    if done:
        left = {key: value for key, value in selection.items() if key != "retry"}
        return left or None
    return selection | {"retry": selection["retry"] | {"cursor": seen[-1]}}


def _column(sql: str, params: list[Any]) -> list[int]:
    return [int(row[0]) for row in execute(sql, params)]
