"""What a task needs on its machine before it starts: files, staged data, outputs of other tasks.

The start gate lists them with addresses. An address carries what it stands for and a signature
that binds it to the lease, so that fetching one of ten thousand inputs looks up that one only. It
opens something to the holder of the lease, and for as long as the lease is held.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

from flask import Response
from pydantic import BaseModel, Field

from airavata_scheduler.backends.storage import StorageUnavailable
from airavata_scheduler.functions import blobs, downloads, tokens
from airavata_scheduler.functions.agent_lease_access import (
    HeldLease,
    LeasePath,
    blueprint,
    held,
)
from airavata_scheduler.functions.agent_reference_inputs import (
    Absent,
    PublishedFile,
    reference_files,
)
from airavata_scheduler.functions.agent_staged_inputs import (
    MAX_INPUTS,
    StagedFile,
    staged_files,
    staged_object,
)
from airavata_scheduler.functions.shapes import Query
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import Conflict, Forbidden, NotFound
from airavata_scheduler.models.lease_records import LeaseName
from airavata_scheduler.models.node_facts import node_facts
from airavata_scheduler.models.tables_record import Artifact

BASE = "/agent/v1"

Kind = Literal["artifact", "stage", "absent"]

api = blueprint("agent_inputs")

_log = logging.getLogger(__name__)


class InputPath(LeasePath):
    """One input of a lease; the number is for people, the query says what it is."""

    number: int = Field(ge=0)


class InputQuery(Query):
    """What the start gate signed."""

    kind: Kind
    of: str = Field(max_length=4000)
    mac: str = Field(pattern=r"^[0-9a-f]{32}$")


class BlobPath(BaseModel):
    """A blob by its digest."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BlobQuery(Query):
    """The lease that needs the blob."""

    lease: str = Field(max_length=80)


@dataclass(frozen=True, kw_only=True)
class _Input:
    """One file for the task's directory.

    `version` is the key for the agent's cache; without one the file belongs to this lease only.
    """

    path: str
    kind: Kind | Literal["blob"]
    of: str
    size: int | None
    version: str | None
    parameter: str | None = None


def inputs_of(passed: list[LeaseName]) -> dict[LeaseName, dict[str, Any]]:
    """For each lease that passed the gate: {inputs: […], parameters: {NAME: local path}}.

    A lease that ended meanwhile, or whose storage is away now, is left out: its agent asks again,
    and the others need not wait for it.
    """
    found = {}
    for lease in passed:
        try:
            found[lease] = _documents(held(str(lease)))
        except (Conflict, NotFound, StorageUnavailable) as error:
            _log.info("lease %s: its inputs cannot be listed now: %s", lease, error.detail)
    return found


def _documents(lease: HeldLease) -> dict[str, Any]:
    spec = node_facts(lease.node_id).spec
    found = [*_files(spec), *map(_from_staged, staged_files(lease, spec))]
    parameters: dict[str, str] = {}
    for reference in spec["references"]:
        place, files = reference_files(lease, reference)
        parameters[reference["parameter"]] = place
        found += [_from_reference(reference["parameter"], file) for file in files]
    if len(found) > MAX_INPUTS:
        text = f"the task has {len(found)} input files; at most {MAX_INPUTS} are staged"
        found = [_Input(path="inputs", kind="absent", of=text, size=None, version=None)]
    documents = [_document(lease.lease, n, one) for n, one in enumerate(found)]
    return {"inputs": documents, "parameters": parameters}


def _document(lease: LeaseName, number: int, one: _Input) -> dict[str, Any]:
    if one.kind == "blob":
        url = f"{BASE}/blobs/{one.of}?lease={lease}"
    else:
        query = urlencode({"kind": one.kind, "of": one.of, "mac": _mac(lease, one.kind, one.of)})
        url = f"{BASE}/leases/{lease}/inputs/{number}?{query}"
    version = one.version or f"{lease}/{number}"
    document = {"path": one.path, "url": url, "size": one.size, "version": version}
    return document | ({"parameter": one.parameter} if one.parameter else {})


