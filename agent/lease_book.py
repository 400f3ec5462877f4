"""What the agent holds now: leases, their phases, and the machine's share that each one uses.

The book is in memory; the journal is its durable twin. One lock, one condition: a loop that waits
for anything in here waits on `changed`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airavata_scheduler.agent.machine import Capacity
from airavata_scheduler.agent.processes import uptime_s

Json = dict[str, Any]

WAITING = "waiting"  # held, gate closed, not confirmed yet
READY = "ready"  # may start as soon as there is room
LAUNCHING = "launching"  # journalled; the payload may have started
RUNNING = "running"
FINISHING = "finishing"  # ended; outputs and logs are being collected
REPORTING = "reporting"  # the result is in the journal, not acknowledged yet

MOST_IDLERS = 256  # payloads that need no core, at one time
_SKIP_AHEAD_S = 30.0


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


class LeaseBook:
    """All held leases, and what of the machine is free."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.changed = threading.Condition(threading.RLock())
        self._held: dict[str, Held] = {}
        self._ready: deque[Held] = deque()  # scripts
        self._calls: deque[Held] = deque()  # functions
        self._free_gpus = list(capacity.gpus)
        self._used_cpu = 0
        self._used_ram_mb = 0
        self._idlers = 0
        self._ready_idlers = 0
        self._digest = 0
        self._waiting = 0
        self.durations = Durations()
        self.on_room: Callable[[], None] = lambda: None

    def add(self, held: Held) -> bool:
        """Take a lease in; False when it is held already (a replayed grant)."""
        with self.changed:
            if held.lease in self._held:
                return False
            self._held[held.lease] = held
            self._digest ^= int(held.lease_id, 16)
            if held.phase == READY:
                self._enqueue(held)
            self._waiting += held.phase == WAITING
            self.changed.notify_all()
            return True

    def get(self, lease: str) -> Held | None:
        """The lease of that name, if it is held."""
        return self._held.get(lease)

    def make_ready(self, held: Held) -> None:
        """The lease may start; puts it (again) into the queue."""
        with self.changed:
            self._waiting -= held.phase == WAITING
            held.phase, held.worker = READY, None
            self._enqueue(held)
            self.changed.notify_all()

    def set_phase(self, held: Held, phase: str) -> None:
        """Move a lease on."""
        with self.changed:
            self._waiting -= held.phase == WAITING
            held.phase = phase
            if phase in (RUNNING, LAUNCHING) and held.started_at is None:
                held.started_at = uptime_s()
            self.changed.notify_all()

    def withdraw(self, held: Held, phase: str) -> None:
        """Take an unstarted lease out of the queue."""
        with self.changed:
            self._unqueue(held)
            self.set_phase(held, phase)

    def drop(self, lease: str) -> Held | None:
        """Forget a lease: acknowledged, released, or not ours any more."""
        with self.changed:
            held = self._held.pop(lease, None)
            if held is not None:
                self._digest ^= int(held.lease_id, 16)
                self._free_share(held)
                self._waiting -= held.phase == WAITING
                self._unqueue(held)
                self.changed.notify_all()
            return held

    def all(self) -> list[Held]:
        """Every held lease, oldest first."""
        with self.changed:
            return list(self._held.values())

    @property
    def waiting(self) -> bool:
        """Whether a lease waits for the API's OK to start."""
        return self._waiting > 0

    def in_phase(self, *phases: str) -> list[Held]:
        """Held leases in one of `phases`."""
        with self.changed:
            return [held for held in self._held.values() if held.phase in phases]

    def digest(self) -> Json:
        """How many leases are held, and the xor of their random parts (hexadecimal)."""
        with self.changed:
            return {"count": len(self._held), "xor": f"{self._digest:032x}"}

    def __len__(self) -> int:
        return len(self._held)

    def free(self) -> Json:
        """What the largest further task may need, now."""
        with self.changed:
            return {
                "cpu": max(0, self.capacity.cpu - self._used_cpu),
                "ram_mb": max(0, self.capacity.ram_mb - self._used_ram_mb),
                "gpu": len(self._free_gpus),
            }

    def may_launch(self) -> bool:
        """Whether `take_ready` may find something."""
        return bool(self._calls) or (bool(self._ready) and self._has_room())

    def take_ready(self, limit: int = 256) -> list[Held]:
        """Scripts that fit now (their share is reserved) and all functions.

        A task that does not fit lets smaller ones pass for 30 s, then the room is kept for it.
        Functions reserve nothing here: their workers do.
        """
        with self.changed:
            taken = list(self._calls)
            self._calls.clear()
            passed: deque[Held] = deque()
            while self._ready and len(taken) < limit and self._has_room():
                held = self._ready.popleft()
                # What can never fit is taken as well: whoever launches refuses it.
                if self._reserve(held) or self.fits_ever(held.spec) is not None:
                    self._ready_idlers -= not cores_of(held.spec)
                    taken.append(held)
                    continue
                passed.append(held)
                if uptime_s() - held.received_at > _SKIP_AHEAD_S:
                    break
            self._ready = passed + self._ready
            for held in taken:
                self.set_phase(held, LAUNCHING)
        return taken

    def next_scripts(self, most: int) -> list[Held]:
        """Ready scripts that will be launched soon, in their order."""
        with self.changed:
            return [held for held in itertools.islice(self._ready, most) if not held.journalled]

    def reserve_worker(self, spec: Json) -> bool:
        """Set a warm worker's share aside; False when it does not fit."""
        with self.changed:
            return self._reserve_size(spec)

    def force_worker(self, spec: Json) -> None:
        """A worker that runs already (found after a restart) uses its share, whatever is left."""
        with self.changed:
            self._take_size(spec)

    def free_worker(self, spec: Json) -> None:
        """A warm worker has nothing to do any more."""
        with self.changed:
            self._free_size(spec)
            self.changed.notify_all()

    def free_share(self, held: Held) -> None:
        """The payload ended: its share may be used by another."""
        with self.changed:
            self._free_share(held)
            self.changed.notify_all()

    def adopt_share(self, held: Held, gpus: tuple[str, ...]) -> None:
        """A payload that runs already (found after a restart) uses its share, whatever is left."""
        with self.changed:
            if not held.reserved:
                self._take_size(held.spec)
                held.gpus = gpus
                self._free_gpus = [gpu for gpu in self._free_gpus if gpu not in gpus]
                held.reserved = True

    def fits_ever(self, spec: Json) -> str | None:
        """Why the spec can never run on this machine; None when it can."""
        for wanted, limit, unit in (
            (cores_of(spec), self.capacity.cpu, "cores"),
            (_ram(spec), self.capacity.ram_mb, "MB of memory"),
            (spec.get("gpu") or 0, len(self.capacity.gpus), "GPUs"),
        ):
            if wanted > limit:
                return f"it needs {wanted} {unit}, this machine offers {limit}"
        return None

    def _enqueue(self, held: Held) -> None:
        if held.is_python:
            self._calls.append(held)
        else:
            self._ready.append(held)
            self._ready_idlers += not cores_of(held.spec)

    def _unqueue(self, held: Held) -> None:
        if held.phase == READY:
            self._ready = deque(item for item in self._ready if item is not held)
            self._ready_idlers = sum(not cores_of(item.spec) for item in self._ready)
            self._calls = deque(item for item in self._calls if item is not held)

    def _reserve(self, held: Held) -> bool:
        gpus = held.spec.get("gpu") or 0
        if gpus > len(self._free_gpus) or not self._reserve_size(held.spec):
            return False
        held.gpus, self._free_gpus = tuple(self._free_gpus[:gpus]), self._free_gpus[gpus:]
        held.reserved = True
        return True

    def _reserve_size(self, spec: Json) -> bool:
        if self._used_cpu + cores_of(spec) > self.capacity.cpu:
            return False
        if self._used_ram_mb + _ram(spec) > self.capacity.ram_mb:
            return False
        if not cores_of(spec) and self._idlers >= MOST_IDLERS:
            return False
        self._take_size(spec)
        return True

    def _free_share(self, held: Held) -> None:
        if held.reserved:
            self._free_size(held.spec)
            self._free_gpus += held.gpus
            held.gpus, held.reserved = (), False

    def _has_room(self) -> bool:
        if self._used_cpu < self.capacity.cpu:
            return True
        return self._ready_idlers > 0 and self._idlers < MOST_IDLERS

    def _take_size(self, spec: Json) -> None:
        self._used_cpu += cores_of(spec)
        self._used_ram_mb += _ram(spec)
        self._idlers += not cores_of(spec)

    def _free_size(self, spec: Json) -> None:
        self._idlers -= not cores_of(spec)
        self._used_cpu -= cores_of(spec)
        self._used_ram_mb -= _ram(spec)
        self.on_room()


