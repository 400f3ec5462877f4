"""Experiments: created from a document, tried without storing anything, listed, searched, read.

A sweep of any size is one record, so creating costs what the document costs, never what it says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BeforeValidator, Field

from airavata_scheduler.backends import stores
from airavata_scheduler.functions import (
    access,
    audit,
    etags,
    experiment_documents,
    idempotency,
    permissions,
    principals,
    registry,
    staging,
    tokens,
)
from airavata_scheduler.functions.attachments import (
    FileFacts,
    Files,
    Tables,
    check_sent,
    described,
)
from airavata_scheduler.functions.experiment_documents import ExperimentAnswer
from airavata_scheduler.functions.pagination import PageQuery, after, page
from airavata_scheduler.functions.placement_hints import hints
from airavata_scheduler.functions.selected import dict_rows
from airavata_scheduler.functions.shapes import Body
from airavata_scheduler.models import flow
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.experiment_file import ExperimentSpec, parse_text, read_experiment
from airavata_scheduler.models.fields import canonical_json
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.preview import preview
from airavata_scheduler.models.states import ExperimentState
from airavata_scheduler.models.tables import Experiment
from airavata_scheduler.queue.enqueue import enqueue

api = APIBlueprint("experiments", __name__, abp_tags=[Tag(name="experiments")])

MAX_DOCUMENT_CHARS = 4 * 1024 * 1024


# Longer than other texts may be; how long is said by `_read`, in the words of documents.
DocumentText = Annotated[str, Field(max_length=2 * MAX_DOCUMENT_CHARS)]


def _text_or_object(value: Any) -> Any:
    """One sentence in the place of one for each form that it is not."""
    if not isinstance(value, str | dict):
        raise ValueError("must be the file's text, or the same as a JSON object")
    return value


class ExperimentBody(Body):
    """An experiment file with what stands beside it."""

    project: str = Field(description="Project, by id or name")
    name: str | None = Field(None, min_length=1, max_length=255)
    document: Annotated[DocumentText | dict[str, Any], BeforeValidator(_text_or_object)] = Field(
        description="The file's text, or the same as a JSON object",
        union_mode="left_to_right",
    )
    format: Literal["yaml", "json"] = "yaml"
    compute: list[str] = Field(default_factory=list, max_length=100)
    storage: str | None = None
    priority: int = Field(0, ge=-100, le=100)
    submit: bool = False
    dry_run: bool = False
    files: Files = Field(default_factory=dict[str, FileFacts])
    tables: Tables = Field(default_factory=dict)


class ExperimentListQuery(PageQuery):
    """Which experiments."""

    project: str | None = None
    state: ExperimentState | None = None
    name: str | None = Field(None, max_length=255, description="The whole name")
    q: str | None = Field(None, max_length=255, description="Part of the name")
    owner: str | None = Field(None, description="A user, by id or name")


@api.post("/api/v1/experiments", responses={201: ExperimentAnswer})
def create(body: ExperimentBody) -> Response | dict[str, Any]:
    """Store an experiment, and submit it if asked; or only say what it would run (`dry_run`)."""
    project = access.target("project")
    spec = _read(body, project.id)
    compute = compute_of(spec)
    nodes = with_storage_ids(spec.nodes)
    if body.dry_run:
        placement = hints(spec.nodes, compute, project.id)
        return {"dry_run": True, "name": spec.name, **preview(spec, hints=placement)}
    check_sent(project.id, body.files)
    source = body.document if isinstance(body.document, str) else canonical_json(body.document)
    made = idempotency.create_once(
        lambda: store(
            spec,
            nodes,
            project_id=project.id,
            source=source,
            compute=compute,
            storage_id=_storage_id(),
            priority=body.priority,
            submit=body.submit,
        )
    )
    return created(made.document, submitted=body.submit)


def store(
    spec: ExperimentSpec,
    nodes: list[NodeSpec],
    *,
    project_id: str,
    source: str,
    compute: list[str],
    storage_id: str,
    priority: int = 0,
    submit: bool = False,
    derived_from: str | None = None,
    only: flow.Selection | None = None,
) -> dict[str, Any]:
    """Write an experiment and its nodes in the caller's transaction; the document of the answer."""
    experiment_id = flow.create_experiment(
        project_id=project_id,
        owner_id=principals.current().id,
        name=spec.name,
        document=spec.document,
        source=source,
        nodes=nodes,
        compute=compute,
        storage_id=storage_id,
        priority=priority,
        on_failure=spec.on_failure,
        derived_from=derived_from,
        only=only,
        max_tasks=tokens.configuration().max_experiment_tasks,
    )
    audit.append("experiment.create", "experiment", experiment_id, project_id=project_id)
    if submit:
        flow.submit(experiment_id)
    return {**experiment_documents.find(experiment_id), "warnings": spec.warnings}


