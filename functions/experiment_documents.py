"""Experiments as JSON: what they are, and how far they are, read from the nodes' counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peewee import fn

from airavata_scheduler.functions.selected import Row, dict_one, dict_rows, tuple_one, tuple_rows
from airavata_scheduler.functions.shapes import Answer, rfc3339
from airavata_scheduler.models.counters import COUNTER_COLUMNS
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.tables import Experiment, Node, Project, User

ENDED = ("completed", "failed", "cancelled", "skipped")
TERMINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED"})

_COUNTERS = tuple(getattr(Node, name) for name in COUNTER_COLUMNS)


class ExperimentAnswer(Answer):
    """An experiment; `counts` says how many of its `total` instances are in which state."""

    id: str
    name: str
    project_id: str
    owner_id: str
    state: str
    total: int
    counts: dict[str, int]
    compute: list[str]
    storage_id: str | None
    priority: int
    on_failure: str
    derived_from: str | None
    error: str | None
    version: int
    created_at: str
    submitted_at: str | None
    started_at: str | None
    finished_at: str | None


class NodeProgressAnswer(Answer):
    """How far one task of the file is."""

    name: str
    state: str
    total: int
    counts: dict[str, int]


class ProgressAnswer(Answer):
    """How far an experiment is; `rate_per_s` counts ended instances, `eta_s` may be unknown."""

    state: str
    total: int
    counts: dict[str, int]
    nodes: list[NodeProgressAnswer]
    rate_per_s: float | None
    eta_s: float | None


def rows() -> Any:
    """A query for experiments with the names of their projects and owners."""
    return (
        Experiment.select(
            *(
                field
                for field in Experiment._meta.sorted_fields
                if field.name not in ("spec", "source", "plan")  # long, and no list shows them
            ),
            Project.name.alias("project"),
            User.name.alias("owner"),
        )
        .join(Project, on=(Project.id == Experiment.project_id))
        .join(User, on=(User.id == Experiment.owner_id))
    )


def find(experiment_id: str) -> dict[str, Any]:
    """The document of one experiment that exists."""
    row = dict_one(rows().where(Experiment.id == experiment_id))
    return documents([row])[0]


def recipe(experiment_id: str) -> Row:
    """What an experiment was made of: spec, source, compute, storage_id, priority."""
    return dict_one(
        Experiment.select(
            Experiment.spec,
            Experiment.source,
            Experiment.compute,
            Experiment.storage_id,
            Experiment.priority,
        ).where(Experiment.id == experiment_id)
    )


def documents(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `rows()` as documents, with their counts, in one more query."""
    counts = _summed([row["id"] for row in found])
    return [_document(row, counts.get(row["id"], {})) for row in found]


def _document(row: Mapping[str, Any], counters: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "project_id": row["project_id"],
        "project": row["project"],
        "owner_id": row["owner_id"],
        "owner": row["owner"],
        "state": row["state"],
        "total": row["total"],
        "counts": with_waiting(counters, row["total"]),
        "compute": row["compute"],
        "storage_id": row["storage_id"],
        "priority": row["priority"],
        "on_failure": row["on_failure"],
        "derived_from": row["derived_from"],
        "error": row["error"],
        "version": row["version"],
        "created_at": rfc3339(row["created_at"]),
        "submitted_at": rfc3339(row["submitted_at"]),
        "started_at": rfc3339(row["started_at"]),
        "finished_at": rfc3339(row["finished_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def _summed(experiment_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    if not experiment_ids:
        return {}
    sums = tuple_rows(
        Node.select(Node.experiment_id, *(fn.SUM(counter) for counter in _COUNTERS))
        .where(Node.experiment_id.in_(experiment_ids))
        .group_by(Node.experiment_id)
    )
    return {
        row[0]: {name: int(value) for name, value in zip(COUNTER_COLUMNS, row[1:], strict=True)}
        for row in sums
    }


def with_waiting(counters: Mapping[str, int], total: int) -> dict[str, int]:
    """The counters, and as `waiting` the instances that exist only as numbers so far."""
    counts = {name: counters.get(name, 0) for name in COUNTER_COLUMNS}
    counts["waiting"] = max(0, total - sum(counts.values()))
    return counts


def progress(experiment_id: str) -> dict[str, Any]:
    """How far an experiment is, from its own row and those of its nodes; two small queries."""
    state, total, started_at, finished_at = tuple_one(
        Experiment.select(
            Experiment.state, Experiment.total, Experiment.started_at, Experiment.finished_at
        ).where(Experiment.id == experiment_id)
    )
    nodes = [
        {
            "name": row["name"],
            "state": row["state"],
            "total": row["total"],
            "counts": with_waiting(row, row["total"]),
        }
        for row in node_rows(experiment_id)
    ]
    counts = {
        name: sum(node["counts"][name] for node in nodes) for name in (*COUNTER_COLUMNS, "waiting")
    }
    ended = ended_of(counts)
    seconds = _seconds(started_at, finished_at)
    return {
        "state": state,
        "total": total,
        "counts": counts,
        "nodes": nodes,
        **pace(state, total - ended, ended / seconds if seconds else None),
    }


def pace(state: str, left: int, rate_per_s: float | None) -> dict[str, float | None]:
    """The members `rate_per_s` and `eta_s`; no ETA for what does not move."""
    moving = state == "RUNNING" and rate_per_s and left > 0
    return {
        "rate_per_s": None if rate_per_s is None else round(rate_per_s, 3),
        "eta_s": round(left / rate_per_s, 1) if moving and rate_per_s else None,
    }


def node_rows(experiment_id: str) -> list[dict[str, Any]]:
    """The nodes in the order of the file: name, state, total and counters, without their specs."""
    return dict_rows(
        Node.select(Node.id, Node.name, Node.state, Node.total, *_COUNTERS)
        .where(Node.experiment_id == experiment_id)
        .order_by(Node.position)
    )


def ended_of(counts: Mapping[str, int]) -> int:
    """How many instances have their final state."""
    return sum(counts[name] for name in ENDED)


def names_of(model: Any, ids: Iterable[str | None]) -> dict[str, str]:
    """id → name, for a table with these columns; unknown ids are left out."""
    wanted = sorted({identity for identity in ids if identity})
    if not wanted:
        return {}
    return dict(tuple_rows(model.select(model.id, model.name).where(model.id.in_(wanted))))


def _seconds(started_at: int | None, finished_at: int | None) -> float:
    if started_at is None:
        return 0.0
    return max(0.0, ((finished_at or now_ms()) - started_at) / 1000)
