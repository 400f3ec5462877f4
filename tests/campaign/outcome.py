"""How it ended, read from the database itself: every task, its lease, what it published."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from airavata_scheduler.models import database
from airavata_scheduler.models.database import connected, execute
from airavata_scheduler.models.states import TaskState
from tests.campaign.notes import Notes

# Not terminal, and nothing that would ever look at it again: no time from which it may be claimed,
# no session whose silence would be noticed.
_UNTIMED = """
SELECT t.id FROM tasks t LEFT JOIN agent_sessions s ON s.id = t.session_id
WHERE (t.state = 1 AND t.available_at IS NULL)
   OR (t.state IN (2, 3, 4) AND (s.id IS NULL OR (s.ended_at IS NOT NULL
       AND s.end_reason <> 'stopped' AND s.end_reason <> 'drained')))
"""
_TASKS = (
    "SELECT id, experiment_id, state, attempt, lease_id, failures, reason FROM tasks ORDER BY id"
)
_PUBLISHED = "SELECT task_id, attempt, lease_id FROM artifacts WHERE state = 'published'"


@dataclass(kw_only=True)
class Outcome:
    """Counts of how tasks ended, and why those failed that did."""

    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def untimed() -> list[str]:
    """Tasks that nothing would ever look at again."""
    with connected():
        return [str(row[0]) for row in execute(_UNTIMED)]


def open_tasks() -> int:
    """How many tasks have not ended."""
    with connected():
        return int(execute("SELECT COUNT(*) FROM tasks WHERE state < 5")[0][0])


def all_tasks() -> int:
    """How many tasks have a row."""
    with connected():
        return int(execute("SELECT COUNT(*) FROM tasks")[0][0])


def note_all(note: Notes, with_outputs: set[str]) -> Outcome:
    """Note how every task ended; `with_outputs` are the experiments that publish artifacts."""
    outcome = Outcome()
    with connected():
        published: Mapping[str, list[str]] = defaultdict(list)
        for task, attempt, lease_id in execute(_PUBLISHED):
            published[str(task)].append(f"{task}.{attempt}.{lease_id}")
        for task, experiment, state, attempt, lease_id, failures, reason in execute(_TASKS):
            name = TaskState(state).name
            outcome.states[name] += 1
            if name == "FAILED":
                outcome.reasons[str(reason)[:60]] += 1
            note(
                "final",
                task=str(task),
                experiment=str(experiment),
                state=name,
                lease=f"{task}.{attempt}.{lease_id}" if lease_id else None,
                failures=failures,
                reason=reason,
                outputs=str(experiment) in with_outputs,
                published=published.get(str(task), []),
            )
    return outcome


def look_at(url: str) -> None:
    """Read this deployment's database from now on."""
    database.connect(url, max_connections=2)