def created(document: dict[str, Any], *, submitted: bool) -> Response:
    """The 201 of a stored experiment; call it after the commit, for it wakes the planner."""
    if submitted:
        enqueue("plan", document["id"])
    response = jsonify(document)
    response.status_code = 201
    response.headers["Location"] = f"/api/v1/experiments/{document['id']}"
    response.set_etag(str(document["version"]))
    return response


@api.get("/api/v1/experiments")
def experiments(query: ExperimentListQuery) -> dict[str, Any]:
    """List experiments, newest first."""
    clause = permissions.visible(
        principals.current(), "experiment", scope=Experiment.project_id
    ) & (Experiment.kind == "experiment")
    for project in access.targets("project"):
        clause = clause & (Experiment.project_id == project.id)
    if query.state is not None:
        clause = clause & (Experiment.state == query.state.value)
    if query.name is not None:
        clause = clause & (Experiment.name == query.name)
    if query.q:
        clause = clause & Experiment.name.contains(query.q)
    if query.owner is not None:
        owner = access.require("user", query.owner, "read")
        clause = clause & (Experiment.owner_id == owner.id)
    behind = after(query)
    if behind is not None:
        at, identity = behind
        clause = clause & (
            (Experiment.created_at < at)
            | ((Experiment.created_at == at) & (Experiment.id < identity))
        )
    rows = dict_rows(
        experiment_documents.rows()
        .where(clause)
        .order_by(Experiment.created_at.desc(), Experiment.id.desc())
        .limit(query.limit + 1)
    )
    shown = experiment_documents.documents(rows)
    by_id = {document["id"]: document for document in shown}
    return page(
        rows,
        query,
        key=lambda row: [row["created_at"], row["id"]],
        show=lambda row: by_id[row["id"]],
    )


@api.get("/api/v1/experiments/<experiment>", responses={200: ExperimentAnswer})
def experiment() -> Response:
    """One experiment, with the document that it was made of."""
    found = access.target("experiment")
    document = experiment_documents.find(found.id)
    document["document"] = experiment_documents.recipe(found.id)["spec"]
    return etags.etagged(document, document["version"])


def _read(body: ExperimentBody, project_id: str) -> ExperimentSpec:
    """The checked document. Raises BadInput with every fault of it at once."""
    document = body.document
    if isinstance(document, str):
        if len(document) > MAX_DOCUMENT_CHARS:
            raise BadInput(
                f"The document has {len(document)} characters; {MAX_DOCUMENT_CHARS} fit.",
                code="document_too_large",
                field="document",
                hint="Put long scripts and tables into files beside it (`files`, `rows`).",
            )
        document = parse_text(document, body.format)
    return read(
        document,
        project_id,
        files=described(body.files),
        tables=body.tables,
        name=body.name,
    )


def read(document: Mapping[str, Any], project_id: str, **beside: Any) -> ExperimentSpec:
    """A document as this project reads it: with its functions, and this deployment's limit.

    `beside` is what `read_experiment` takes besides. Raises BadInput with every fault at once.
    """
    return read_experiment(
        document,
        functions=registry.lookup_in(project_id),
        max_tasks=tokens.configuration().max_experiment_tasks,
        **beside,
    )


def compute_of(spec: ExperimentSpec) -> list[str]:
    """The ids of the compute resources that may run it, in order; empty means any that fits.

    What the request names wins over the document's `placement`. Raises NotFound or Forbidden for a
    resource that the caller may not use, also for one that a single task of the file names.
    """
    asked = [found.id for found in access.targets("compute_resource")]
    named = list(spec.placement.compute)
    of_nodes = sorted({name for node in spec.nodes for name in node.compute} - set(named))
    ids = [staging.usable("compute_resource", name, "placement.compute") for name in named]
    for name in of_nodes:
        staging.usable("compute_resource", name, "tasks")
    return list(dict.fromkeys(asked or ids))


def with_storage_ids(nodes: Sequence[NodeSpec]) -> list[NodeSpec]:
    """The nodes with the id of each storage resource that they stage from beside its name."""
    return [
        dataclasses.replace(node, stage_in=staging.with_storage_ids(node.stage_in))
        for node in nodes
    ]


def _storage_id() -> str:
    asked = access.targets("storage_resource")
    return asked[0].id if asked else stores.default_storage_id()
