"""Output files: staged under a key that names the attempt, published by the accepted report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint
from pydantic import Field

from airavata_scheduler.backends import stores
from airavata_scheduler.backends.storage import checked_key
from airavata_scheduler.functions import blobs, tokens
from airavata_scheduler.functions.agent_bodies import content_sha256
from airavata_scheduler.functions.agent_lease_access import (
    HeldLease,
    LeasePath,
    blueprint,
    held,
)
from airavata_scheduler.functions.agent_reports import OUTPUT_NAME
from airavata_scheduler.functions.shapes import Query
from airavata_scheduler.models.database import change, execute, now_ms, retried, transaction
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.lease_records import ReportedArtifact
from airavata_scheduler.models.node_facts import node_facts
from airavata_scheduler.models.rows import insert_rows

api: APIBlueprint = blueprint("agent_artifacts")


class ArtifactQuery(Query):
    """Which declared output the file belongs to, and its path in the task's directory."""

    output: str = Field(pattern=OUTPUT_NAME)
    path: str = Field(min_length=1, max_length=2000)


@api.put("/leases/<lease>/artifacts")
def put_artifact(path: LeasePath, query: ArtifactQuery) -> Response:
    """Store one output file; 200 if exactly these bytes are there already.

    The body goes to the storage as it arrives and is kept only if its SHA-256 is the announced one.
    """
    lease = held(path.lease)
    sha256 = content_sha256()
    checked_key(query.path)
    known = _known(lease, query)
    if known is not None and known[1] == sha256:
        return _answer(200, {"size": known[0], "sha256": sha256})
    place = place_of(lease, query.path)
    limit = tokens.configuration().max_upload_bytes
    chunks = blobs.uploaded(limit)
    stored = stores.store(place.storage_id).put(place.key, chunks, expect_sha256=sha256)
    said = ReportedArtifact(output=query.output, path=query.path, size=stored.size, sha256=sha256)
    note(lease, said, place)
    return _answer(201, {"size": stored.size, "sha256": sha256})


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an output file lies."""

    storage_id: str
    key: str


def place_of(lease: HeldLease, path: str) -> Place:
    """Where an output file of a lease belongs: the key names the attempt and the lease."""
    key = stores.artifact_key(
        experiment_id=lease.experiment_id,
        node=node_facts(lease.node_id).name,
        idx=lease.idx,
        attempt=lease.lease.attempt,
        lease_id=lease.lease.lease_id,
        path=path,
    )
    return Place(storage_id=lease.storage_id or stores.default_storage_id(), key=key)


def _known(lease: HeldLease, query: ArtifactQuery) -> tuple[int, str] | None:
    rows = execute(
        "SELECT size, sha256, path FROM artifacts WHERE task_id = %s AND lease_id = %s "
        "AND output = %s",
        (lease.lease.task_id, lease.lease.lease_id, query.output),
    )
    return next(((row[0], row[1]) for row in rows if row[2] == query.path), None)


@retried
def note(lease: HeldLease, said: ReportedArtifact, place: Place) -> None:
    """One row for each (lease, output, path): other bytes than before replace it."""
    named = lease.lease
    with transaction():
        change(
            "DELETE FROM artifacts WHERE task_id = %s AND lease_id = %s AND output = %s "
            "AND path = %s AND state = 'staged'",
            (named.task_id, named.lease_id, said.output, said.path),
        )
        row = {
            "id": new_id(),
            "experiment_id": lease.experiment_id,
            "node_id": lease.node_id,
            "idx": lease.idx,
            "task_id": named.task_id,
            "lease_id": named.lease_id,
            "attempt": named.attempt,
            "output": said.output,
            "path": said.path,
            "size": said.size,
            "sha256": said.sha256,
            "storage_id": place.storage_id,
            "storage_key": place.key,
            "state": "staged",
            "created_at": now_ms(),
        }
        insert_rows("artifacts", tuple(row), [tuple(row.values())])


def _answer(status: int, document: dict[str, Any]) -> Response:
    response = jsonify(document)
    response.status_code = status
    return response
