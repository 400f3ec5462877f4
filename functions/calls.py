"""Calls: one invocation of a function each, alone or by the thousand, with an answer to wait for.

A call is a task of the caller's own experiment of kind `calls`, one for each function version.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from airavata_scheduler.functions import (
    access,
    blobs,
    call_documents,
    idempotency,
    principals,
    registry,
    streams,
    tasks,
)
from airavata_scheduler.functions.call_documents import CallAnswer
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.shapes import Body, Nothing, Query
from airavata_scheduler.models import flow, function_file
from airavata_scheduler.models.errors import AiravataError, BadInput, FieldError
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.wakeups import Wakeups
from airavata_scheduler.queue.announce import announce

api = APIBlueprint("calls", __name__, abp_tags=[Tag(name="calls")])

MAX_CALLS = 1000
MAX_INLINE_BYTES = 65_536
DEFAULT_PRIORITY = 10  # somebody waits for a call: before experiments, which have 0


class Packed(Body):
    """Arguments in another form than JSON: pickled, or sent before as a blob of the project."""

    encoding: Literal["pickle", "blob"]
    data: str | None = Field(None, description="Base64, for pickle")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    size: int | None = Field(None, ge=0, le=2**50)


class CallItem(Body):
    """The arguments of one call: `arguments` by name, or `packed`."""

    arguments: dict[str, Any] | None = None
    packed: Packed | None = None


class CallBody(CallItem):
    """One call, where it may run, and how urgent it is."""

    compute: str | None = None
    priority: int = Field(DEFAULT_PRIORITY, ge=-100, le=100)


class BatchBody(Body):
    """Up to 1,000 calls of one function, all at the same place and of the same urgency."""

    calls: list[CallItem] = Field(min_length=1, max_length=MAX_CALLS)
    compute: str | None = None
    priority: int = Field(DEFAULT_PRIORITY, ge=-100, le=100)


class CallQuery(Query):
    """The function's project, and how long to wait for the end."""

    project: str | None = None
    wait: str | None = Field(None, description="At most this long, such as 30s; 60s at most")


class ResultQuery(Query):
    """How long to wait for the end."""

    wait: str | None = Field(None, description="At most this long, such as 30s; 60s at most")


class ResultsBody(Body):
    """Calls, by id, and how long to wait for the first that ends."""

    ids: list[str] = Field(default_factory=list, max_length=MAX_CALLS)
    wait: str | None = None


@api.post("/api/v1/functions/<function>/calls", responses={201: CallAnswer})
def call(body: CallBody, query: CallQuery) -> Response:
    """Call the function once; with `wait`, the answer may have the result already."""
    wait_s = streams.wait_seconds(query.wait)
    found = access.target("function")
    ids = _made(found, [body], body.priority)
    if wait_s:
        _wait_for(ids, wait_s)
    response = jsonify(call_documents.read(ids)[0])
    response.status_code = 201
    response.headers["Location"] = f"/api/v1/calls/{ids[0]}"
    return response


@api.post("/api/v1/functions/<function>/calls/batch")
def batch(body: BatchBody, query: CallQuery) -> Response:
    """Call the function once for each item, in one transaction; the ids in the same order."""
    del query  # the gate has used its project to find the function
    ids = _made(access.target("function"), body.calls, body.priority)
    response = jsonify({"items": [{"id": identity} for identity in ids]})
    response.status_code = 201
    return response


@api.get("/api/v1/calls/<task>", responses={200: CallAnswer})
def one(query: ResultQuery) -> dict[str, Any]:
    """One call; with `wait`, answers as soon as it has ended."""
    wait_s = streams.wait_seconds(query.wait)
    found = access.target("task")
    if wait_s:
        _wait_for([found.id], wait_s)
    return call_documents.read([found.id])[0]


@api.post("/api/v1/calls/results")
def results(body: ResultsBody) -> dict[str, Any]:
    """Those of the calls that have ended; with `wait`, as soon as at least one has."""
    ids = list(dict.fromkeys(body.ids))
    ended = _wait_for(ids, streams.wait_seconds(body.wait)) if ids else []
    return {"items": call_documents.read(ended)}


@api.post("/api/v1/calls/<task>/cancel", responses={200: CallAnswer})
def cancel(body: Nothing) -> dict[str, Any]:
    """Stop a call; a result that was accepted first stays."""
    del body
    tasks.cancel_task()
    return call_documents.read([access.target("task").id])[0]


