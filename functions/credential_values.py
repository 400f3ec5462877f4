"""The values of credentials: replacing, rotating, revealing, and their history."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.backends import secret_copies, secret_values
from airavata_scheduler.functions import access, audit, pagination, principals
from airavata_scheduler.functions.credentials import (
    CredentialAnswer,
    ValueBody,
    shown_one,
    time_or_none,
    value_of,
)
from airavata_scheduler.functions.etags import check_if_match, lost_race
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.shapes import Body, rfc3339
from airavata_scheduler.models import credentials as rows
from airavata_scheduler.models.credentials import Reason, Written
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import Gone
from airavata_scheduler.models.tables import Credential, CredentialVersion

api = APIBlueprint(
    "credential_values",
    __name__,
    url_prefix="/api/v1/credentials",
    abp_tags=[Tag(name="credentials")],
)

GRACE_S = 3600  # within which work that began with the value before may still use it
LONGEST_GRACE_S = 30 * 86_400


class RotateValueBody(ValueBody):
    """The new value, and how long the one before may still be used."""

    keep_previous_s: int = Field(
        GRACE_S, ge=0, le=LONGEST_GRACE_S, description="Seconds; 0 ends it at once"
    )


class RevealBody(Body):
    """Which version to show: the one that counts, or one before that has not ended."""

    version: int | None = Field(None, ge=1, le=2**31 - 1)


class RevealAnswer(BaseModel):
    """The value itself. Whoever asked for it is in the audit."""

    id: str
    version: int
    value: dict[str, str]


class VersionAnswer(BaseModel):
    """One value that the credential had."""

    number: int
    reason: Literal["create", "update", "rotate", "rewrap"]
    state: Literal["current", "previous", "destroyed"]
    created_by: str | None = Field(description="The user's id; null: the operator")
    created_at: str
    ends_at: str | None
    destroyed_at: str | None


class VersionPage(BaseModel):
    """A page of the history, newest first."""

    items: list[VersionAnswer]
    next: str | None


@api.put("/<credential>/value", responses={200: CredentialAnswer})
def replace_value(body: ValueBody) -> Response:
    """Put another value in the place of the present one, which ends at once."""
    return _change(body, reason="update", keep_s=0)


@api.post("/<credential>/rotate", responses={200: CredentialAnswer})
def rotate_value(body: RotateValueBody) -> Response:
    """Let a new value count from now on, while the one before may still be used for a time."""
    return _change(body, reason="rotate", keep_s=body.keep_previous_s)


@api.post("/<credential>/reveal", responses={200: RevealAnswer})
def reveal_value(body: RevealBody) -> Response:
    """Show the value. It takes a permission of its own, and is audited before it is shown."""
    row = access.target("credential")
    # The one that counts is asked for as such: its number changes when it is wrapped anew.
    asked = (
        CredentialVersion.state == "current"
        if body.version is None
        else CredentialVersion.number == body.version
    )
    version = CredentialVersion.get_or_none((CredentialVersion.credential_id == row.id) & asked)
    if version is None or _has_ended(version):
        what = "The value" if body.version is None else f"Version {body.version}"
        raise Gone(
            f"{what} of {row.name} has ended.",
            code="version_ended",
            hint="See the history: airavata credential history",
        )
    value = secret_values.read_version(version)
    with transaction():
        audit.append("reveal", "credential", row.id, version=version.number)
    response = jsonify({"id": row.id, "version": version.number, "value": value})
    response.headers["Cache-Control"] = "no-store"
    return response


@api.get("/<credential>/versions", responses={200: VersionPage})
def list_versions(query: PageQuery) -> dict[str, Any]:
    """List the values that a credential had: when, by whom and why, never what."""
    found = CredentialVersion.select().where(
        CredentialVersion.credential_id == access.target("credential").id
    )
    position = pagination.after(query)
    if position:
        found = found.where(CredentialVersion.number < position[0])
    page = list(found.order_by(CredentialVersion.number.desc()).limit(query.limit + 1))
    return pagination.page(page, query, key=lambda row: [row.number], show=_shown)


def _change(body: ValueBody, *, reason: Reason, keep_s: int) -> Response:
    found, user_id = access.target("credential"), principals.current().id
    row = Credential.get_by_id(found.id)
    check_if_match(row.version)
    value = value_of(row.kind, body)

    def store(written: Written) -> None:
        with transaction():
            if not rows.set_value(
                row, written, reason=reason, user_id=user_id, keep_ms=keep_s * 1000
            ):
                raise lost_race()
            audit.append(reason, "credential", row.id, version=written.number)

    secret_values.write_next(row.id, value, store)
    if keep_s == 0 and secret_values.destroy_ended(row.id, [row.secret_version]):
        secret_copies.note_destroyed(row.id, [row.secret_version])
    document = shown_one(row.id)
    response = jsonify(document)
    response.set_etag(str(document["version"]))
    return response


def _has_ended(version: CredentialVersion) -> bool:
    """Whether nobody may use the value any more."""
    if version.state == "previous":
        return (version.ends_at or 0) <= now_ms()
    return version.state == "destroyed"


def _shown(row: CredentialVersion) -> dict[str, Any]:
    return {
        "number": row.number,
        "reason": row.reason,
        "state": row.state,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "ends_at": time_or_none(row.ends_at),
        "destroyed_at": time_or_none(row.destroyed_at),
    }
