"""Compute resources: places to run, and whether somebody is there."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from airavata_scheduler.functions import (
    access,
    enrolment,
    naming,
    pagination,
    permissions,
    presence,
    principals,
    resources,
    tokens,
)
from airavata_scheduler.functions.endpoints import check_endpoint
from airavata_scheduler.functions.etags import etagged
from airavata_scheduler.functions.idempotency import create_once
from airavata_scheduler.functions.pagination import PageQuery
from airavata_scheduler.functions.shapes import Body, Line, Name, Text, rfc3339
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.tables import Agent, ComputeResource

api = APIBlueprint(
    "compute_resources",
    __name__,
    url_prefix="/api/v1/compute-resources",
    abp_tags=[Tag(name="resources")],
)

Kind = Literal["SLURM", "KUBERNETES", "BARE_METAL"]


class Limits(Body):
    """The most that one task may ask for here; absent means no limit of ours."""

    max_cpu: int | None = Field(None, ge=1, le=1_000_000)
    max_ram_gb: float | None = Field(None, gt=0, le=1_000_000)
    max_gpu: int | None = Field(None, ge=0, le=100_000)
    max_time_s: int | None = Field(None, ge=1, le=10**9)


class Timers(Body):
    """Where this resource differs from the server's timers; all in seconds."""

    heartbeat_s: float | None = Field(None, ge=1, le=300)
    suspect_after_s: float | None = Field(None, ge=2, le=3600)
    requeue_after_s: float | None = Field(None, ge=5, le=30 * 86400)
    offer_ack_s: float | None = Field(None, ge=5, le=3600)


class ComputeAnswer(BaseModel):
    """A compute resource."""

    id: str
    name: str
    kind: Kind
    description: str
    owner_id: str | None
    project_id: str | None = Field(description="Null: everybody may use it")
    limits: dict[str, Any]
    timers: dict[str, Any]
    price_per_core_hour: float
    endpoint: str | None = Field(description="Shown to those who manage it; null: none")
    state: Literal["active", "disabled"]
    version: int
    created_at: str
    updated_at: str


class ComputePage(BaseModel):
    """A page of compute resources."""

    items: list[ComputeAnswer]
    next: str | None


class NewComputeBody(Body):
    """A compute resource to make; without a project everybody may use it."""

    name: Name
    kind: Kind
    description: Text = ""
    project: str | None = None
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    timers: Timers = Field(default_factory=lambda: Timers.model_validate({}))
    price_per_core_hour: float = Field(0.0, ge=0, le=1e6)
    endpoint: Line = Field("", description="ssh://host:port or https://…; empty: none")


class ComputeBody(Body):
    """What may be changed; `limits` and `timers` are replaced as a whole."""

    name: Name | None = None
    description: Text | None = None
    limits: Limits | None = None
    timers: Timers | None = None
    price_per_core_hour: float | None = Field(None, ge=0, le=1e6)
    endpoint: Line | None = Field(None, description="Empty takes it away")
    state: Literal["active", "disabled"] | None = None


class EnrolmentBody(Body):
    """For which agent; without a name any agent may use the token."""

    agent_name: Name | None = None


class EnrolmentAnswer(BaseModel):
    """A one-time token, shown once, and the line that installs an agent with it."""

    token: str
    expires_at: str
    install_line: str


class ComputeStatusAnswer(BaseModel):
    """Who is there."""

    online: bool = Field(description="Whether an agent is there that takes work")
    agents: dict[str, int] = Field(description="Agents by how they are: online, unreachable, …")
    leases_held: int
    free: dict[str, float] = Field(description="What the agents said is free, added up")


class ComputeQuery(PageQuery):
    """Filters of the list."""

    kind: Kind | None = None
    q: Line | None = Field(None, description="Part of the name")


@api.post("", responses={201: ComputeAnswer})
def create_compute_resource(body: NewComputeBody) -> tuple[dict[str, Any], int]:
    """Make a compute resource."""
    project_id = resources.project_to_bind()
    _check_timers(body.timers)
    check_endpoint(body.endpoint)
    columns = {
        "name": body.name,
        "kind": body.kind,
        "description": body.description,
        "project_id": project_id,
        "limits": body.limits.model_dump(exclude_none=True),
        "timers": body.timers.model_dump(exclude_none=True),
        "price_per_core_hour": body.price_per_core_hour,
        "endpoint": body.endpoint,
    }
    made = create_once(lambda: _shown(resources.create("compute_resource", columns), whole=True))
    return made.document, 201