def _wait_for(ids: Sequence[str], wait_s: float) -> list[str]:
    """Wait until at least one of the calls has ended; those that have, in their order."""
    ended: list[str] = []

    def look() -> bool:
        ended[:] = call_documents.ended(ids)
        return bool(ended)

    streams.wait_until(time.monotonic() + wait_s, look, *(("task", one) for one in ids))
    return ended


def _made(found: Target, items: Sequence[CallItem], priority: int) -> list[str]:
    """The ids of the tasks of these calls, made once for one Idempotency-Key."""
    version = registry.version_of(found)
    arguments = _checked(found, version["spec"], items)
    wakeups = Wakeups()

    def make() -> dict[str, Any]:
        made = flow.add_calls(
            function_version_id=version["id"],
            owner_id=principals.current().id,
            arguments=arguments,
            compute=[site.id for site in access.targets("compute_resource")] or None,
            priority=priority,
        )
        wakeups.merge(made.wakeups)
        return {"ids": made.task_ids}

    made = idempotency.create_once(make)
    announce(wakeups)
    ids: list[str] = made.document["ids"]
    return ids


def _checked(
    found: Target, spec: Mapping[str, Any], items: Sequence[CallItem]
) -> list[dict[str, Any]]:
    """The arguments of every call as they are stored. Raises BadInput with all faults at once."""
    checked, faults = [], []
    for position, item in enumerate(items):
        try:
            checked.append(_arguments(found, spec, item))
        except AiravataError as error:
            place = f"calls[{position}]." if len(items) > 1 else ""
            faults += _placed(error, place)
    if faults:
        first = faults[0]
        more = f" And {len(faults) - 1} more." if len(faults) > 1 else ""
        raise BadInput(first.detail + more, code=first.code, field=first.field, errors=faults[:50])
    return checked


def _placed(error: AiravataError, place: str) -> list[FieldError]:
    found = error.errors or [
        FieldError(field=error.field or "arguments", code=error.code, detail=error.detail)
    ]
    return [
        FieldError(field=place + (fault.field or "arguments"), code=fault.code, detail=fault.detail)
        for fault in found
    ]


def _arguments(found: Target, spec: Mapping[str, Any], item: CallItem) -> dict[str, Any]:
    if item.packed is not None and item.arguments is not None:
        raise BadInput("Give arguments or packed, not both.", code="ambiguous", field="packed")
    if item.packed is not None:
        return _packed(found, spec, item.packed)
    if _codec(spec) == "pickle":
        raise BadInput(
            f"The function {found.name} takes pickled arguments.",
            code="codec_mismatch",
            field="arguments",
            hint="Send `packed`; the SDK's Executor does.",
        )
    typed = function_file.check_arguments(spec, item.arguments or {})
    size = len(canonical_json(typed))
    if size > MAX_INLINE_BYTES:
        raise BadInput(
            f"The arguments have {size} bytes of JSON; {MAX_INLINE_BYTES} fit into a call.",
            code="arguments_too_large",
            field="arguments",
            hint="Send them as a blob of the project and name it in `packed`.",
        )
    return {"encoding": "json", "data": typed}


def _packed(found: Target, spec: Mapping[str, Any], packed: Packed) -> dict[str, Any]:
    if packed.encoding == "blob":
        return _blob(found, packed)
    if _codec(spec) != "pickle":
        raise BadInput(
            f"The function {found.name} takes plain arguments, not pickled ones.",
            code="codec_mismatch",
            field="packed.encoding",
        )
    data = packed.data or ""
    if len(data) > MAX_INLINE_BYTES:
        raise BadInput(
            f"The packed arguments have {len(data)} characters; {MAX_INLINE_BYTES} fit.",
            code="arguments_too_large",
            field="packed.data",
            hint="Send them as a blob of the project, with encoding blob.",
        )
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("data is not base64.", code="not_base64", field="packed.data") from None
    return {"encoding": "pickle", "data": data}


def _blob(found: Target, packed: Packed) -> dict[str, Any]:
    assert found.project_id is not None  # a function always has one
    if packed.sha256 is None:
        raise BadInput("sha256 is missing.", code="missing_field", field="packed.sha256")
    row = blobs.find(found.project_id, packed.sha256)
    if row is None or packed.size not in (None, row["size"]):
        raise BadInput(
            f"The project has no such blob {packed.sha256}.",
            code="blob_missing",
            field="packed.sha256",
            hint=f"Send it first: PUT /api/v1/projects/{found.project_id}/blobs/{packed.sha256}",
        )
    return {"encoding": "blob", "sha256": packed.sha256, "size": row["size"]}


def _codec(spec: Mapping[str, Any]) -> str:
    return str((spec.get("python") or {}).get("codec") or "json")
