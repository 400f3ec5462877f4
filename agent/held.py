"""One lease that the agent holds, and how much all of them are together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.agent.processes import uptime_s

Json = dict[str, Any]

WAITING = "waiting"  # held, gate closed, not confirmed yet
READY = "ready"  # may start as soon as there is room
LAUNCHING = "launching"  # journalled; the payload may have started
RUNNING = "running"
FINISHING = "finishing"  # ended; outputs and logs are being collected
REPORTING = "reporting"  # the result is in the journal, not acknowledged yet


@dataclass(eq=False)
class Held:
    """One lease. `reason` says why its payload was told to stop: cancel, superseded, gone, …"""

    lease: str
    offer: Json
    spec: Json
    phase: str = READY
    worker: str | None = None
    inputs: Json | None = None
    reason: str | None = None
    started_at: float | None = None  # uptime seconds
    received_at: float = field(default_factory=uptime_s)
    gpus: tuple[str, ...] = ()
    reserved: bool = False
    journalled: bool = False  # its `launching` record is on the disk
    told: str = ""  # the phase that the server knows
    report: Json | None = None
    streamed: dict[str, int] = field(default_factory=dict)  # stream → bytes shipped
    log_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lease_id(self) -> str:
        """The random part of the name."""
        return self.lease.rpartition(".")[2]

    @property
    def is_python(self) -> bool:
        """Whether a warm worker runs it."""
        return bool(self.spec["kind"] == "python")

    @property
    def server_phase(self) -> str:
        """The phase in the server's words."""
        if self.phase in (FINISHING, REPORTING):
            return "finalizing"
        return "running" if self.phase in (LAUNCHING, RUNNING) else "leased"


@dataclass
class Tally:
    """What is held, kept up as leases move on: asking for work looks at it after each of them."""

    active: int = 0  # cores in use, and leases that will use one
    idlers: int = 0  # leases that need no core
    unreported: int = 0  # ended, the result not acknowledged yet

    def count(self, held: Held, sign: int) -> None:
        """Add a lease in its present phase (`sign` 1), or take it out (-1)."""
        if held.phase in (FINISHING, REPORTING):
            self.unreported += sign
        elif not cores_of(held.spec):
            self.idlers += sign
        elif held.is_python or held.phase in (READY, WAITING):
            self.active += sign
        else:
            self.active += sign * cores_of(held.spec)


def cores_of(spec: Json) -> int:
    """Cores that a task needs: 1 unless it says otherwise; 0 for one that mostly waits."""
    cpu = spec.get("cpu")
    return 1 if cpu is None else max(0, int(cpu))


def ram_of(spec: Json) -> int:
    """MB of memory that a task asks for; 0 where it did not say."""
    return int(spec.get("ram_mb") or 0)
