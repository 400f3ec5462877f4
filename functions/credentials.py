"""Credentials: secrets that open resources. Lists and records never show a value.

The value goes to OpenBao before the row is written, and leaves it after the row is gone; see
`backends/secret_values.py`. Values: `credential_values.py`; who may use one:
`credential_shares.py`; which resource one opens: `credential_bindings.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from peewee import IntegrityError
from pydantic import BaseModel, Field

from airavata_scheduler.backends import credential_kinds, secret_values
from airavata_scheduler.backends.credential_fields import Value
from airavata_scheduler.functions import (
    access,
    audit,
    grants,
    naming,
    pagination,
    permissions,
    principals,
    shares,
)
from airavata_scheduler.functions.etags import check_if_match, etagged, lost_race
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.shapes import Body, Line, Name, Text, rfc3339
from airavata_scheduler.models import credentials as rows
from airavata_scheduler.models.credentials import Written
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, Forbidden, Gone
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import Credential, User

api = APIBlueprint(
    "credentials",
    __name__,
    url_prefix="/api/v1/credentials",
    abp_tags=[Tag(name="credentials")],
)

Kind = Literal[
    "SSH_KEY",
    "SSH_CERTIFICATE",
    "PASSWORD",
    "ACCESS_KEY",
    "TOKEN",
    "KUBECONFIG",
    "CERTIFICATE",
]
MayAnswer = Literal["read", "use", "write", "share", "reveal", "delete"]
MAY: tuple[MayAnswer, ...] = ("read", "use", "write", "share", "reveal", "delete")


class Generate(Body):
    """Make a key pair here; the private key is never shown unless it is revealed."""

    algorithm: Literal["ed25519", "rsa-3072", "ecdsa-p256"] = "ed25519"
    username: Line = Field("", description="The account that it logs in to")


class ValueBody(Body):
    """A value: its fields by name, or the wish that a key pair is made here."""

    value: dict[str, str] | None = Field(
        None, description="The fields of the kind, see docs/credentials.md"
    )
    generate: Generate | None = Field(None, description="For SSH_KEY only")


class NewCredentialBody(ValueBody):
    """A credential to make; you become its owner."""

    name: Name
    kind: Kind
    description: Text = ""


class CredentialBody(Body):
    """What may be changed besides the value."""

    name: Name | None = None
    description: Text | None = None


class LastTest(BaseModel):
    """How the last test by a real connection went."""

    at: str
    ok: bool
    detail: str
    target: str


class CredentialAnswer(BaseModel):
    """A credential without its value."""

    id: str
    name: str
    kind: Kind
    description: str
    owner_id: str
    owner: str
    public: dict[str, Any] = Field(description="What may be shown: user name, fingerprint, …")
    secret_version: int
    may: list[MayAnswer] = Field(description="What you may do with it")
    last_test: LastTest | None
    version: int
    created_at: str
    updated_at: str
    rotated_at: str | None
    expires_at: str | None
    used_at: str | None


class CredentialPage(BaseModel):
    """A page of credentials."""

    items: list[CredentialAnswer]
    next: str | None


class CredentialQuery(PageQuery):
    """Filters of the list."""

    kind: Kind | None = None
    q: Line | None = Field(None, description="Part of the name")


@api.post("", responses={201: CredentialAnswer})
def create_credential(body: NewCredentialBody) -> tuple[dict[str, Any], int]:
    """Make a credential: its value goes to OpenBao and is not shown again."""
    principal, credential_id = principals.current(), new_id()
    value = value_of(body.kind, body)

    def store(written: Written) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            rows.insert(
                credential_id,
                written,
                name=body.name,
                kind=body.kind,
                description=body.description,
                owner_id=principal.id,
            )
            audit.append("create", "credential", credential_id, kind=body.kind, name=body.name)
            return {"id": credential_id}

        return create_once(make).document

    made = secret_values.write_first(credential_id, value, store)
    if made["id"] != credential_id:  # the same request came before: what was written now is spare
        secret_values.delete(credential_id)
        _check_not_deleted(made["id"], body.name)
    grants.relay_now()
    return shown_one(made["id"]), 201


def _check_not_deleted(credential_id: str, name: str) -> None:
    """Raise Gone if what an earlier request with the same key made was deleted since."""
    if Credential.get_by_id(credential_id).state != "active":
        raise Gone(
            f"This request made {name} once, and it was deleted since.",
            code="credential_deleted",
            hint="Take a new Idempotency-Key to make another one.",
        )


@api.get("", responses={200: CredentialPage})
def list_credentials(query: CredentialQuery) -> dict[str, Any]:
    """List the credentials that you may see, without their values."""
    found = naming.rows_visible("credential", principals.current())
    if query.kind:
        found = found.where(Credential.kind == query.kind)
    if query.q:
        found = found.where(Credential.name.contains(query.q))
    position = pagination.after(query)
    if position:
        name, identity = position
        found = found.where(
            (Credential.name > name) | ((Credential.name == name) & (Credential.id > identity))
        )
    page = list(found.order_by(Credential.name, Credential.id).limit(query.limit + 1))
    documents = {item["id"]: item for item in shown(page)}
    return pagination.page(
        page, query, key=lambda row: [row.name, row.id], show=lambda row: documents[row.id]
    )


@api.get("/<credential>", responses={200: CredentialAnswer})
def get_credential() -> Response:
    """Show a credential, without its value."""
    return _answer(access.target("credential").id)


@api.patch("/<credential>", responses={200: CredentialAnswer})
def change_credential(body: CredentialBody) -> Response:
    """Change a credential's name or description."""
    found, changes = access.target("credential"), body.model_dump(exclude_none=True)
    try:
        with transaction():
            row = Credential.get_by_id(found.id)
            check_if_match(row.version)
            changed = (
                Credential.update(**changes, version=Credential.version + 1, updated_at=now_ms())
                .where(
                    (Credential.id == row.id)
                    & (Credential.version == row.version)
                    & (Credential.state == "active")
                )
                .execute()
            )
            if not changed:
                raise lost_race()
            audit.append("update", "credential", row.id, changes=sorted(changes))
    except IntegrityError:
        raise rows.name_taken(changes["name"]) from None
    return _answer(found.id)


