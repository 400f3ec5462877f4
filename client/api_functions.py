"""Functions, calls and blobs of the typed SDK."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from airavata_scheduler.client.api_work import upload_blob
from airavata_scheduler.client.collection import Collection, path_of, without_none
from airavata_scheduler.client.errors import NotFoundError
from airavata_scheduler.client.records import Call, Function, Record
from airavata_scheduler.client.transport import Transport

BATCH_LIMIT = 1000


class Functions(Collection[Function]):
    """The functions of a project."""

    path = "/functions"
    noun = "function"
    record = Function

    def register(
        self,
        *,
        project: str,
        name: str,
        spec: Mapping[str, Any],
        attachments: Mapping[str, Any] | None = None,
    ) -> Function:
        """Register a function, or a new version of it where the spec changed.

        `attachments` are the `files` and `tables` of a function file (`experiment_sources`).
        """
        body = {"project": project, "name": name, "spec": dict(spec), **(attachments or {})}
        return Function.from_json(self.transport.post(self.path, body))

    def versions(self, function: str, *, project: str | None = None) -> Iterator[Record]:
        """Every version, newest first as the server orders them."""
        return self.pages(path_of(self.path, function, "versions"), Record, project=project)


class Calls:
    """Single invocations of functions."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        function: str,
        body: Mapping[str, Any],
        *,
        project: str | None = None,
        wait_s: float | None = None,
    ) -> Call:
        """Call `function` (name, name@version or id) once; wait up to `wait_s` for its end."""
        answer = self._transport.post(
            path_of("/functions", function, "calls"),
            body,
            timeout_s=wait_s or 0.0,
            project=project,
            wait=duration(wait_s),
        )
        return Call.from_json(answer)

    def create_batch(
        self,
        function: str,
        bodies: Sequence[Mapping[str, Any]],
        *,
        project: str | None = None,
        compute: str | None = None,
        priority: int | None = None,
    ) -> list[str]:
        """Call `function` once per body (at most 1,000); the calls' ids in the same order."""
        answer = self._transport.post(
            path_of("/functions", function, "calls", "batch"),
            without_none({"calls": list(bodies), "compute": compute, "priority": priority}),
            project=project,
        )
        return [str(item["id"]) for item in answer["items"]]

    def get(self, call_id: str, *, wait_s: float | None = None) -> Call:
        """One call; wait up to `wait_s` for its end."""
        answer = self._transport.call(
            "GET",
            path_of("/calls", call_id),
            query={"wait": duration(wait_s)},
            timeout_s=wait_s or 0.0,
        )
        return Call.from_json(answer)

    def results(self, call_ids: Sequence[str], *, wait_s: float) -> list[Call]:
        """Those of the calls (at most 1,000) that ended; waits up to `wait_s` for the first."""
        answer = self._transport.post(
            "/calls/results",
            {"ids": list(call_ids), "wait": duration(wait_s)},
            timeout_s=wait_s,
        )
        return [Call.from_json(item) for item in answer["items"]]

    def cancel(self, call_id: str) -> Call:
        """Stop a call; a result that was accepted first stays."""
        return Call.from_json(self._transport.post(path_of("/calls", call_id, "cancel")))


class Blobs:
    """Bytes by their SHA-256, within a project."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def put(self, project: str, content: bytes) -> str:
        """Store `content` unless the server has it; its SHA-256 in hex."""
        sha256 = hashlib.sha256(content).hexdigest()
        target = path_of("/projects", project, "blobs", sha256)
        try:
            self._transport.send("HEAD", target)
        except NotFoundError:
            headers = {"Content-Type": "application/octet-stream"}
            self._transport.send("PUT", target, content=content, headers=headers)
        return sha256

    def put_file(self, project: str, path: Path, sha256: str, size: int) -> None:
        """Store a local file whose SHA-256 and size are known, unless the server has it."""
        upload_blob(self._transport, project, path, sha256, size)

    def get(self, project: str, sha256: str) -> bytes:
        """The bytes of a blob."""
        target = path_of("/projects", project, "blobs", sha256)
        return self._transport.send("GET", target, headers={"Accept": "*/*"}).content


def duration(seconds: float | None) -> str | None:
    """Seconds as the API takes a duration, such as "2.5s"; None stays None."""
    return None if seconds is None else f"{seconds:g}s"


def call_body(
    arguments: Mapping[str, Any],
    *,
    compute: str | None = None,
    priority: int | None = None,
) -> dict[str, Any]:
    """The body of a call with plain (JSON) arguments."""
    options = {"compute": compute, "priority": priority}
    return {"arguments": dict(arguments), **without_none(options)}
