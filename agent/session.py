"""Opening a session: what we are, what we hold, and the server's verdicts on it."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import epochs
from airavata_scheduler.agent.version import VERSION

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
FEATURES = ("process", "python", "gate", "logs-live")


@dataclass(frozen=True)
class Timers:
    """The server's timers, in seconds."""

    heartbeat_s: float = 15.0
    poll_ceiling_s: float = 20.0


def read_timers(document: Json) -> Timers:
    """Timers from a session's answer; sane bounds, whatever it says."""
    heartbeat = float(document.get("heartbeat_s") or Timers.heartbeat_s)
    ceiling = float(document.get("poll_ceiling_s") or Timers.poll_ceiling_s)
    return Timers(max(0.2, heartbeat), max(1.0, ceiling))


def capabilities(runtime: Runtime) -> Json:
    """What this agent can run."""
    capacity = runtime.book.capacity
    runtime.modes.disk_is_low()
    return {
        "cpu": capacity.cpu,
        "ram_mb": capacity.ram_mb,
        "gpu": len(capacity.gpus),
        "disk_mb": runtime.modes.free_disk_mb,
        "python": platform.python_version(),
        "executors": ["process"],
        "features": [*FEATURES, f"python{sys.version_info.major}.{sys.version_info.minor}"],
    }


def open_session(runtime: Runtime) -> None:
    """Open it, obey its verdicts, let the network loops begin. Tries until it answers."""
    body = {
        "boot_id": runtime.boot_id,
        "state_folder_id": runtime.folder.id,
        "version": VERSION,
        "capabilities": capabilities(runtime),
        "policy": runtime.policy.to_json(),
        "mode": runtime.modes.word(),
        "settled": runtime.journal.state.settled or runtime.journal.state.epoch,
        # None: what such a claim was granted and we never saw has not started; it goes back.
        "unresolved_claims": [],
        "leases": [
            {"lease": held.lease, "phase": held.server_phase} for held in runtime.book.all()
        ],
    }
    answer = runtime.api.post("/session", body)
    runtime.api.session_id = str(answer["session_id"])
    runtime.timers = read_timers(answer.get("timers") or {})
    runtime.compute = dict(answer.get("compute") or {})
    runtime.claims.new_session()
    for line in answer.get("leases") or ():
        runtime.stopper.obey(str(line.get("lease")), str(line.get("verdict")))
    epochs.enter(runtime, str(answer.get("epoch") or ""))
    if runtime.journal.was_torn:
        runtime.log.warning("the journal had a torn end: the server compares the full list")
    runtime.modes.listening.set()