@api.delete("/<credential>", responses={204: None})
def delete_credential() -> tuple[str, int]:
    """Delete a credential: at once for everybody, then its values in OpenBao."""
    found = access.target("credential")
    with transaction():
        row = Credential.get_by_id(found.id)
        check_if_match(row.version)
        # First, for it locks the row: who shares at this moment waits, and is told that it is gone.
        if not rows.bury(row):
            raise lost_race()
        shares.forget_object("credential", row.id)
        audit.append("delete", "credential", row.id, name=found.name)
    grants.relay_now()
    secret_values.delete(found.id)
    return "", 204


def _answer(credential_id: str) -> Response:
    document = shown_one(credential_id)
    return etagged(document, document["version"])


def value_of(kind: str, body: ValueBody) -> Value:
    """The value that a body brings or wishes for.

    Raises BadInput that names the field, and Forbidden for an SSH_CERTIFICATE of who administers
    nothing: its value says for which account our own authority signs, root's among them.
    """
    if kind == "SSH_CERTIFICATE" and not permissions.is_administrator(principals.current()):
        raise Forbidden(
            "Only administrators say for which accounts certificates are signed.",
            hint="Ask an administrator to make the credential and to share it with you.",
        )
    if body.generate is not None:
        if body.value is not None:
            raise BadInput("Send value or generate, not both.", field="generate")
        if kind != "SSH_KEY":
            raise BadInput("Only an SSH_KEY can be made here.", field="generate")
        return credential_kinds.generate(
            kind, algorithm=body.generate.algorithm, username=body.generate.username
        )
    if body.value is None:
        raise BadInput(
            "The value is missing.",
            code="missing_field",
            field="value",
            hint="Send value with the fields of the kind; for an SSH_KEY generate may do.",
        )
    try:
        return credential_kinds.read(kind, body.value)
    except BadInput as error:
        error.field = f"value.{error.field}" if error.field else "value"
        raise


def shown_one(credential_id: str) -> dict[str, Any]:
    """A credential as JSON."""
    return shown([Credential.get_by_id(credential_id)])[0]


def shown(found: list[Credential]) -> list[dict[str, Any]]:
    """Credentials as JSON, with what the caller may do: one call of SpiceDB for all."""
    principal = principals.current()
    named = [("credential", row.id, way) for row in found for way in MAY]
    answers = iter(permissions.decide_ids(principal, named))
    ids = {row.owner_id for row in found}
    owners = (
        {user.id: user.name for user in User.select(User.id, User.name).where(User.id.in_(ids))}
        if ids
        else {}
    )
    return [
        {
            "id": row.id,
            "name": row.name,
            "kind": row.kind,
            "description": row.description,
            "owner_id": row.owner_id,
            "owner": owners.get(row.owner_id, ""),
            "public": row.public,
            "secret_version": row.secret_version,
            "may": [way for way in MAY if next(answers)],
            "last_test": row.last_test,
            "version": row.version,
            "created_at": rfc3339(row.created_at),
            "updated_at": rfc3339(row.updated_at),
            "rotated_at": time_or_none(row.rotated_at),
            "expires_at": time_or_none(row.expires_at),
            "used_at": time_or_none(row.used_at),
        }
        for row in found
    ]


def time_or_none(at: int | None) -> str | None:
    """A time as text, where there is one."""
    return None if at is None else rfc3339(at)
