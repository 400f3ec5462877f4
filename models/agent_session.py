"""Which session is calling: every write of an agent begins here."""

from __future__ import annotations

from dataclasses import dataclass

from airavata_scheduler.models import epoch, releases
from airavata_scheduler.models.database import execute, now_sql
from airavata_scheduler.models.errors import Conflict, NotFound
from airavata_scheduler.models.task_rows import for_update

SUPERSEDED = "superseded"


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session that has not ended, and the database's time at which it was looked at.

    `now` is never before the present epoch, though the clock of a server that took over may be.
    """

    id: str
    agent_id: str
    compute_id: str
    last_claim_seq: int
    heartbeat_seq: int
    mode: str
    agent_state: str
    agent_version: str
    compute_state: str
    now: int
    epoch_began_at: int | None  # None while the first epoch lasts

    @property
    def may_claim(self) -> bool:
        """Whether new work may be granted; what is leased already goes on in any case."""
        working = self.agent_state == "active" and self.compute_state == "active"
        return working and self.mode == "normal" and releases.may_claim(self.agent_version)


def live_session(session_id: str, *, lock: bool = False) -> Session:
    """The session, on request with its row locked until the transaction ends.

    Raises NotFound (`session_unknown`), or Conflict: `session_superseded` when a newer start of
    the same agent took over, `session_expired` and `session_ended` when it has to open a new one.
    """
    epoch.notice()
    # The states come by subselects, whose rows a locking read leaves unlocked on every database.
    rows = execute(
        "SELECT s.agent_id, s.compute_id, s.last_claim_seq, s.heartbeat_seq, s.mode, "
        "(SELECT a.state FROM agents a WHERE a.id = s.agent_id), "
        "(SELECT a.version_text FROM agents a WHERE a.id = s.agent_id), "
        "(SELECT c.state FROM compute_resources c WHERE c.id = s.compute_id), "
        "(SELECT d.at FROM deployment d WHERE d.name = %s), "
        f"{now_sql()}, s.ended_at, s.end_reason "
        f"FROM agent_sessions s WHERE s.id = %s{for_update() if lock else ''}",
        [epoch.BEGAN, session_id],
    )
    if not rows:
        raise NotFound(
            "This agent session is not known here.",
            code="session_unknown",
            hint="Open a new session.",
        )
    *values, ended_at, reason = rows[0]
    if ended_at is not None:
        raise ended(str(reason))
    agent_id, compute_id, claim_seq, heartbeat_seq, mode, agent_state, version = values[:7]
    return Session(
        id=session_id,
        agent_id=agent_id,
        compute_id=compute_id,
        last_claim_seq=claim_seq,
        heartbeat_seq=heartbeat_seq,
        mode=mode,
        agent_state=agent_state,
        agent_version=version,
        compute_state=values[7],
        epoch_began_at=values[8],
        now=max(values[9], values[8] or 0),
    )


def ended(reason: str) -> Conflict:
    """The refusal for a session that has ended so."""
    if reason == SUPERSEDED:
        return Conflict(
            "A newer session of the same agent has taken over.",
            code="session_superseded",
            hint="Stop this one; if both machines are meant to work, enrol a second agent.",
        )
    if reason == "expired":
        return Conflict(
            "The session was silent for too long and has ended.",
            code="session_expired",
            hint="Open a new session with the list of leases that are still held.",
        )
    return Conflict(
        f"The session has ended ({reason}).", code="session_ended", hint="Open a new session."
    )