def _files(spec: dict[str, Any]) -> Iterator[_Input]:
    """Files of the user's machine, sent along with the experiment as blobs."""
    for file in spec["files"]:
        yield _Input(
            path=file["destination"],
            kind="blob",
            of=file["sha256"],
            size=file["size"],
            version=file["sha256"],
        )


def _from_staged(file: StagedFile | Absent) -> _Input:
    if isinstance(file, Absent):
        return _Input(path=file.path, kind="absent", of=file.why, size=None, version=None)
    return _Input(path=file.path, kind="stage", of=file.of, size=file.size, version=file.version)


def _from_reference(parameter: str, file: PublishedFile | Absent) -> _Input:
    if isinstance(file, Absent):
        return _Input(
            path=file.path,
            kind="absent",
            of=file.why,
            size=None,
            version=None,
            parameter=parameter,
        )
    return _Input(
        path=file.path,
        kind="artifact",
        of=file.artifact_id,
        size=file.size,
        version=file.sha256,
        parameter=parameter,
    )


def _mac(lease: LeaseName, kind: str, of: str) -> str:
    text = f"{lease}\n{kind}\n{of}".encode()
    return hmac.digest(tokens.derived_key("agent input"), text, "sha256").hex()[:32]


@api.get("/leases/<lease>/inputs/<int:number>")
def get_input(path: InputPath, query: InputQuery) -> Response:
    """The bytes of one input that the start gate listed."""
    lease = held(path.lease)
    signed = _mac(lease.lease, query.kind, query.of)
    if not hmac.compare_digest(signed.encode(), query.mac.encode()):
        raise Forbidden(
            "This address was not issued for this lease.",
            code="input_not_signed",
            hint="Ask POST /agent/v1/leases/start again; it issues new addresses.",
        )
    if query.kind == "absent":
        raise NotFound(f"An input is missing: {query.of}.", code="input_missing")
    if query.kind == "artifact":
        return _send_artifact(query.of)
    return _send_staged(lease, query.of)


def _send_artifact(artifact_id: str) -> Response:
    row = Artifact.get_or_none(Artifact.id == artifact_id)
    if row is None:
        raise NotFound("An input is missing: the artifact was deleted.", code="input_missing")
    return downloads.send(
        storage_id=row.storage_id,
        key=row.storage_key,
        sha256=row.sha256,
        size=row.size,
        filename=row.path.rsplit("/", 1)[-1],
    )


def _send_staged(lease: HeldLease, of: str) -> Response:
    found = staged_object(lease, of)
    return downloads.send(
        storage_id=found.storage_id,
        key=found.key,
        sha256=found.etag,
        size=found.size,
        filename=found.key.rsplit("/", 1)[-1],
    )


@api.get("/blobs/<sha256>")
def get_blob(path: BlobPath, query: BlobQuery) -> Response:
    """A blob that a held lease needs: a bundle, its arguments, a file sent along."""
    lease = held(query.lease)
    found = (
        blobs.find(lease.project_id, path.sha256) if path.sha256 in _blobs_needed(lease) else None
    )
    if found is None:
        raise NotFound("This lease needs no such blob.", code="blob_not_found")
    return downloads.send(
        storage_id=found["storage_id"],
        key=found["storage_key"],
        sha256=path.sha256,
        size=found["size"],
        filename=path.sha256,
    )


def _blobs_needed(lease: HeldLease) -> set[str]:
    spec = node_facts(lease.node_id).spec
    needed = {file["sha256"] for file in spec["files"]}
    bundle = (spec.get("python") or {}).get("blob")
    if bundle:
        needed.add(bundle["sha256"])
    rows = execute("SELECT arguments FROM tasks WHERE id = %s", (lease.lease.task_id,))
    arguments = json.loads(rows[0][0] or "{}") if rows else {}
    if arguments.get("encoding") == "blob":
        needed.add(arguments["sha256"])
    return needed
