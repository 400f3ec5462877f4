"""Ended attempts: what each report said, kept for good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airavata_scheduler.models.agent_session import Session
from airavata_scheduler.models.database import change, execute, marks
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.lease_records import Report
from airavata_scheduler.models.report_rules import OUTCOMES, digest
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.states import Outcome, TaskState
from airavata_scheduler.models.task_rows import TaskRow

MESSAGE_LIMIT = 16_384  # characters; tracebacks are cut in the middle of nothing worse than this
RESULT_LIMIT = 65_536  # bytes of JSON

_COLUMNS = (
    "lease_id", "task_id", "experiment_id", "number", "agent_id", "session_id", "compute_id",
    "outcome", "failure_kind", "failure_code", "message", "exit_code", "signal", "leased_at",
    "started_at", "finished_at", "duration_ms", "cpu_ms", "max_rss_kb", "result", "report_digest",
)  # fmt: skip


def digests_of(lease_ids: Sequence[str]) -> dict[str, str | None]:
    """The report digest of each of these leases that has ended; None where no report said so."""
    if not lease_ids:
        return {}
    rows = execute(
        f"SELECT lease_id, report_digest FROM attempts WHERE lease_id IN ({marks(lease_ids)})",
        lease_ids,
    )
    return {row[0]: row[1] for row in rows}


def agents_that_lost(task_ids: Iterable[str]) -> dict[str, set[str]]:
    """For each task the agents whose attempts were lost or expired so far."""
    wanted = sorted(set(task_ids))
    if not wanted:
        return {}
    rows = execute(
        f"SELECT task_id, agent_id FROM attempts WHERE task_id IN ({marks(wanted)}) "
        f"AND outcome IN ('{Outcome.LOST}', '{Outcome.EXPIRED}')",
        wanted,
    )
    found: dict[str, set[str]] = {task_id: set() for task_id in wanted}
    for task_id, agent_id in rows:
        found[task_id].add(agent_id)
    return found


def began_at(row: TaskRow, report: Report, now: int) -> int | None:
    """When the payload of an accepted report began, in ms since the epoch; None if it never did.

    From a heartbeat that told of it, else from its end and its duration: passing the gate is not
    the beginning, and most short tasks never appear in a heartbeat.
    """
    if row.started_at is not None and row.state in (TaskState.RUNNING, TaskState.FINALIZING):
        return row.started_at
    if report.outcome != "completed" and not report.duration_ms:
        return None
    began = now - max(0, report.age_ms) - max(0, report.duration_ms)
    return max(began, row.leased_at or began)


def _ended_at(row: TaskRow, report: Report, started_at: int | None, now: int) -> int:
    """When the attempt of an accepted report ended.

    After a reboot its age is as right as the wall clock of its machine: it never ended before its
    beginning, or before its lease.
    """
    ended_at = now - max(0, report.age_ms)
    return max(ended_at, started_at or row.leased_at or ended_at)


def reported(row: TaskRow, report: Report, session: Session) -> tuple[Any, ...]:
    """The row of one accepted report."""
    started_at = began_at(row, report, session.now)
    finished_at = _ended_at(row, report, started_at, session.now)
    result = None if report.result is None else canonical_json(report.result)
    return (
        *(report.lease.lease_id, row.id, row.experiment_id, report.lease.attempt),
        *(session.agent_id, session.id, session.compute_id, OUTCOMES[report.outcome].value),
        *(report.failure_kind, _cut(report.failure_code, 64), _cut(report.message, MESSAGE_LIMIT)),
        *(report.exit_code, report.signal, row.leased_at, started_at, finished_at),
        *(max(0, report.duration_ms), report.cpu_ms, report.max_rss_kb, result, digest(report)),
    )


def unreported(
    row: TaskRow, outcome: Outcome, code: str, message: str, now: int
) -> tuple[Any, ...]:
    """The row of an attempt that ended without a word of its agent about it."""
    started = row.started_at or row.leased_at or now
    return (
        *(row.lease_id, row.id, row.experiment_id, row.attempt, row.agent_id, row.session_id),
        *(row.compute_id, outcome.value, "infrastructure", code, message),
        *(None, None, row.leased_at, row.started_at, now, now - started, None, None, None, None),
    )


def store(rows: list[tuple[Any, ...]], known: Iterable[str] = ()) -> None:
    """Insert attempts. Those in `known` had ended without a report, and are replaced by it."""
    replaced = sorted(set(known) & {row[0] for row in rows})
    if replaced:
        change(f"DELETE FROM attempts WHERE lease_id IN ({marks(replaced)})", replaced)
    insert_rows("attempts", _COLUMNS, rows)


def take_back(lease_ids: Sequence[str]) -> None:
    """Forget that these attempts ended: their agents are back and hold them still.

    One whose report was accepted stays.
    """
    if lease_ids:
        change(
            f"DELETE FROM attempts WHERE lease_id IN ({marks(lease_ids)}) "
            "AND report_digest IS NULL",
            lease_ids,
        )


def _cut(text: str | None, limit: int) -> str | None:
    if text is None:
        return None
    # PostgreSQL takes no NUL; a message may hold whatever a program printed.
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
