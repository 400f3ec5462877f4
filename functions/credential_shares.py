"""Sharing credentials: with readers, who use one, writers, who change it, revealers, who see it."""

from __future__ import annotations

from typing import Any, Literal

from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from airavata_scheduler.functions import access, shares
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.shares import ShareAnswer, SharePage, UnshareQuery
from airavata_scheduler.functions.subjects import SubjectBody, named_in
from airavata_scheduler.models.database import transaction

api = APIBlueprint(
    "credential_shares",
    __name__,
    url_prefix="/api/v1/credentials",
    abp_tags=[Tag(name="credentials")],
)


class CredentialShareBody(SubjectBody):
    """With whom to share a credential, and as what."""

    relation: Literal["reader", "writer", "revealer"] = Field(
        "reader",
        description="reader: use it; writer: also change it; revealer: see the value",
    )


@api.get("/<credential>/shares", responses={200: SharePage})
def list_credential_shares(query: PageQuery) -> dict[str, Any]:
    """List with whom a credential is shared."""
    return shares.listed("credential", access.target("credential"), query)


@api.post("/<credential>/shares", responses={201: ShareAnswer})
def share_credential(body: CredentialShareBody) -> tuple[dict[str, Any], int]:
    """Share a credential with a user or a group."""
    target = access.target("credential")
    made = create_once(lambda: shares.add("credential", target, body.relation, named_in(body)))
    return made.document, 201


@api.delete("/<credential>/shares", responses={204: None})
def unshare_credential(query: UnshareQuery) -> tuple[str, int]:
    """Share a credential with a user or a group no longer; it ends at once."""
    target = access.target("credential")
    with transaction():
        shares.unshared("credential", target, query)
    return "", 204
