"""Tasks as JSON: where they are, what they were given, and always why they failed.

The names, attempts and files of a whole page of tasks are read with one query each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import peewee
from peewee import SQL, fn

from airavata_scheduler.functions.experiment_documents import names_of
from airavata_scheduler.functions.selected import dict_row, dict_rows
from airavata_scheduler.functions.shapes import Answer, rfc3339
from airavata_scheduler.models import sweep
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.node_facts import NodeFacts, facts_of
from airavata_scheduler.models.states import Outcome, TaskState
from airavata_scheduler.models.tables import Agent, Artifact, Attempt, ComputeResource, Task

TAIL_BYTES = 4096


class FailureAnswer(Answer):
    """Why an attempt failed: `kind` is user, infrastructure, limit or policy; `code` is stable."""

    kind: str | None
    code: str | None
    message: str | None


class TaskAnswer(Answer):
    """One instance of a task of the file. `id` is null while it exists only as a number."""

    id: str | None
    name: str
    experiment_id: str
    node: str
    index: int
    state: str
    attempt: int
    parameters: dict[str, Any]
    compute: str | None
    agent: str | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    exit_code: int | None
    failure: FailureAnswer | None
    reason: str | None


def newest() -> peewee.Expression:
    """The condition that a task row is the newest of its instance: a retry makes a new row."""
    later = Task.alias()
    condition: peewee.Expression = ~fn.EXISTS(
        later.select(SQL("1")).where(
            (later.node_id == Task.node_id)
            & (later.idx == Task.idx)
            & (later.generation > Task.generation)
        )
    )
    return condition


def documents(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `tasks` (as dicts) as documents, in their order."""
    facts = facts_of(row["node_id"] for row in rows)
    attempts = last_attempts([row["id"] for row in rows])
    computes = names_of(ComputeResource, (row["compute_id"] for row in rows))
    agents = names_of(Agent, (_agent_id(row, attempts) for row in rows))
    return [
        {
            **_instance(facts[row["node_id"]], row["idx"]),
            "id": row["id"],
            "state": TaskState(row["state"]).name,
            "attempt": row["attempt"],
            "compute": computes.get(row["compute_id"]),
            "agent": agents.get(_agent_id(row, attempts) or ""),
            "created_at": rfc3339(row["created_at"]),
            "started_at": rfc3339(row["started_at"]),
            "finished_at": rfc3339(row["finished_at"]),
            **_ending(row, attempts.get(row["id"])),
        }
        for row in rows
    ]


def unexpanded(facts: NodeFacts, index: int) -> dict[str, Any]:
    """The document of an instance that has no row yet: PENDING, with what it will be given."""
    return {
        **_instance(facts, index),
        "id": None,
        "state": TaskState.PENDING.name,
        "attempt": 0,
        "compute": None,
        "agent": None,
        "created_at": None,
        "started_at": None,
        "finished_at": None,
        "exit_code": None,
        "failure": None,
        "reason": "not queued yet: a sweep's instances are queued window by window",
    }


def _instance(facts: NodeFacts, index: int) -> dict[str, Any]:
    return {
        "name": f"{facts.name}[{index}]",
        "experiment_id": facts.experiment_id,
        "node": facts.name,
        "index": index,
        # A call's arguments are shown with the call; it has no axes to decode.
        "parameters": {} if facts.is_calls else sweep.typed(facts.spec, index),
    }


def _ending(row: Mapping[str, Any], attempt: Mapping[str, Any] | None) -> dict[str, Any]:
    """Exit code, failure and reason. A task that is tried again says what failed last."""
    failed = row["state"] == TaskState.FAILED
    found = failure(attempt)
    if failed and found is None:
        found = {"kind": None, "code": None, "message": row["reason"]}
    ending = {
        "exit_code": attempt["exit_code"] if attempt else None,
        "failure": found if failed else None,
        "reason": row["reason"],
    }
    if found is not None and not failed:
        ending["last_failure"] = found
    if failed and attempt is not None:
        ending["log_tail"] = tail_link(row["id"], attempt["number"])
    return ending


def failure(attempt: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Why an attempt did not succeed; None where it did, or there was none."""
    if attempt is None or attempt["outcome"] == Outcome.COMPLETED.value:
        return None
    return {
        "kind": attempt["failure_kind"],
        "code": attempt["failure_code"] or attempt["outcome"].lower(),
        "message": attempt["message"],
    }


def tail_link(task_id: str, number: int) -> str:
    """Where the end of an attempt's error stream is."""
    return f"/api/v1/tasks/{task_id}/logs/stderr?attempt={number}&offset=-{TAIL_BYTES}"


def last_attempts(task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The last ended attempt of each task, without its result; at most one query."""
    if not task_ids:
        return {}
    found = dict_rows(
        Attempt.select(*(field for field in Attempt._meta.sorted_fields if field.name != "result"))
        .where(Attempt.task_id.in_(task_ids))
        .order_by(Attempt.task_id, Attempt.number, Attempt.finished_at)
    )
    # A superseded attempt is evidence, not the reason: it counts only where there is no other.
    last: dict[str, dict[str, Any]] = {}
    for row in found:
        known = last.get(row["task_id"])
        if known is None or row["outcome"] != Outcome.SUPERSEDED.value:
            last[row["task_id"]] = row
    return last


def artifact_rows(task_id: str) -> list[dict[str, Any]]:
    """The published files of a task, by path."""
    return dict_rows(
        Artifact.select()
        .where((Artifact.task_id == task_id) & (Artifact.state == "published"))
        .order_by(Artifact.path, Artifact.id)
    )


def find(task_id: str) -> dict[str, Any]:
    """The document of one task. Raises NotFound."""
    row = dict_row(Task.select().where(Task.id == task_id))
    if row is None:
        raise NotFound(code="task_not_found")
    return documents([row])[0]


def _agent_id(row: Mapping[str, Any], attempts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Who holds it now, else who ran it last."""
    if row["agent_id"]:
        return str(row["agent_id"])
    attempt = attempts.get(row["id"])
    return attempt["agent_id"] if attempt else None