def cores_of(spec: Json) -> int:
    """Cores that a task needs: 1 unless it says otherwise; 0 for one that mostly waits."""
    cpu = spec.get("cpu")
    return 1 if cpu is None else max(0, int(cpu))


def _ram(spec: Json) -> int:
    return int(spec.get("ram_mb") or 0)


class Durations:
    """How long payloads of each spec take, smoothed; short ones may be claimed ahead."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=512)

    def saw(self, spec_key: str, seconds: float) -> None:
        """One payload took `seconds`."""
        with self._lock:
            before = self._mean_s.get(spec_key, seconds)
            if len(self._mean_s) > 512 and spec_key not in self._mean_s:
                self._mean_s.clear()
            # A long one counts at once, a short one slowly: batches shrink faster than they grow.
            share = 0.5 if seconds > before else 0.1
            self._mean_s[spec_key] = before + share * (seconds - before)
            self._recent.append((time.monotonic(), seconds))

    def mean_s(self, spec_key: str) -> float | None:
        """The smoothed duration; None when none ended yet."""
        return self._mean_s.get(spec_key)

    def ahead(self, cpu: int, horizon_s: float = 0.5, most: int = 400) -> int:
        """How many leases to hold beyond what runs: what ends in `horizon_s`; 0 if unknown."""
        with self._lock:
            now = time.monotonic()
            recent = [item for item in self._recent if now - item[0] < 5.0][-64:]
        if not recent:
            return 0
        mean = max(sum(seconds for _, seconds in recent) / len(recent), 0.0005)
        return 0 if mean > horizon_s else min(most, int(cpu * horizon_s / mean))
