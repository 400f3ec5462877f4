"""I8: an agent reaches only the objects of leases that it holds.

Every call that names a lease in its path passes `held`. A lease of somebody else does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from airavata_scheduler.functions import agent_identity
from airavata_scheduler.functions.shapes import Body
from airavata_scheduler.models import history, leases
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.errors import (
    AiravataError,
    BadInput,
    Conflict,
    NotFound,
    Unavailable,
)
from airavata_scheduler.models.ids import is_id
from airavata_scheduler.models.lease_records import LeaseName
from airavata_scheduler.models.states import TaskState

_COLUMNS = (
    "t.state, t.attempt, t.lease_id, t.agent_id, t.experiment_id, t.node_id, t.idx, t.generation, "
    "e.project_id, e.storage_id"
)
_MAY_STILL_REPORT = (TaskState.QUEUED, TaskState.PENDING)


class AgentBody(Body):
    """A body from an agent. Fields that this server does not know are passed over.

    Agents are updated by their owners, not with the server: a newer one may say more.
    """

    model_config = ConfigDict(extra="ignore", strict=True, str_max_length=1_000_000)


class LeasePath(BaseModel):
    """A lease in an address: `<task id>.<attempt>.<32 hexadecimal digits>`."""

    lease: str = Field(max_length=80)


@dataclass(frozen=True, kw_only=True)
class HeldLease:
    """A lease, and what its objects hang on."""

    lease: LeaseName
    experiment_id: str
    node_id: str
    idx: int
    generation: int
    project_id: str
    storage_id: str | None


def blueprint(name: str) -> APIBlueprint:
    """A blueprint under /agent/v1 whose routes need an agent's token by the route table."""
    return agent_identity.guard(APIBlueprint(name, __name__, url_prefix="/agent/v1"))


def lease_named(text: str) -> LeaseName | None:
    """The lease that `text` names, or None where it cannot be one."""
    try:
        lease = LeaseName.parse(text)
    except BadInput:
        return None
    return lease if is_id(lease.task_id) else None


def held(text: str) -> HeldLease:
    """The lease called `text`, if the calling agent holds it.

    Held is also the newest lease of a task that went back to the queue and that nobody has claimed
    since: its result would still be accepted. Raises NotFound `lease_unknown` for a lease of nobody
    or of another agent, Conflict `lease_finished` or `lease_superseded` for one that has ended, and
    Unavailable `lease_unsettled` for one that the database forgot and that the agent's list of what
    it holds will attach again.
    """
    lease = lease_named(text)
    rows = _task_of(lease) if lease is not None else []
    if lease is None or not rows:
        raise _unknown()
    state, attempt, lease_id, agent_id, *hangs_on = rows[0]
    is_ours = agent_id == agent_identity.caller().id
    if not is_ours or (attempt, lease_id) != (lease.attempt, lease.lease_id):
        raise _refusal(lease, is_ours)
    _refuse_ended(TaskState(state))
    history.note("reached", agent=agent_id, lease=text)
    return _described(lease, hangs_on)


def _refusal(lease: LeaseName, is_ours: bool) -> AiravataError:
    if leases.truth(agent_identity.session_id(), lease).verdict in ("keep", "cancel"):
        return Unavailable(
            "The database has lost its newest commits, and with them this lease.",
            code="lease_unsettled",
            hint="Send the full list of leases with a heartbeat, then try again.",
            retry_after_s=1.0,
        )
    return _superseded() if is_ours or _held_before(lease) else _unknown()


def unheld(lease: LeaseName) -> HeldLease | None:
    """What a lease hangs on, whoever holds it; None where there is no such task."""
    rows = _task_of(lease)
    return _described(lease, rows[0][4:]) if rows else None


def _task_of(lease: LeaseName) -> list[tuple[Any, ...]]:
    return execute(
        f"SELECT {_COLUMNS} FROM tasks t JOIN experiments e ON e.id = t.experiment_id "  # noqa: S608
        "WHERE t.id = %s",
        (lease.task_id,),
    )


def _described(lease: LeaseName, hangs_on: Sequence[Any]) -> HeldLease:
    experiment_id, node_id, idx, generation, project_id, storage_id = hangs_on
    return HeldLease(
        lease=lease,
        experiment_id=experiment_id,
        node_id=node_id,
        idx=idx,
        generation=generation,
        project_id=project_id,
        storage_id=storage_id,
    )


def _held_before(lease: LeaseName) -> bool:
    """Whether the caller once had it: then it may learn that a newer attempt took over."""
    return bool(
        execute(
            "SELECT 1 FROM attempts WHERE lease_id = %s AND agent_id = %s",
            (lease.lease_id, agent_identity.caller().id),
        )
    )


def _refuse_ended(state: TaskState) -> None:
    if state.is_leased or state in _MAY_STILL_REPORT:
        return
    raise Conflict(
        f"The task has ended ({state.name}).",
        code="lease_finished",
        hint="Nothing more is taken for this lease.",
    )


def _superseded() -> Conflict:
    return Conflict(
        "A newer attempt holds the task.",
        code="lease_superseded",
        hint="Stop the payload of this lease; its output may be kept on the machine.",
    )


def _unknown() -> NotFound:
    return NotFound("This agent holds no such lease.", code="lease_unknown")
