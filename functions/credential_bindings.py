"""Which credential opens which resource: binding, explaining, testing."""

from __future__ import annotations

from typing import Any, Literal

from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.backends import (
    connection_tests,
    credential_kinds,
    openbao,
    openbao_setup,
    secret_values,
)
from airavata_scheduler.backends.connection_tests import Tested
from airavata_scheduler.functions import (
    access,
    audit,
    permissions,
    principals,
    shares,
    tokens,
)
from airavata_scheduler.functions.credential_resolution import SENTENCES, Verdict, resolve
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.shapes import Body, Line, Query, rfc3339
from airavata_scheduler.models import credentials as rows
from airavata_scheduler.models.credentials import ResourceKind
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, Conflict, Forbidden, NotFound
from airavata_scheduler.models.tables import (
    ComputeResource,
    Credential,
    CredentialBinding,
    StorageResource,
)

api = APIBlueprint(
    "credential_bindings", __name__, url_prefix="/api/v1", abp_tags=[Tag(name="credentials")]
)

_MODELS: dict[str, Any] = {
    "compute_resource": ComputeResource,
    "storage_resource": StorageResource,
}


class ResourceBody(Body):
    """A compute or a storage resource, by name or id: one of the two."""

    compute: str | None = None
    storage: str | None = None


class TestBody(ResourceBody):
    """What to connect to: a bound resource, or an address."""

    target: str | None = Field(
        None, max_length=2048, description="ssh://user@host:22, https://host, s3://host/bucket"
    )


class ResourceQuery(Query):
    """Which resource to unbind: a compute or a storage resource."""

    compute: Line | None = None
    storage: Line | None = None


class ExplainQuery(Query):
    """Which resource a run needs."""

    compute: Line | None = None
    storage: Line | None = None


class BindingAnswer(BaseModel):
    """A resource that the credential opens."""

    kind: Literal["compute_resource", "storage_resource"]
    id: str
    name: str
    created_by: str
    created_at: str


class BindingList(BaseModel):
    """Every resource that the credential is bound to and that you may see."""

    items: list[BindingAnswer]


class TestAnswer(BaseModel):
    """How the connection went."""

    ok: bool
    detail: str
    target: str
    took_ms: int
    fingerprint: str | None
    host_key: str | None


class StepAnswer(BaseModel):
    """One credential that is bound to the resource."""

    id: str
    name: str
    kind: str
    verdict: Verdict
    detail: str


class ExplainAnswer(BaseModel):
    """How a resource is opened for you, and why so."""

    resource: str
    resource_id: str
    chosen: str | None = Field(description="The id of the credential that is used")
    detail: str
    steps: list[StepAnswer]
    hidden: int = Field(description="Bound as well, but you may not see them")


@api.get("/credentials/<credential>/bindings", responses={200: BindingList})
def list_bindings() -> dict[str, Any]:
    """List the resources that a credential is bound to."""
    found = CredentialBinding.select().where(
        CredentialBinding.credential_id == access.target("credential").id
    )
    items = [item for kind in _MODELS for item in _shown_bindings(kind, found)]
    return {"items": items}


@api.post("/credentials/<credential>/bindings", responses={201: BindingAnswer})
def bind_credential(body: ResourceBody) -> tuple[dict[str, Any], int]:
    """Bind a credential to a resource: whoever may use both can run there."""
    del body  # the gate has found what it names
    found, resource = access.target("credential"), _resource()
    if not credential_kinds.fits(found.row["kind"], resource.row["kind"]):
        raise BadInput(
            f"A credential of kind {found.row['kind']} does not open a {resource.row['kind']} "
            "resource.",
            code="kind_does_not_fit",
            field="compute" if resource.kind == "compute_resource" else "storage",
            hint="docs/credentials.md says what fits what.",
        )

    def make() -> dict[str, Any]:
        shares.lock_object("credential", found)
        shares.lock_object(_kind(resource), resource)
        if not rows.bind(found.id, _kind(resource), resource.id, user_id=principals.current().id):
            raise Conflict(
                f"{found.name} is bound to {resource.name} already.", code="binding_exists"
            )
        audit.append(
            "bind", "credential", found.id, project_id=resource.project_id,
            resource_kind=resource.kind, resource_id=resource.id,
        )  # fmt: skip
        return {
            "kind": resource.kind,
            "id": resource.id,
            "name": resource.name,
            "created_by": principals.current().id,
            "created_at": rfc3339(now_ms()),
        }

    return create_once(make).document, 201


@api.delete("/credentials/<credential>/bindings", responses={204: None})
def unbind_credential(query: ResourceQuery) -> tuple[str, int]:
    """End a binding, at once."""
    del query
    found, resource = access.target("credential"), _resource()
    with transaction():
        if not rows.unbind(found.id, _kind(resource), resource.id):
            raise NotFound(
                f"{found.name} is not bound to {resource.name}.", code="binding_not_found"
            )
        audit.append(
            "unbind", "credential", found.id, project_id=resource.project_id,
            resource_kind=resource.kind, resource_id=resource.id,
        )  # fmt: skip
    return "", 204


