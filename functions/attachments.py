"""Local files of an experiment or function: sent before as blobs, named by path here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from airavata_scheduler.functions.selected import tuple_rows
from airavata_scheduler.functions.shapes import Body
from airavata_scheduler.models.errors import BadInput, FieldError
from airavata_scheduler.models.tables import Blob

MAX_FILES = 1000
MAX_TABLE_CHARS = 4 * 1024 * 1024


class FileFacts(Body):
    """A local file by its SHA-256 (hex) and size in bytes."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, le=2**50)


Files = Annotated[dict[str, FileFacts], Field(max_length=MAX_FILES)]
Table = Annotated[str, Field(max_length=MAX_TABLE_CHARS)]
Tables = Annotated[dict[str, Table], Field(max_length=MAX_FILES)]


def described(files: Mapping[str, FileFacts]) -> dict[str, dict[str, Any]]:
    """The files as the format's reader takes them: path → {sha256, size}."""
    return {path: {"sha256": file.sha256, "size": file.size} for path, file in files.items()}


def check_sent(project_id: str, files: Mapping[str, FileFacts]) -> None:
    """Raise BadInput `blob_missing`, naming each file whose bytes the project does not have."""
    digests = sorted({file.sha256 for file in files.values()})
    if not digests:
        return
    rows = tuple_rows(
        Blob.select(Blob.sha256, Blob.size).where(
            (Blob.project_id == project_id) & Blob.sha256.in_(digests)
        )
    )
    sizes: dict[str, int] = dict(rows)
    faults = [
        FieldError(field=f"files.{path}", code="blob_missing", detail=_fault(path, file, sizes))
        for path, file in files.items()
        if sizes.get(file.sha256) != file.size
    ]
    if faults:
        raise BadInput(
            faults[0].detail,
            code="blob_missing",
            field=faults[0].field,
            errors=faults,
            hint=f"Send it first: PUT /api/v1/projects/{project_id}/blobs/<sha256>",
        )


def _fault(path: str, file: FileFacts, sizes: Mapping[str, int]) -> str:
    if file.sha256 not in sizes:
        return f"The bytes of {path!r} were not sent to this project."
    return f"The file {path!r} has {sizes[file.sha256]} bytes, not {file.size}."
