"""What a task needs on its machine before it starts: files, staged data, outputs of other tasks.

The start gate lists them with addresses. An address carries what it stands for and a signature
that binds it to the lease, so that fetching one of ten thousand inputs looks up that one only. It
opens something to the holder of the lease, and for as long as the lease is held.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

from flask import Response
from pydantic import BaseModel, Field

from airavata_scheduler.backends import stores
from airavata_scheduler.backends.storage import user_key
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
from airavata_scheduler.functions.agent_shedding import sheds
from airavata_scheduler.functions.shapes import Query
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import Forbidden, NotFound
from airavata_scheduler.models.lease_records import LeaseName
from airavata_scheduler.models.node_facts import node_facts
from airavata_scheduler.models.tables_record import Artifact

BASE = "/agent/v1"
MAX_INPUTS = 20_000  # of one task; more belong into an archive or a folder of the site

Kind = Literal["artifact", "stage", "absent"]

api = blueprint("agent_inputs")


class InputPath(LeasePath):
    """One input of a lease; the number is for people, the query says what it is."""

    number: int = Field(ge=0)


class InputQuery(Query):
    """What the start gate signed."""

    kind: Kind
    of: str = Field(max_length=4000)
    mac: str = Field(min_length=32, max_length=32)


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
    """For each lease that passed the gate: {inputs: […], parameters: {NAME: local path}}."""
    return {lease: _documents(held(str(lease))) for lease in passed}


def _documents(lease: HeldLease) -> dict[str, Any]:
    spec = node_facts(lease.node_id).spec
    found = [*_files(spec), *_staged(lease, spec)]
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


def _staged(lease: HeldLease, spec: dict[str, Any]) -> Iterator[_Input]:
    """Data from storage resources; a folder is listed file by file."""
    for position, entry in enumerate(spec["stage_in"]):
        storage_id = _usable_storage(entry["storage"], lease.project_id)
        store = stores.store(storage_id)
        source = user_key(entry["source"])
        if not entry["folder"]:
            yield _stage_input(
                lease,
                f"{position}/",
                destination=entry["destination"],
                size=store.size(source),
                key=storage_id + source,
            )
            continue
        listed = 0
        for item in store.list(source):
            inside = item.key[len(source) :].lstrip("/")
            destination = f"{entry['destination'].rstrip('/')}/{inside}"
            yield _stage_input(
                lease,
                f"{position}/{inside}",
                destination=destination,
                size=item.size,
                key=storage_id + item.key,
            )
            listed += 1
            if listed > MAX_INPUTS:
                return
        if not listed:
            text = f"the folder {entry['source']} of {entry['storage']} is empty or is not there"
            yield _Input(path=entry["destination"], kind="absent", of=text, size=None, version=None)


def _stage_input(
    lease: HeldLease, of: str, *, destination: str, size: int | None, key: str
) -> _Input:
    # The store tells no version. Within one run of an experiment its inputs count as unchanged; a
    # retry (a new generation) stages them anew, since a mended file may have the same size.
    said = f"{lease.experiment_id}/{lease.generation}/{key}/{size}"
    return _Input(
        path=destination.removeprefix("./"),
        kind="stage",
        of=of,
        size=size,
        version=None if size is None else hashlib.sha256(said.encode()).hexdigest(),
    )


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


def _usable_storage(name: str, project_id: str) -> str:
    """The id of the storage resource called `name`, if tasks of the project may read it."""
    rows = execute(
        "SELECT id FROM storage_resources WHERE name = %s AND state = %s "
        "AND (project_id IS NULL OR project_id = %s)",
        (name, "active", project_id),
    )
    if not rows:
        raise NotFound(
            f"The project has no active storage resource called {name!r}.",
            code="storage_not_found",
        )
    return str(rows[0][0])


def _mac(lease: LeaseName, kind: str, of: str) -> str:
    text = f"{lease}\n{kind}\n{of}".encode()
    return hmac.digest(tokens.derived_key("agent input"), text, "sha256").hex()[:32]


@api.get("/leases/<lease>/inputs/<int:number>")
@sheds("start")
def get_input(path: InputPath, query: InputQuery) -> Response:
    """The bytes of one input that the start gate listed."""
    lease = held(path.lease)
    signed = _mac(lease.lease, query.kind, query.of)
    if not hmac.compare_digest(signed, query.mac):
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
    position, _, inside = of.partition("/")
    entry = node_facts(lease.node_id).spec["stage_in"][int(position)]
    storage_id = _usable_storage(entry["storage"], lease.project_id)
    key = user_key(f"{entry['source']}/{inside}")
    size = stores.store(storage_id).size(key)
    if size is None:
        raise NotFound(
            f"An input is missing: {entry['storage']}:/{key} is no file.", code="input_missing"
        )
    etag = hashlib.sha256(f"{storage_id}/{key}/{size}".encode()).hexdigest()
    filename = key.rsplit("/", 1)[-1]
    return downloads.send(storage_id=storage_id, key=key, sha256=etag, size=size, filename=filename)


@api.get("/blobs/<sha256>")
@sheds("start")
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
