"""Heartbeats: one UPDATE keeps a session and all its leases alive, and both sides compare notes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.models.agent_session import Session, live_session
from airavata_scheduler.models.database import change, execute, now_sql, retried
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.lease_records import HoldVerdict, LeaseName, Mark, Phase
from airavata_scheduler.models.releasing import reconcile_session
from airavata_scheduler.models.retelling import HOLD_S, has_told, is_under_way, noted
from airavata_scheduler.models.starting import mark
from airavata_scheduler.models.task_rows import LEASED
from airavata_scheduler.models.wakeups import Wakeups


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The answer to a heartbeat: only the leases that are not simply kept."""

    want_full: bool
    verdicts: list[tuple[LeaseName, HoldVerdict]]
    wakeups: Wakeups = field(default_factory=Wakeups)


def heartbeat(
    *,
    session_id: str,
    seq: int,
    marks: Sequence[Mark] = (),
    digest: tuple[int, str] | None = None,
    full: Sequence[tuple[LeaseName, Phase | None]] | None = None,
    unresolved_claims: Collection[str] = (),
    mode: str = "normal",
    free: Mapping[str, Any] | None = None,
    settled: str | None = None,
    hold_s: float = HOLD_S,
) -> Beat:
    """Keep the session alive, take phases in, and compare what both sides hold.

    `seq` rises with each heartbeat: an older one that arrives late keeps the session alive and does
    nothing else. `digest` is (number of leases, hexadecimal XOR of their lease ids), `settled` the
    epoch that has been told all that was acknowledged before. Raises NotFound or Conflict as
    `live_session`.
    """
    session = _note_beat(session_id, seq, mode, noted(free or {}, settled), digest)
    if session is None:
        return Beat(want_full=False, verdicts=[])
    wakeups = mark(session_id, marks)
    if is_under_way(session, hold_s) and has_told(session, settled):
        wakeups.computes.add(session.compute_id)  # perhaps it was the last one that was waited for
    if full is not None:
        reconciled = reconcile_session(session_id, full, unresolved_claims, settled=settled)
        wakeups.merge(reconciled.wakeups)
        told: list[tuple[LeaseName, HoldVerdict]] = [
            (lease, verdict)
            for (lease, _), verdict in zip(full, reconciled.verdicts, strict=True)
            if verdict != "keep"
        ]
        return Beat(want_full=False, verdicts=told, wakeups=wakeups)
    held = _held(session_id)
    cancelled: list[tuple[LeaseName, HoldVerdict]] = [
        (lease, "cancel") for lease, wanted in held if wanted
    ]
    differs = digest is not None and _digest(lease for lease, _ in held) != _number(digest)
    return Beat(want_full=differs, verdicts=cancelled, wakeups=wakeups)


@retried
def _note_beat(
    session_id: str,
    seq: int,
    mode: str,
    free: Mapping[str, Any],
    digest: tuple[int, str] | None,
) -> Session | None:
    """One UPDATE of one row; the session, or None for a heartbeat that is older than the last."""
    fresh = change(
        f"UPDATE agent_sessions SET heartbeat_at = {now_sql()}, heartbeat_seq = %s, mode = %s, "
        "free = %s, held = COALESCE(%s, held) "
        "WHERE id = %s AND ended_at IS NULL AND heartbeat_seq < %s",
        [seq, mode, canonical_json(dict(free)), digest and digest[0], session_id, seq],
    )
    session = live_session(session_id)
    if fresh:
        return session
    change(
        f"UPDATE agent_sessions SET heartbeat_at = {now_sql()} WHERE id = %s AND ended_at IS NULL",
        [session_id],
    )
    return None


def _held(session_id: str) -> list[tuple[LeaseName, bool]]:
    """The session's current leases, and whether a user wants them cancelled."""
    rows = execute(
        "SELECT id, attempt, lease_id, cancel_requested_at FROM tasks "
        f"WHERE session_id = %s AND state IN {LEASED}",
        [session_id],
    )
    return [(LeaseName(row[0], row[1], row[2]), row[3] is not None) for row in rows]


def _digest(leases: Iterable[LeaseName]) -> tuple[int, int]:
    count = xor = 0
    for lease in leases:
        count += 1
        xor ^= int(lease.lease_id, 16)
    return count, xor


def _number(digest: tuple[int, str]) -> tuple[int, int]:
    try:
        return digest[0], int(digest[1] or "0", 16)
    except ValueError:
        return -1, 0  # a digest that cannot be read never agrees: the full list settles it
