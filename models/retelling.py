"""The time in which agents tell a new epoch what it forgot: older tasks are given to nobody then.

A result that was acknowledged and that the database lost is taken back while its task is unclaimed
(I3 by I2). So tasks from before the loss wait until every agent that was there has told all that
it knows; newer tasks do not. An agent that does not come back holds them up for a bounded time.
Nor are leases from before given back meanwhile that an agent does not list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airavata_scheduler.models import epoch
from airavata_scheduler.models.agent_session import Session
from airavata_scheduler.models.database import execute
from airavata_scheduler.models.task_rows import TaskRow

HOLD_S = epoch.OUTAGE_GRACE_S
ALIVE_MS = 90_000  # whoever was heard so long before the last sign of life of the epoch before

_SETTLED = "settled"  # in a session's `free`, beside what else its last heartbeat said

_OTHERS = (
    "SELECT free FROM agent_sessions "
    "WHERE compute_id = %s AND ended_at IS NULL AND heartbeat_at > %s"
)


def noted(free: Mapping[str, Any], settled: str | None) -> dict[str, Any]:
    """What an agent says is free, and the epoch that it has told everything."""
    return {**free} if settled is None else {**free, _SETTLED: settled}


def is_under_way(session: Session, hold_s: float) -> bool:
    """Whether the present epoch began less than `hold_s` ago, and is not the first one."""
    began_at = session.epoch_began_at
    return began_at is not None and session.now - began_at < hold_s * 1000


def held_up_until(session: Session, hold_s: float) -> int | None:
    """The time (ms) before which tasks must not have been made to be given out; None: any may be.

    All agents of the session's compute resource are waited for: a task stays with its resource.
    """
    if not is_under_way(session, hold_s):
        return None
    rows = execute(_OTHERS, [session.compute_id, epoch.last_sign_before() - ALIVE_MS])
    told = all(has_told(session, json.loads(free or "{}").get(_SETTLED)) for (free,) in rows)
    return None if told else session.epoch_began_at


def has_told(session: Session, settled: str | None) -> bool:
    """Whether an agent that says this has told the present epoch all that was acknowledged."""
    return settled == epoch.begun_at(session.epoch_began_at)


def may_be_reported(row: TaskRow, session: Session, settled: str | None) -> bool:
    """Whether a lease that its agent does not list may have been reported before the loss.

    Its agent dropped it when that was acknowledged, and will tell it again. Waited for as long as
    the agent lives and has not told everything: where the lease was given back, the result would
    be refused.
    """
    began_at = session.epoch_began_at
    if began_at is None or (row.leased_at is not None and row.leased_at >= began_at):
        return False
    return not has_told(session, settled)
