"""What is due: every job that follows from the state of the database, derived anew each time.

The reconciler enqueues these; a wake-up that was lost, or a Redis that was flushed, costs one
period.
"""

from __future__ import annotations

from typing import Literal

from airavata_scheduler.models.counters import window_rows
from airavata_scheduler.models.database import execute, now_sql
from airavata_scheduler.models.placement import LIVE_MS

Due = tuple[Literal["plan", "expand", "finish"], str]

_ENDED = "(n.completed + n.failed + n.cancelled + n.skipped)"
_SUM = f"(n.pending + n.queued + n.leased + n.running + n.finalizing + {_ENDED})"
_PLAN = "SELECT id FROM experiments WHERE state = 'PLANNING' ORDER BY id LIMIT %s"
_EXPAND = (
    "SELECT n.id FROM experiments e JOIN nodes n ON n.experiment_id = e.id "
    "WHERE e.state = 'RUNNING' AND e.kind = 'experiment' AND e.cancel_requested_at IS NULL "
    f"AND n.state = 'OPEN' AND (n.pending > 0 OR ({_SUM} < n.total "
    "AND (n.next_index < n.total OR n.selection IS NOT NULL) AND n.queued + n.pending < %s)) "
    "ORDER BY n.id LIMIT %s"
)
_FINISH = (
    "SELECT e.id FROM experiments e JOIN nodes n ON n.experiment_id = e.id "
    "WHERE e.state IN ('RUNNING', 'PAUSED') AND e.kind = 'experiment' GROUP BY e.id "
    f"HAVING SUM(CASE WHEN n.state <> 'FINISHED' AND {_ENDED} >= n.total THEN 1 ELSE 0 END) > 0 "
    "OR SUM(CASE WHEN n.state = 'OPEN' THEN 1 ELSE 0 END) = 0 "
    "OR SUM(CASE WHEN e.cancel_requested_at IS NOT NULL THEN 1 ELSE 0 END) > 0 "
    "OR (SUM(CASE WHEN e.on_failure = 'stop' THEN n.failed ELSE 0 END) > 0) "
    "ORDER BY e.id LIMIT %s"
)
_WITHOUT_AGENT = (
    "SELECT c.id FROM compute_resources c WHERE NOT EXISTS (SELECT 1 FROM agent_sessions s "
    "WHERE s.compute_id = c.id AND s.ended_at IS NULL AND s.heartbeat_at > "
)
_STRANDED = (
    "SELECT DISTINCT node_id FROM (SELECT node_id FROM tasks WHERE compute_id = %s AND state = 1 "
    "ORDER BY priority DESC, available_at LIMIT %s) AS queued"
)
_STRANDED_ROWS = 1000


def due_work(limit: int = 500) -> list[Due]:
    """(job, id) of work that is due, at most `limit` of each kind.

    `plan` and `finish` take an experiment's id, `expand` a node's. Jobs are harmless when they find
    nothing to do; a retry that waits for its time needs no job, for a claim sees the time itself.
    """
    due: list[Due] = [("plan", row[0]) for row in execute(_PLAN, [limit])]
    nodes = {row[0] for row in execute(_EXPAND, [window_rows() // 2, limit])}
    due += [("expand", node_id) for node_id in sorted(nodes | _stranded(limit))]
    due += [("finish", row[0]) for row in execute(_FINISH, [limit])]
    return due


def _stranded(limit: int) -> set[str]:
    """Nodes with queued rows at resources whose agents are all away; `expand` may move them."""
    found: set[str] = set()
    for (compute_id,) in execute(f"{_WITHOUT_AGENT}{now_sql()} - {LIVE_MS})"):
        found |= {row[0] for row in execute(_STRANDED, [compute_id, _STRANDED_ROWS])}
        if len(found) >= limit:
            break
    return set(sorted(found)[:limit])


_WITHOUT_TIMER = (
    # Leased: the session must be one that the sweep looks at.
    "SELECT t.id FROM tasks t LEFT JOIN agent_sessions s ON s.id = t.session_id "
    "WHERE t.state IN (2, 3, 4) "
    "AND (s.id IS NULL OR (s.ended_at IS NOT NULL AND s.end_reason <> 'stopped')) "
    # Queued: some agent must be able to claim it.
    "UNION SELECT t.id FROM tasks t JOIN experiments e ON e.id = t.experiment_id "
    "WHERE t.state = 1 AND (t.compute_id IS NULL OR e.state <> 'RUNNING') "
    # Pending: the node waits, or the experiment is paused, or `due_work` names the node.
    "UNION SELECT t.id FROM tasks t JOIN nodes n ON n.id = t.node_id "
    "JOIN experiments e ON e.id = t.experiment_id WHERE t.state = 0 "
    "AND (e.state NOT IN ('RUNNING', 'PAUSED') OR n.state = 'FINISHED')"
)


def tasks_without_timer() -> list[str]:
    """Tasks that nothing would ever move again; empty, or there is a fault (invariant I5)."""
    return [row[0] for row in execute(_WITHOUT_TIMER)]
