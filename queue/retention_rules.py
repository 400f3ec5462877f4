"""What bookkeeping is kept how long. Results, attempts, artifacts and the audit are never touched.

Deleted in bounded parts: a million old rows take many runs, and no lock is held long.
"""

from __future__ import annotations

from dataclasses import dataclass

from airavata_scheduler.models import outbox
from airavata_scheduler.models.database import change, execute, marks, now_ms, transaction

PART = 2000  # rows of one table that one run deletes in a statement
PARTS = 10  # statements for one table in one run

HOUR_S = 3600.0
EVENTS_LEAST_S = 30 * 24 * HOUR_S  # people ask why an experiment went as it did weeks later


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Rows of `table` whose `column` (ms) is older than the retention, and for which `also` holds.

    `least_s` keeps them at least so long, however short the configured retention is.
    """

    table: str
    column: str
    also: str = ""
    least_s: float = 0.0


RULES = (
    # A client may repeat a POST for a day; shorter would make its repetition a second object.
    Rule(table="idempotency_keys", column="created_at", least_s=24 * HOUR_S),
    Rule(table="enrolment_tokens", column="expires_at"),
    Rule(table="login_links", column="expires_at"),
    Rule(table="logins", column="expires_at"),
    Rule(table="access_tokens", column="expires_at"),
    # An agent that was away for a weekend may still ask for an answer that it never got.
    Rule(table="claims", column="created_at", least_s=72 * HOUR_S),
    Rule(
        table="agent_sessions",
        column="ended_at",
        # A session whose leases are still held (its agent left payloads running) is the sweep's.
        also="NOT EXISTS (SELECT 1 FROM tasks t WHERE t.session_id = agent_sessions.id "
        "AND t.state IN (2, 3, 4)) AND NOT EXISTS (SELECT 1 FROM agents a "
        "WHERE a.session_id = agent_sessions.id)",
        least_s=24 * HOUR_S,
    ),
    # What was relayed to SpiceDB; the comparison of both looks at the last minutes only.
    Rule(table="outbox", column="relayed_at"),
    Rule(table="login_flows", column="expires_at"),
)
PENDING_AGENTS_S = 24 * HOUR_S  # that nobody approved: enrolling without a token is open to all


def delete_old(retention_s: float) -> dict[str, int]:
    """Delete what is older than `retention_s` seconds by the rules; how many rows by table."""
    now = now_ms()
    deleted: dict[str, int] = {}
    for rule in RULES:
        kept_s = max(rule.least_s, retention_s)
        deleted[rule.table] = _delete(rule, now - int(kept_s * 1000))
    deleted["agents"] = _delete_pending_agents(now - int(PENDING_AGENTS_S * 1000))
    deleted["zed_tokens"] = _delete_old_tokens()
    events_s = max(retention_s, EVENTS_LEAST_S)
    deleted["events"] = _delete_events(now - int(events_s * 1000))
    return deleted


def _delete(rule: Rule, before_ms: int) -> int:
    total = 0
    for _ in range(PARTS):
        count = _delete_part(rule, before_ms)
        total += count
        if count < PART:
            break
    return total


def _delete_part(rule: Rule, before_ms: int) -> int:
    """Delete about `PART` rows: those up to the time of the row at that place in the order.

    A DELETE with LIMIT is spelt differently everywhere; a time is not.
    """
    column = f'"{rule.column}"'
    condition = f"{column} < %s" + (f" AND {rule.also}" if rule.also else "")
    place = execute(
        f"SELECT {column} FROM {rule.table} WHERE {condition} "  # noqa: S608 - our own names
        f"ORDER BY {column} LIMIT 1 OFFSET {PART - 1}",
        (before_ms,),
    )
    until = int(place[0][0]) + 1 if place else before_ms
    with transaction():
        return change(
            f"DELETE FROM {rule.table} WHERE {condition}",  # noqa: S608
            (min(until, before_ms),),
        )


def _delete_pending_agents(before_ms: int) -> int:
    """Delete agents that nobody approved, and the relationships that they had."""
    with transaction():
        rows = execute(
            "SELECT id, compute_id FROM agents WHERE state = 'pending' AND created_at < %s "
            "ORDER BY id LIMIT %s",
            (before_ms, PART),
        )
        for agent_id, compute_id in rows:
            agent, compute = ("agent", str(agent_id)), ("compute_resource", str(compute_id))
            key = outbox.relationship(agent, "compute_resource", compute)
            outbox.append([key], about=agent, revokes=True)
            change("DELETE FROM agents WHERE id = %s AND state = 'pending'", (agent_id,))
    return len(rows)


def _delete_old_tokens() -> int:
    """Delete tokens of SpiceDB older than the one that serves for all objects."""
    rows = execute(
        "SELECT position FROM zed_tokens WHERE object_kind = %s AND object_id = %s",
        outbox.SHARED,
    )
    if not rows:
        return 0
    with transaction():
        return change("DELETE FROM zed_tokens WHERE position < %s", (rows[0][0],))


def _delete_events(before_ms: int) -> int:
    """Delete the timelines of experiments that ended before `before_ms`, oldest events first."""
    total = 0
    for _ in range(PARTS):
        rows = execute(
            "SELECT v.id FROM events v JOIN experiments e ON e.id = v.experiment_id "
            "WHERE e.finished_at < %s ORDER BY v.id LIMIT %s",
            (before_ms, PART),
        )
        if rows:
            ids = [row[0] for row in rows]
            with transaction():
                total += change(f"DELETE FROM events WHERE id IN ({marks(ids)})", ids)  # noqa: S608
        if len(rows) < PART:
            break
    return total