@api.get("/credential-resolution", responses={200: ExplainAnswer})
def explain_credential(query: ExplainQuery) -> dict[str, Any]:
    """Say which credential opens a resource for you, and why that one or none."""
    del query
    resource = _resource()
    found = resolve(principals.current(), resource)
    return {
        "resource": resource.name,
        "resource_id": resource.id,
        "chosen": found.chosen.id if found.chosen else None,
        "detail": found.sentence,
        "steps": [
            {
                "id": step.credential.id,
                "name": step.credential.name,
                "kind": step.credential.kind,
                "verdict": step.verdict,
                "detail": SENTENCES[step.verdict],
            }
            for step in found.steps
        ],
        "hidden": found.hidden,
    }


@api.post("/credentials/<credential>/test", responses={200: TestAnswer})
def test_credential(body: TestBody) -> dict[str, Any]:
    """Try a credential by a real connection; what came of it is kept."""
    row = Credential.get_by_id(access.target("credential").id)
    target = _address(body, row)
    _check_trust(row, body)
    value = secret_values.read(row)
    tested = connection_tests.test(
        row.kind,
        value,
        target,
        allow=tokens.configuration().outbound_allow,
        sign=_sign,
    )
    _keep(row, tested, target)
    return {
        "ok": tested.ok,
        "detail": tested.detail,
        "target": target,
        "took_ms": tested.took_ms,
        "fingerprint": tested.fingerprint,
        "host_key": tested.host_key,
    }


def _check_trust(row: Credential, body: TestBody) -> None:
    """Raise Forbidden where the caller could read the value at the server that they name.

    A secret that is sent as it is goes to the endpoints of resources that the credential is bound
    to; elsewhere only for those who may see it anyway.
    """
    if not credential_kinds.KINDS[row.kind].is_sent:
        return
    if body.target is None and rows.is_bound(row.id, _resource().id):
        return
    if not permissions.decide_ids(principals.current(), [("credential", row.id, "reveal")])[0]:
        raise Forbidden(
            f"A test sends the value of {row.name} to the server, and you may not see it.",
            code="target_needs_reveal",
            field="target" if body.target is not None else None,
            hint="Test it with a resource that it is bound to, or ask its owner.",
        )


def _sign(role: str, public_key: str, principal: str, ttl_s: int) -> str:
    """OpenBao's signature, for credentials that are certificates."""
    return openbao.secrets().sign_ssh(
        role or openbao_setup.SSH_ROLE, public_key, principal=principal, ttl_s=ttl_s
    )


def _address(body: TestBody, row: Credential) -> str:
    """Where to connect to: what the body says, else what its resource says."""
    if body.target is not None:
        return body.target
    if body.compute is None and body.storage is None:
        if row.kind == "KUBECONFIG":
            return ""  # it names its own server
        raise BadInput(
            "It takes a target, or a resource with an endpoint.",
            code="missing_field",
            field="target",
            hint='Send {"target": "ssh://user@host"} or {"compute": NAME}.',
        )
    resource = _resource()
    endpoint = str(resource.row.get("endpoint") or "")
    if not endpoint:
        raise BadInput(
            f"{resource.name} has no endpoint to connect to.",
            code="endpoint_missing",
            field="compute" if body.compute is not None else "storage",
            hint="Set one: airavata resource compute update --endpoint, or name a target.",
        )
    return endpoint


def _keep(row: Credential, tested: Tested, target: str) -> None:
    with transaction():
        told = {
            "at": rfc3339(now_ms()),
            "ok": tested.ok,
            "detail": tested.detail,
            "target": target,
        }
        Credential.update(last_test=told, used_at=now_ms()).where(Credential.id == row.id).execute()
        audit.append("test", "credential", row.id, ok=tested.ok, target=target)


def _resource() -> Target:
    """The one resource that the request names. Raises BadInput for none or two."""
    compute, storage = access.targets("compute_resource"), access.targets("storage_resource")
    if len(compute) + len(storage) != 1:
        raise BadInput(
            "It takes one resource: a compute or a storage resource.",
            code="missing_field",
            field="compute",
            hint="Name it by compute or by storage.",
        )
    return (compute or storage)[0]


def _kind(resource: Target) -> ResourceKind:
    return "compute_resource" if resource.kind == "compute_resource" else "storage_resource"


def _shown_bindings(kind: str, found: Any) -> list[dict[str, Any]]:
    """The bindings to resources of one kind that the caller may see."""
    bindings = [row for row in found if row.resource_kind == kind]
    if not bindings:
        return []
    named = [(kind, row.resource_id, "read") for row in bindings]
    may_see = permissions.decide_ids(principals.current(), named)
    model, ids = _MODELS[kind], [row.resource_id for row in bindings]
    names = {row.id: row.name for row in model.select().where(model.id.in_(ids))}
    return [
        {
            "kind": kind,
            "id": row.resource_id,
            "name": names[row.resource_id],
            "created_by": row.created_by,
            "created_at": rfc3339(row.created_at),
        }
        for row, yes in zip(bindings, may_see, strict=True)
        if yes and row.resource_id in names
    ]
