"""Calls as JSON: a task, with its function and its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airavata_scheduler.functions.selected import dict_rows, tuple_rows
from airavata_scheduler.functions.shapes import Answer, rfc3339
from airavata_scheduler.functions.task_documents import FailureAnswer, failure
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.states import Outcome, TaskState
from airavata_scheduler.models.tables import (
    Artifact,
    Attempt,
    Experiment,
    Function,
    FunctionVersion,
    Task,
)


class CallAnswer(Answer):
    """One invocation of a function. `result` is {encoding, data} or {encoding, artifact, size}."""

    id: str
    function: str
    version: int
    state: str
    attempts: int
    result: dict[str, Any] | None
    failure: FailureAnswer | None
    exit_code: int | None
    created_at: str
    started_at: str | None
    finished_at: str | None


def ended(ids: Sequence[str]) -> list[str]:
    """Those of the tasks that have ended, in their order."""
    done = {
        row[0]
        for row in tuple_rows(
            Task.select(Task.id).where(
                Task.id.in_(list(ids)) & (Task.state >= TaskState.COMPLETED.value)
            )
        )
    }
    return [identity for identity in ids if identity in done]


def read(ids: Sequence[str]) -> list[dict[str, Any]]:
    """The calls with these ids, in their order; three queries whatever their number.

    Raises NotFound `call_not_found` for a task that is no call.
    """
    if not ids:
        return []
    rows = {row["id"]: row for row in _rows(ids)}
    for identity in ids:
        if identity not in rows:
            raise NotFound(f"The task {identity} is no call.", code="call_not_found")
    attempts = _deciding([identity for identity in ids if rows[identity]["attempt"]])
    files = _result_files([row for row in attempts.values() if _names_file(row)])
    return [_document(rows[identity], attempts.get(identity), files) for identity in ids]


def _rows(ids: Sequence[str]) -> list[dict[str, Any]]:
    return dict_rows(
        Task.select(Task, Function.name.alias("function"), FunctionVersion.number.alias("number"))
        .join(Experiment, on=(Experiment.id == Task.experiment_id))
        .join(FunctionVersion, on=(FunctionVersion.id == Experiment.function_version_id))
        .join(Function, on=(Function.id == FunctionVersion.function_id))
        .where(Task.id.in_(list(ids)))
    )


def _deciding(task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The last attempt of each task that was not superseded."""
    if not task_ids:
        return {}
    found = dict_rows(
        Attempt.select()
        .where(Attempt.task_id.in_(list(task_ids)) & (Attempt.outcome != Outcome.SUPERSEDED.value))
        .order_by(Attempt.number, Attempt.finished_at)
    )
    deciding = {}
    for row in found:
        row["result"] = None if row["result"] is None else json.loads(row["result"])
        deciding[row["task_id"]] = row
    return deciding


def _names_file(attempt: Mapping[str, Any]) -> bool:
    return isinstance(attempt["result"], dict) and "artifact" in attempt["result"]


def _result_files(attempts: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The uploaded files that large results are, by (lease id, path)."""
    if not attempts:
        return {}
    rows = dict_rows(
        Artifact.select(
            Artifact.id, Artifact.lease_id, Artifact.path, Artifact.size, Artifact.sha256
        ).where(
            Artifact.task_id.in_([attempt["task_id"] for attempt in attempts])
            & Artifact.lease_id.in_([attempt["lease_id"] for attempt in attempts])
        )
    )
    return {(row["lease_id"], row["path"]): row for row in rows}


def _document(
    row: Mapping[str, Any],
    attempt: Mapping[str, Any] | None,
    files: Mapping[tuple[str, str], Mapping[str, Any]],
) -> dict[str, Any]:
    state = TaskState(row["state"])
    found = failure(attempt) if state is TaskState.FAILED else None
    if state is TaskState.FAILED and found is None:
        found = {"kind": None, "code": None, "message": row["reason"]}
    return {
        "id": row["id"],
        "function": row["function"],
        "version": row["number"],
        "state": state.name,
        "attempts": row["attempt"],
        "result": _result(attempt, files) if state.is_terminal else None,
        "failure": found,
        "reason": row["reason"],
        "exit_code": attempt["exit_code"] if attempt else None,
        "created_at": rfc3339(row["created_at"]),
        "started_at": rfc3339(row["started_at"]),
        "finished_at": rfc3339(row["finished_at"]),
    }


def _result(
    attempt: Mapping[str, Any] | None, files: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, Any] | None:
    """A small result itself; a large one as the artifact that holds it."""
    if attempt is None or attempt["result"] is None:
        return None
    result: dict[str, Any] = attempt["result"]
    file = files.get((attempt["lease_id"], result["artifact"])) if _names_file(attempt) else None
    if file is None:
        return result
    return {**result, "artifact": file["id"], "size": file["size"], "sha256": file["sha256"]}
