"""Blobs: bytes of a project by their SHA-256. Bundles, large arguments, local input files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import Field
from werkzeug.exceptions import RequestEntityTooLarge

from airavata_scheduler.backends import stores
from airavata_scheduler.backends.storage import CHUNK_BYTES
from airavata_scheduler.functions import access, downloads, principals, tokens
from airavata_scheduler.functions.bodies import (
    UNREADABLE,
    UnsupportedMediaType,
    incomplete_body,
)
from airavata_scheduler.functions.selected import dict_row
from airavata_scheduler.functions.shapes import Answer, Path
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import NotFound, TooLarge
from airavata_scheduler.models.tables import Blob

api = APIBlueprint("blobs", __name__, abp_tags=[Tag(name="blobs")])


class ProjectBlobPath(Path):
    """A blob's address."""

    project: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BlobAnswer(Answer):
    """What was stored."""

    sha256: str
    size: int


@api.put("/api/v1/projects/<project>/blobs/<sha256>", responses={200: BlobAnswer, 201: BlobAnswer})
def put_blob(path: ProjectBlobPath) -> Response:
    """Store the request's raw bytes; 200 if the project has them already.

    The bytes go to the storage as they arrive. Bytes with another SHA-256 than the address says are
    refused (`digest_mismatch`), and nothing is kept.
    """
    project = access.target("project")
    found = find(project.id, path.sha256)
    if found is not None:
        return jsonify({"sha256": path.sha256, "size": found["size"]})
    storage_id = stores.default_storage_id()
    key = stores.blob_key(project.id, path.sha256)
    stored = stores.store(storage_id).put(
        key, uploaded(tokens.configuration().max_upload_bytes), expect_sha256=path.sha256
    )
    try:
        with transaction():
            Blob.insert(
                project_id=project.id,
                sha256=path.sha256,
                size=stored.size,
                storage_id=storage_id,
                storage_key=key,
                created_by=principals.current().id,
                created_at=now_ms(),
            ).execute()
    except IntegrityError:
        pass  # somebody sent the same bytes at the same moment: both have them
    response = jsonify({"sha256": path.sha256, "size": stored.size})
    response.status_code = 201
    return response


@api.get("/api/v1/projects/<project>/blobs/<sha256>")
def get_blob(path: ProjectBlobPath) -> Response:
    """The bytes; HEAD asks whether they are there."""
    project = access.target("project")
    found = find(project.id, path.sha256)
    if found is None:
        raise NotFound(
            f"The project {project.name} has no blob {path.sha256}.", code="blob_not_found"
        )
    return downloads.send(
        storage_id=found["storage_id"],
        key=found["storage_key"],
        sha256=path.sha256,
        size=found["size"],
        filename=path.sha256,
    )


def find(project_id: str, sha256: str) -> dict[str, Any] | None:
    """The row of a project's blob, or None."""
    row: dict[str, Any] | None = dict_row(
        Blob.select().where((Blob.project_id == project_id) & (Blob.sha256 == sha256))
    )
    return row


def uploaded(limit: int) -> Iterator[bytes]:
    """The request's raw body piece by piece.

    Raises TooLarge beyond `limit` bytes, and UnsupportedMediaType for a packed body: a file is
    stored as it comes, so it would be stored packed, under a name that says otherwise.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(
            "A file is taken as it is, without Content-Encoding.",
            field="Content-Encoding",
            hint="Leave the header out, and send the file's own bytes.",
        )
    request.max_content_length = limit
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    arrived = 0
    while True:
        try:
            piece = request.stream.read(CHUNK_BYTES)
        except RequestEntityTooLarge:
            raise _too_large(limit) from None
        except UNREADABLE:
            raise incomplete_body() from None
        if not piece:
            return
        arrived += len(piece)
        if arrived > limit:
            raise _too_large(limit)
        yield piece


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The file is larger than the {limit} bytes that this server takes (MAX_UPLOAD_BYTES).",
        hint="Split it, or put it into a storage resource.",
    )
