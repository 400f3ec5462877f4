"""What users do to an experiment: submit, pause, resume, cancel, retry, derive.

Each is safe to send again. The change is committed first; then the waiting are woken and the jobs
enqueued, and should that be lost, the reconciler finds the same work in SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from airavata_scheduler.backends import stores
from airavata_scheduler.functions import (
    access,
    audit,
    etags,
    experiment_documents,
    experiments,
    idempotency,
)
from airavata_scheduler.functions.experiment_documents import ExperimentAnswer
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.shapes import Body, Nothing
from airavata_scheduler.models import flow
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.events import Note
from airavata_scheduler.models.experiment_file import with_parameters
from airavata_scheduler.models.node_facts import graph_of
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.states import ExperimentState
from airavata_scheduler.models.wakeups import Wakeups
from airavata_scheduler.queue.announce import announce
from airavata_scheduler.queue.enqueue import enqueue

api = APIBlueprint("experiments_control", __name__, abp_tags=[Tag(name="experiments")])


class RetryBody(Body):
    """What to run again."""

    failed_only: bool = Field(
        True, description="Only what failed; else also what was cancelled or skipped"
    )


class DeriveBody(Body):
    """How the new experiment differs from the old one."""

    name: str | None = Field(None, min_length=1, max_length=255)
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="NAME → value, list or range, instead of the old one"
    )
    filter: Literal["all", "only_failed", "only_successful"] = "all"
    submit: bool = False


@api.post("/api/v1/experiments/<experiment>/submit", responses={200: ExperimentAnswer})
def submit(body: Nothing) -> Response:
    """Let it run; the planner opens its first tasks at once."""
    del body
    return _changed("experiment.submit", flow.submit)


@api.post("/api/v1/experiments/<experiment>/pause", responses={200: ExperimentAnswer})
def pause(body: Nothing) -> Response:
    """Let nothing new start; what runs goes on."""
    del body
    return _changed("experiment.pause", flow.pause)


@api.post("/api/v1/experiments/<experiment>/resume", responses={200: ExperimentAnswer})
def resume(body: Nothing) -> Response:
    """Let a paused experiment go on."""
    del body
    return _changed("experiment.resume", flow.resume)


@api.post("/api/v1/experiments/<experiment>/cancel", responses={200: ExperimentAnswer})
def cancel(body: Nothing) -> Response:
    """End it: what waits is cancelled, what runs is stopped; accepted results stay."""
    del body
    return _changed("experiment.cancel", flow.cancel)


@api.post("/api/v1/experiments/<experiment>/retry", responses={200: ExperimentAnswer})
def retry(body: RetryBody) -> Response:
    """Run again what failed, in the same experiment; what succeeded stays."""
    return _changed(
        "experiment.retry",
        lambda identity, note: flow.retry(identity, failed_only=body.failed_only, note=note),
    )


@api.post("/api/v1/experiments/<experiment>/derive", responses={201: ExperimentAnswer})
def derive(body: DeriveBody) -> Response:
    """Make a new experiment of an old one: other parameters, or only some of its instances."""
    found = access.target("experiment")
    assert found.project_id is not None  # an experiment always has one
    recipe = experiment_documents.recipe(found.id)
    document = with_parameters(recipe["spec"], body.parameters)
    if body.name is not None:
        document = {**document, "name": body.name}
    spec = experiments.read(document, found.project_id)
    nodes = experiments.with_storage_ids(spec.nodes)
    only = _only(found, nodes, body.filter)
    project_id = found.project_id
    made = idempotency.create_once(
        lambda: experiments.store(
            spec,
            nodes,
            project_id=project_id,
            source=recipe["source"],
            compute=list(recipe["compute"]),
            storage_id=recipe["storage_id"] or stores.default_storage_id(),
            priority=recipe["priority"],
            submit=body.submit,
            derived_from=found.id,
            only=only,
        )
    )
    return experiments.created(made.document, submitted=body.submit)


def _only(found: Target, nodes: Sequence[NodeSpec], filtered: str) -> flow.Selection | None:
    """Which instances a derived experiment takes over.

    Instances are known by their number, so a filter needs axes with as many points as before.
    Raises BadInput `axes_changed`.
    """
    if filtered == "all":
        return None
    before = {node.name: node.own for node in graph_of(found.id)}
    for node in nodes:
        if before.get(node.name) != node.own:
            raise BadInput(
                f"{node.name} had {before.get(node.name, 0)} instances and has {node.own} with the "
                "new parameters, so its old instances cannot be told apart.",
                code="axes_changed",
                field="parameters",
                hint="Change values but not the number of points, or derive with filter all.",
            )
    return flow.Selection(
        experiment_id=found.id, ended="failed" if filtered == "only_failed" else "successful"
    )


def _changed(action: str, change: Callable[[str, Note], Wakeups]) -> Response:
    """Apply a change, which has transactions of its own that lock in one order and are retried.

    The audit's entry is written in the one that makes the change; what changes nothing leaves none.
    """
    found = access.target("experiment")
    wakeups = change(
        found.id,
        lambda: audit.append(action, "experiment", found.id, project_id=found.project_id),
    )
    announce(wakeups)
    document = experiment_documents.find(found.id)
    if document["state"] == ExperimentState.PLANNING:
        enqueue("plan", found.id)
    return etags.etagged(document, document["version"])