@api.get("", responses={200: ComputePage})
def list_compute_resources(query: ComputeQuery) -> dict[str, Any]:
    """List the compute resources that you may use."""
    rows = naming.rows_visible("compute_resource", principals.current())
    if query.kind:
        rows = rows.where(ComputeResource.kind == query.kind)
    if query.q:
        rows = rows.where(ComputeResource.name.contains(query.q))
    position = pagination.after(query)
    if position:
        rows = rows.where(ComputeResource.name > position[0])
    found = list(rows.order_by(ComputeResource.name).limit(query.limit + 1))
    whole = principals.current().is_admin
    return pagination.page(
        found, query, key=lambda row: [row.name], show=lambda row: _shown(row, whole=whole)
    )


@api.get("/<resource>", responses={200: ComputeAnswer})
def get_compute_resource() -> Response:
    """Show a compute resource."""
    return _answer(ComputeResource.get_by_id(access.target("compute_resource").id))


@api.patch("/<resource>", responses={200: ComputeAnswer})
def change_compute_resource(body: ComputeBody) -> Response:
    """Change a compute resource; a disabled one gets no new work."""
    if body.timers is not None:
        _check_timers(body.timers)
    if body.endpoint is not None:
        check_endpoint(body.endpoint)
    changes = body.model_dump(exclude_none=True)
    return _answer(resources.change("compute_resource", changes))


@api.delete("/<resource>", responses={204: None})
def delete_compute_resource() -> tuple[str, int]:
    """Delete a compute resource that never had an agent or an experiment; else disable it."""
    compute_id = access.target("compute_resource").id
    used_by = None
    if Agent.select().where(Agent.compute_id == compute_id).exists():
        used_by = "agents"
    elif execute(
        # Plans name their compute resources in a JSON list; this is rare enough for a scan.
        "SELECT 1 FROM experiments WHERE compute LIKE %s LIMIT 1",
        (f"%{compute_id}%",),
    ):
        used_by = "experiments"
    resources.delete("compute_resource", used_by=used_by)
    return "", 204


@api.get("/<resource>/status", responses={200: ComputeStatusAnswer})
def compute_status() -> dict[str, Any]:
    """Say which agents are there and what is free."""
    return presence.summary(access.target("compute_resource").row)


@api.post("/<resource>/enrolment-tokens", responses={201: EnrolmentAnswer})
def create_enrolment_token(body: EnrolmentBody) -> tuple[dict[str, Any], int]:
    """Make a token by which one agent enrols; good for 15 minutes, once."""
    compute = access.target("compute_resource")

    def make() -> dict[str, Any]:
        made = enrolment.new_enrolment_token(
            compute.id, created_by=principals.current().id, agent_name=body.agent_name
        )
        return {
            "token": made.token,
            "expires_at": rfc3339(made.expires_at),
            "install_line": enrolment.install_line(
                tokens.configuration(), compute.name, made.token
            ),
        }

    return create_once(make, secret=True).document, 201


def _check_timers(timers: Timers) -> None:
    """Raise BadInput unless the timers fit together, with the server's in the gaps."""
    config = tokens.configuration()
    heartbeat_s = timers.heartbeat_s or config.heartbeat_s
    suspect_s = timers.suspect_after_s or config.suspect_after_s
    requeue_s = timers.requeue_after_s or config.requeue_after_s
    if suspect_s <= heartbeat_s:
        raise BadInput(
            f"suspect_after_s ({suspect_s:g}) must be longer than heartbeat_s ({heartbeat_s:g}).",
            field="timers.suspect_after_s",
        )
    if requeue_s < suspect_s:
        raise BadInput(
            f"requeue_after_s ({requeue_s:g}) must not be shorter than suspect_after_s "
            f"({suspect_s:g}).",
            field="timers.requeue_after_s",
        )


def _answer(row: ComputeResource) -> Response:
    # Where there is no endpoint, nobody has to be asked whether they may see it.
    whole = bool(row.endpoint) and permissions.allows(
        principals.current(), "manage", access.target("compute_resource")
    )
    return etagged(_shown(row, whole=whole), row.version)


def _shown(row: ComputeResource, *, whole: bool) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "kind": row.kind,
        "description": row.description,
        "owner_id": row.owner_id,
        "project_id": row.project_id,
        "limits": row.limits,
        "timers": row.timers,
        "price_per_core_hour": row.price_per_core_hour,
        "endpoint": (row.endpoint or None) if whole else None,
        "state": row.state,
        "version": row.version,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
