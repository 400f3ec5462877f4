"""Tasks: one instance each, with its attempts, its files, and why it is where it is."""

from __future__ import annotations

from typing import Any

from flask_openapi3 import APIBlueprint, Tag

from airavata_scheduler.functions import access, artifacts, audit, explain, task_documents
from airavata_scheduler.functions.experiment_documents import names_of
from airavata_scheduler.functions.pagination import PageQuery, after, page
from airavata_scheduler.functions.selected import dict_rows
from airavata_scheduler.functions.shapes import Nothing, rfc3339
from airavata_scheduler.functions.task_documents import TaskAnswer
from airavata_scheduler.models import flow
from airavata_scheduler.models.tables import Agent, Artifact, Attempt
from airavata_scheduler.queue.announce import announce

api = APIBlueprint("tasks", __name__, abp_tags=[Tag(name="tasks")])


@api.get("/api/v1/tasks/<task>", responses={200: TaskAnswer})
def task() -> dict[str, Any]:
    """One task, with its published files as `outputs`."""
    row = access.target("task").row
    files = task_documents.artifact_rows(row["id"])
    return {
        **task_documents.documents([row])[0],
        "outputs": [artifacts.document(file) for file in files],
    }


@api.get("/api/v1/tasks/<task>/attempts")
def attempts(query: PageQuery) -> dict[str, Any]:
    """Every ended try to run it, oldest first: where, how long, how it ended and why."""
    found = access.target("task")
    clause = Attempt.task_id == found.id
    behind = after(query)
    if behind is not None:
        number, lease_id = behind
        clause = clause & (
            (Attempt.number > number) | ((Attempt.number == number) & (Attempt.lease_id > lease_id))
        )
    rows = dict_rows(
        Attempt.select(*(field for field in Attempt._meta.sorted_fields if field.name != "result"))
        .where(clause)
        .order_by(Attempt.number, Attempt.lease_id)
        .limit(query.limit + 1)
    )
    agents = names_of(Agent, (row["agent_id"] for row in rows))
    return page(
        rows,
        query,
        key=lambda row: [row["number"], row["lease_id"]],
        show=lambda row: _attempt(row, agents),
    )


@api.get("/api/v1/tasks/<task>/explain")
def explanation() -> dict[str, Any]:
    """Why it is where it is, one line a cause, each with the next step."""
    return explain.task(access.target("task").row)


@api.get("/api/v1/tasks/<task>/artifacts")
def files(query: PageQuery) -> dict[str, Any]:
    """Its published output files, oldest first."""
    found = access.target("task")
    clause = (Artifact.task_id == found.id) & (Artifact.state == "published")
    behind = after(query)
    if behind is not None:
        clause = clause & (Artifact.id > behind[0])
    rows = dict_rows(Artifact.select().where(clause).order_by(Artifact.id).limit(query.limit + 1))
    return page(rows, query, key=lambda row: [row["id"]], show=artifacts.document)


@api.post("/api/v1/tasks/<task>/cancel", responses={200: TaskAnswer})
def cancel(body: Nothing) -> dict[str, Any]:
    """Stop it; a result that was accepted first stays."""
    del body
    cancel_task()
    return task_documents.find(access.target("task").id)


def cancel_task() -> None:
    """Cancel the task that this request names; calls are cancelled the same way."""
    found = access.target("task")
    wakeups = flow.cancel_task(
        found.id, lambda: audit.append("task.cancel", "task", found.id, project_id=found.project_id)
    )
    announce(wakeups)


def _attempt(row: dict[str, Any], agents: dict[str, str]) -> dict[str, Any]:
    return {
        "number": row["number"],
        "outcome": row["outcome"],
        "failure": task_documents.failure(row),
        "exit_code": row["exit_code"],
        "signal": row["signal"],
        "agent": agents.get(row["agent_id"] or ""),
        "leased_at": rfc3339(row["leased_at"]),
        "started_at": rfc3339(row["started_at"]),
        "finished_at": rfc3339(row["finished_at"]),
        "duration_s": _seconds(row["duration_ms"]),
        "cpu_s": _seconds(row["cpu_ms"]),
        "max_rss_kb": row["max_rss_kb"],
        "log_tail": task_documents.tail_link(row["task_id"], row["number"]),
    }


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
