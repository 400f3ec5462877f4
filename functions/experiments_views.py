"""What users see of an experiment: progress, timeline, tasks, failures, reasons, files."""

from __future__ import annotations

from typing import Any

from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field, field_validator

from airavata_scheduler.functions import (
    access,
    artifacts,
    experiment_documents,
    explain,
    task_documents,
)
from airavata_scheduler.functions.experiment_documents import ProgressAnswer
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.pagination import PageQuery, after, page
from airavata_scheduler.functions.selected import dict_rows
from airavata_scheduler.functions.shapes import rfc3339
from airavata_scheduler.models import events
from airavata_scheduler.models.errors import BadInput, NotFound
from airavata_scheduler.models.faults import suggestion
from airavata_scheduler.models.node_facts import node_facts
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.tables import Node, Task

api = APIBlueprint("experiments_views", __name__, abp_tags=[Tag(name="experiments")])


class TasksQuery(PageQuery):
    """Which tasks."""

    state: str | None = None
    node: str | None = Field(None, max_length=255)
    index: int | None = Field(None, ge=0, le=2**62)

    @field_validator("state")
    @classmethod
    def _known_state(cls, text: str | None) -> str | None:
        """Upper or lower case; ValueError with the list of states."""
        if text is not None and text.upper() not in TaskState.__members__:
            raise ValueError(f"must be one of {', '.join(TaskState.__members__)}")
        return None if text is None else text.upper()


class FailedTasksQuery(PageQuery):
    """Which failed tasks."""

    node: str | None = Field(None, max_length=255)


@api.get("/api/v1/experiments/<experiment>/progress", responses={200: ProgressAnswer})
def progress() -> dict[str, Any]:
    """How far it is, from counters that are kept and never counted."""
    return experiment_documents.progress(access.target("experiment").id)


@api.get("/api/v1/experiments/<experiment>/timeline")
def timeline(query: PageQuery) -> dict[str, Any]:
    """What happened to it, oldest first."""
    found = access.target("experiment")
    behind = after(query)
    rows = events.list_after(found.id, behind[0] if behind else None, query.limit + 1)
    return page(rows, query, key=lambda row: [row[0]], show=event)


@api.get("/api/v1/experiments/<experiment>/explain")
def explanation() -> dict[str, Any]:
    """Why it is where it is, one line a cause, each with the next step."""
    return explain.experiment(access.target("experiment").id)


@api.get("/api/v1/experiments/<experiment>/tasks")
def tasks(query: TasksQuery) -> dict[str, Any]:
    """Its tasks: by state in the order of their making, else by task of the file and index.

    An instance that is asked for by `node` and `index` is shown also before it has a row.
    """
    found = access.target("experiment")
    nodes = nodes_of(found, query.node)
    if query.index is not None:
        return _one_instance(nodes, query)
    if query.state is not None:
        return _by_state(found, nodes, query, TaskState[query.state], narrowed=query.node)
    return _by_index(nodes, query)


@api.get("/api/v1/experiments/<experiment>/failed-tasks")
def failed_tasks(query: FailedTasksQuery) -> dict[str, Any]:
    """Its tasks that failed for good: each with the failure, and where the end of its log is."""
    found = access.target("experiment")
    nodes = nodes_of(found, query.node)
    return _by_state(found, nodes, query, TaskState.FAILED, narrowed=query.node)


@api.get("/api/v1/experiments/<experiment>/artifacts")
def files(query: artifacts.ArtifactsQuery) -> dict[str, Any]:
    """Its published output files, oldest first."""
    found = access.target("experiment")
    if query.node is not None:
        nodes_of(found, query.node)
    return artifacts.listed(found.id, query)


def event(row: tuple[str, int, str, dict[str, Any]]) -> dict[str, Any]:
    """A line of the timeline as JSON."""
    return {"id": row[0], "at": rfc3339(row[1]), "kind": row[2], "detail": row[3]}


def nodes_of(found: Target, name: str | None) -> list[dict[str, Any]]:
    """The nodes in the order of the file, or the one of that name. Raises NotFound."""
    nodes = dict_rows(
        Node.select(Node.id, Node.name, Node.total)
        .where(Node.experiment_id == found.id)
        .order_by(Node.position)
    )
    if name is None:
        return nodes
    chosen = [node for node in nodes if node["name"] == name]
    if not chosen:
        near = suggestion(name, [node["name"] for node in nodes])
        raise NotFound(
            f"The experiment {found.name} has no task {name[:80]!r}{near}", code="node_not_found"
        )
    return chosen


def _one_instance(nodes: list[dict[str, Any]], query: TasksQuery) -> dict[str, Any]:
    assert query.index is not None
    if query.node is None:
        raise BadInput(
            "index needs node: an index counts the instances of one task of the file.",
            code="missing_field",
            field="node",
        )
    node = nodes[0]
    if query.index >= node["total"]:
        raise NotFound(
            f"{node['name']} has the instances 0 to {node['total'] - 1}.",
            code="instance_not_found",
        )
    rows = dict_rows(
        Task.select().where(
            (Task.node_id == node["id"]) & (Task.idx == query.index) & task_documents.newest()
        )
    )
    shown = task_documents.documents(rows)
    shown = shown or [task_documents.unexpanded(node_facts(node["id"]), query.index)]
    chosen = [item for item in shown if query.state in (None, item["state"])]
    return {"items": chosen, "next": None}


def _by_state(
    found: Target,
    nodes: list[dict[str, Any]],
    query: PageQuery,
    state: TaskState,
    *,
    narrowed: str | None,
) -> dict[str, Any]:
    """One state: read along the index (experiment_id, state, id)."""
    clause = (Task.experiment_id == found.id) & (Task.state == state.value)
    if narrowed is not None:
        clause = clause & (Task.node_id == nodes[0]["id"])
    behind = after(query)
    if behind is not None:
        clause = clause & (Task.id > behind[0])
    rows = dict_rows(
        Task.select()
        .where(clause & task_documents.newest())
        .order_by(Task.id)
        .limit(query.limit + 1)
    )
    return _task_page(rows, query, key=lambda row: [row["id"]])


def _by_index(nodes: list[dict[str, Any]], query: PageQuery) -> dict[str, Any]:
    """All states: node by node along the index (node_id, idx, generation)."""
    behind = after(query)
    names = [node["id"] for node in nodes]
    position, index = (names.index(behind[0]), behind[1]) if behind else (0, -1)
    rows: list[dict[str, Any]] = []
    for node_id in names[position:]:
        missing = query.limit + 1 - len(rows)
        if missing <= 0:
            break
        rows += dict_rows(
            Task.select()
            .where((Task.node_id == node_id) & (Task.idx > index) & task_documents.newest())
            .order_by(Task.idx)
            .limit(missing)
        )
        index = -1
    return _task_page(rows, query, key=lambda row: [row["node_id"], row["idx"]])


def _task_page(rows: list[dict[str, Any]], query: PageQuery, *, key: Any) -> dict[str, Any]:
    shown = {item["id"]: item for item in task_documents.documents(rows)}
    return page(rows, query, key=key, show=lambda row: shown[row["id"]])
