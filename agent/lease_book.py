"""What the agent holds now: leases, their phases, and the machine's share that each one uses.

The book is in memory; the journal is its durable twin. One lock; three conditions on it, so that
a lease that moves on wakes only the loop that it concerns: `changed` (something may be launched),
`came` (a lease waits at the gate), `ended` (less is held, more may be claimed).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airavata_scheduler.agent.durations import Durations
from airavata_scheduler.agent.held import (
    FINISHING,
    LAUNCHING,
    READY,
    REPORTING,
    RUNNING,
    WAITING,
    Held,
    Tally,
    cores_of,
    ram_of,
)
from airavata_scheduler.agent.machine import Capacity
from airavata_scheduler.agent.processes import uptime_s

__all__ = [
    "FINISHING",
    "LAUNCHING",
    "MOST_IDLERS",
    "READY",
    "REPORTING",
    "RUNNING",
    "WAITING",
    "Held",
    "LeaseBook",
]

Json = dict[str, Any]

MOST_IDLERS = 256  # payloads that need no core, at one time
_SKIP_AHEAD_S = 30.0


class LeaseBook:
    """All held leases, and what of the machine is free."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self.came = threading.Condition(lock)
        self.ended = threading.Condition(lock)
        self._held: dict[str, Held] = {}
        self._ready: deque[Held] = deque()  # scripts
        self._calls: deque[Held] = deque()  # functions
        self._free_gpus = list(capacity.gpus)
        self._used_cpu = 0
        self._used_ram_mb = 0
        self._idlers = 0
        self._ready_idlers = 0
        self._digest = 0
        self._gate: deque[Held] = deque()  # wait for the API's OK
        self._tally = Tally()
        self.durations = Durations()
        self.on_room: Callable[[], None] = lambda: None

    def add(self, held: Held) -> bool:
        """Take a lease in; False when it is held already (a replayed grant)."""
        with self.changed:
            if held.lease in self._held:
                return False
            self._held[held.lease] = held
            self._digest ^= int(held.lease_id, 16)
            self._tally.count(held, 1)
            if held.phase == READY:
                self._enqueue(held)
                self.changed.notify_all()
            elif held.phase == WAITING:
                self._gate.append(held)
                self.came.notify_all()
            return True

    def get(self, lease: str) -> Held | None:
        """The lease of that name, if it is held."""
        return self._held.get(lease)

    def make_ready(self, held: Held) -> None:
        """The lease may start; puts it (again) into the queue."""
        with self.changed:
            self._move(held, READY)
            held.worker = None
            self._enqueue(held)
            self.changed.notify_all()

    def set_phase(self, held: Held, phase: str) -> None:
        """Move a lease on."""
        with self.changed:
            self._move(held, phase)
            if phase in (RUNNING, LAUNCHING) and held.started_at is None:
                held.started_at = uptime_s()

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
                self._tally.count(held, -1)
                self._unqueue(held)
                self.ended.notify_all()
            return held

    def nudge(self) -> None:
        """Wake every loop that waits for leases: the agent stops, or takes work again."""
        with self.changed:
            for condition in (self.changed, self.came, self.ended):
                condition.notify_all()

    def all(self) -> list[Held]:
        """Every held lease, oldest first."""
        with self.changed:
            return list(self._held.values())

    @property
    def tally(self) -> Tally:
        """How much is held; a copy."""
        with self.changed:
            return replace(self._tally)

    @property
    def has_backlog(self) -> bool:
        """Whether more is held than runs at one time."""
        return self._tally.active > self.capacity.cpu

    @property
    def waiting(self) -> bool:
        """Whether a lease waits for the API's OK to start."""
        return bool(self._gate)

    def at_the_gate(self, most: int) -> list[Held]:
        """Leases that wait for the API's OK, in the order in which they came."""
        with self.changed:
            return list(itertools.islice(self._gate, most))

    def pass_gate(self, held: Held) -> None:
        """The API answered for it."""
        with self.changed:
            self._leave_gate(held)

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

    def free_share(self, held: Held) -> None:
        """The payload ended: its share may be used by another."""
        with self.changed:
            self._free_share(held)

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
            (ram_of(spec), self.capacity.ram_mb, "MB of memory"),
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

    def _move(self, held: Held, phase: str) -> None:
        counted = held.lease in self._held  # a late end of a lease that was dropped meanwhile
        before = self._tally.active
        if counted:
            self._tally.count(held, -1)
        if held.phase == WAITING:
            self._leave_gate(held)
        held.phase = phase
        if counted:
            self._tally.count(held, 1)
        if self._tally.active < before:
            self.ended.notify_all()

    def _leave_gate(self, held: Held) -> None:
        with contextlib.suppress(ValueError):
            self._gate.remove(held)

    def _unqueue(self, held: Held) -> None:
        self._leave_gate(held)
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
        if self._used_ram_mb + ram_of(spec) > self.capacity.ram_mb:
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
        self._used_ram_mb += ram_of(spec)
        self._idlers += not cores_of(spec)

    def _free_size(self, spec: Json) -> None:
        self._idlers -= not cores_of(spec)
        self._used_cpu -= cores_of(spec)
        self._used_ram_mb -= ram_of(spec)
        if self._ready:
            self.changed.notify_all()
        self.on_room()
