"""Experiment rows as plain records, and how they are locked and changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models.database import change, execute, now_sql
from airavata_scheduler.models.errors import NotFound
from airavata_scheduler.models.states import ExperimentState
from airavata_scheduler.models.task_rows import for_update

ENDED = (ExperimentState.COMPLETED, ExperimentState.FAILED, ExperimentState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class ExperimentRow:
    """What decides how an experiment goes on, and the database's time when it was read."""

    id: str
    project_id: str
    kind: str
    name: str
    state: ExperimentState
    plan: str | None
    on_failure: str
    compute: list[str]
    priority: int
    cancel_requested_at: int | None
    now: int

    @property
    def is_calls(self) -> bool:
        """Whether it holds a user's calls; such an experiment never ends."""
        return self.kind == "calls"

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it goes on, short of a retry."""
        return self.state in ENDED


def experiment_row(experiment_id: str, *, lock: bool = False) -> ExperimentRow:
    """One experiment, on request with its row locked. Raises NotFound (`experiment_unknown`)."""
    rows = execute(
        "SELECT id, project_id, kind, name, state, plan, on_failure, compute, priority, "
        f"cancel_requested_at, {now_sql()} FROM experiments WHERE id = %s"
        f"{for_update() if lock else ''}",
        [experiment_id],
    )
    if not rows:
        raise NotFound("There is no such experiment.", code="experiment_unknown")
    row = rows[0]
    return ExperimentRow(
        id=row[0],
        project_id=row[1],
        kind=row[2],
        name=row[3],
        state=ExperimentState(row[4]),
        plan=row[5],
        on_failure=row[6],
        compute=json.loads(row[7]) if row[7] else [],
        priority=row[8],
        cancel_requested_at=row[9],
        now=row[10],
    )


def set_experiment(experiment_id: str, now: int, **columns: Any) -> None:
    """Change columns of one experiment; its version and `updated_at` follow."""
    assignments = "".join(f"{column} = %s, " for column in columns)
    change(
        f"UPDATE experiments SET {assignments}version = version + 1, updated_at = %s WHERE id = %s",
        [*columns.values(), now, experiment_id],
    )
