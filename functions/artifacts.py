"""Artifacts: the output files that accepted reports published."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from airavata_scheduler.functions import access, downloads
from airavata_scheduler.functions.pagination import PageQuery, after, page
from airavata_scheduler.functions.selected import dict_rows
from airavata_scheduler.functions.shapes import Answer, rfc3339
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.node_facts import node_facts
from airavata_scheduler.models.tables import Artifact, Node

api = APIBlueprint("artifacts", __name__, abp_tags=[Tag(name="artifacts")])

SCAN = 1000  # rows that one request reads to fill a page under a glob


class ArtifactsQuery(PageQuery):
    """Which files of an experiment."""

    node: str | None = Field(None, max_length=255)
    index: int | None = Field(None, ge=0, le=2**62)
    path: str | None = Field(None, max_length=1024, description="A glob, such as *.csv")


class ArtifactAnswer(Answer):
    """An output file: `size` in bytes, `sha256` in hex, `path` below the task's own directory."""

    id: str
    experiment_id: str
    task_id: str
    node: str
    index: int
    attempt: int
    output: str
    path: str
    size: int
    sha256: str
    created_at: str


@api.get("/api/v1/artifacts/<artifact>", responses={200: ArtifactAnswer})
def artifact() -> dict[str, Any]:
    """What is known of one file."""
    return document(_found())


@api.get("/api/v1/artifacts/<artifact>/content")
def content() -> Response:
    """The file's bytes. Takes Range, If-Range and If-None-Match; the ETag is the SHA-256."""
    row = _found()
    return downloads.send(
        storage_id=row["storage_id"],
        key=row["storage_key"],
        sha256=row["sha256"],
        size=row["size"],
        filename=row["path"].rsplit("/", 1)[-1],
    )


def _found() -> Mapping[str, Any]:
    """The target's row. What no accepted report published is not there for users."""
    row = access.target("artifact").row
    if row["state"] != "published":
        raise NotFound(
            f"There is no artifact '{row['id']}', or you may not see it.",
            code="artifact_not_found",
        )
    return row


def document(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `artifacts` as its document."""
    return {
        "id": row["id"],
        "experiment_id": row["experiment_id"],
        "task_id": row["task_id"],
        "node": node_facts(row["node_id"]).name,
        "index": row["idx"],
        "attempt": row["attempt"],
        "output": row["output"],
        "path": row["path"],
        "size": row["size"],
        "sha256": row["sha256"],
        "created_at": rfc3339(row["published_at"] or row["created_at"]),
    }


def published(
    experiment_id: str,
    *,
    node: str | None = None,
    index: int | None = None,
    after_id: str | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """Published files by id; with `node`, the name of their task of the file.

    What completed never runs again, so an instance has one run with published files. Read along
    (experiment_id, state, id), or (node_id, idx) where an index narrows it.
    """
    clause = (Artifact.experiment_id == experiment_id) & (Artifact.state == "published")
    if node is not None:
        clause = clause & (Node.name == node)
    if index is not None:
        clause = clause & (Artifact.idx == index)
    if after_id is not None:
        clause = clause & (Artifact.id > after_id)
    return dict_rows(
        Artifact.select(Artifact, Node.name.alias("node"))
        .join(Node, on=(Node.id == Artifact.node_id))
        .where(clause)
        .order_by(Artifact.id)
        .limit(limit)
    )


def listed(experiment_id: str, query: ArtifactsQuery) -> dict[str, Any]:
    """A page of an experiment's files.

    Under a glob at most `SCAN` rows are read, so a page may hold few or none and still have a next.
    """
    behind = after(query)
    limit = query.limit if query.path is None else SCAN
    rows = published(
        experiment_id,
        node=query.node,
        index=query.index,
        after_id=behind[0] if behind else None,
        limit=limit + 1,
    )
    if query.path is None:
        return page(rows, query, key=lambda row: [row["id"]], show=document)
    fitting = [row for row in rows[:limit] if fits(row["path"], query.path)]
    if len(fitting) > query.limit or len(rows) <= limit:
        return page(fitting, query, key=lambda row: [row["id"]], show=document)
    # Fewer than a page fit among those read: the page ends where reading ended.
    ends_at = page([rows[limit - 1]] * (query.limit + 1), query, key=_id, show=document)["next"]
    return {"items": [document(row) for row in fitting], "next": ends_at}


def fits(path: str, glob: str | None) -> bool:
    """Whether a path, or the name at its end, fits a glob; None fits all."""
    return glob is None or fnmatchcase(path, glob) or fnmatchcase(path.rsplit("/", 1)[-1], glob)


def _id(row: Mapping[str, Any]) -> list[str]:
    return [row["id"]]
