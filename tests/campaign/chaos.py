"""Faults at random instants, from a seed: kills, freezes, orderly restarts, an emptied Redis.

The plan of a seed is always the same; when each fault strikes depends on the machine. Every fault
is noted in the history with the part that it struck and the time until that part was back.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import redis

from tests.campaign.notes import Notes, now
from tests.campaign.site import AGENTS, Site, children_of, send
from tests.waiting import wait_until

_BACK_WITHIN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One planned fault: `kind` against `part`, and how long a frozen one stands still."""

    number: int
    kind: str
    part: str
    seconds: float
    pause_s: float  # before the next one


# How often each strike comes, against which parts.
_AGENTS = AGENTS
WEIGHTS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("kill", ("api",), 4),
    ("kill-child", ("api",), 12),
    ("kill", ("daemon",), 6),
    ("kill-child", ("daemon",), 8),
    ("kill", ("redis",), 6),
    ("flush", ("redis",), 8),
    ("kill", ("spicedb",), 3),
    ("kill", ("openbao",), 2),
    ("kill", ("database",), 6),
    ("kill", _AGENTS, 12),
    ("kill-payload-keeper", _AGENTS, 14),
    ("freeze", ("api", "daemon", "redis", "spicedb", "openbao", "database"), 14),
    ("freeze", _AGENTS, 10),
    ("freeze-long", _AGENTS, 1),
    ("restart", ("api", "daemon"), 5),
    ("restart", _AGENTS, 5),
)
_FREEZE_S = (0.1, 3.0)
_LONG_FREEZE_S = (48.0, 52.0)  # longer than REQUEUE_AFTER: its tasks go to another agent


def plan(seed: int, count: int, parts: set[str], pause_s: float) -> list[Strike]:
    """The strikes of a seed against the parts that there are."""
    dice = random.Random(seed)
    usable = [(kind, [p for p in named if p in parts], w) for kind, named, w in WEIGHTS]
    usable = [entry for entry in usable if entry[1]]
    strikes = []
    for number in range(count):
        kind, named, _ = dice.choices(usable, [weight for *_, weight in usable])[0]
        bounds = _LONG_FREEZE_S if kind == "freeze-long" else _FREEZE_S
        strikes.append(
            Strike(
                number=number,
                kind=kind,
                part=dice.choice(named),
                seconds=dice.uniform(*bounds),
                pause_s=dice.uniform(0.2, 1.8) * pause_s,
            )
        )
    return strikes


class Chaos:
    """Carries a plan out in a thread of its own; slow strikes go on beside the next ones."""

    def __init__(self, site: Site, strikes: list[Strike], seed: int) -> None:
        self._site, self._strikes = site, strikes
        self._dice = random.Random(seed + 1)
        self._stop = threading.Event()
        self._busy: dict[str, threading.Thread] = {}  # by part: one strike at a time
        self._thread = threading.Thread(target=self._strike_all, name="chaos", daemon=True)
        self._note = Notes(site.histories, "chaos")
        self.struck: dict[str, int] = {}  # by "kind part"
        self.missed = 0
        self.failures: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the plan is carried out."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """Strike no more, and see that every part is back."""
        self._stop.set()
        self._thread.join()
        for thread in self._busy.values():
            thread.join()

    def _strike_all(self) -> None:
        for strike in self._strikes:
            if self._stop.is_set():
                return
            busy = self._busy.get(strike.part)
            if busy is not None and busy.is_alive():
                busy.join(strike.pause_s)
            if busy is None or not busy.is_alive():
                thread = threading.Thread(target=self._strike, args=(strike,), daemon=True)
                self._busy[strike.part] = thread
                thread.start()
            else:
                self.missed += 1  # still down from the strike before
            self._stop.wait(strike.pause_s)

    def _strike(self, strike: Strike) -> None:
        began = now()
        try:
            done = self._KINDS[strike.kind](self, strike)
        except (AssertionError, OSError, psutil.Error, redis.RedisError) as error:
            self.failures.append(f"{strike}: {error}")
            return
        if not done:
            self.missed += 1
            return
        name = f"{strike.kind} {strike.part}"
        self.struck[name] = self.struck.get(name, 0) + 1
        what = self._site.agent_ids.get(strike.part, strike.part)
        self._note("fault", t=began, what=what, kind=strike.kind, until=now(), number=strike.number)

    def _kill(self, strike: Strike) -> bool:
        part = self._site.parts[strike.part]
        if not part.alive:
            return False
        pid = part.pid
        if not send(pid, signal.SIGKILL):
            return False
        self._await_another(strike.part, pid)
        return True

    def _restart(self, strike: Strike) -> bool:
        part = self._site.parts[strike.part]
        if not part.alive:
            return False
        pid = part.pid
        number = signal.SIGTERM
        if not send(pid, number):
            return False
        if strike.part in AGENTS:
            send(pid, number)  # the second one stops without draining: payloads are adopted
        self._await_another(strike.part, pid)
        return True

    def _await_another(self, name: str, pid: int) -> None:
        part = self._site.parts[name]
        wait_until(
            lambda: self._stop.is_set() or (part.alive and part.pid != pid),
            timeout_s=_BACK_WITHIN_S,
            message=f"{name} to be started again",
        )
        if name in AGENTS:  # kills by the dozen are no crash loop: the operator says so
            wait_until(
                lambda: self._stop.is_set() or self._site.resume(name),
                timeout_s=_BACK_WITHIN_S,
                message=f"{name} to hear its operator",
            )

    def _kill_child(self, strike: Strike) -> bool:
        children = children_of(self._site.parts[strike.part].pid)
        return bool(children) and send(self._dice.choice(children).pid, signal.SIGKILL)

    def _kill_payload_keeper(self, strike: Strike) -> bool:
        """A shepherd, a wrapper or a warm worker of the agent, never a payload itself."""
        home = self._site.agent_home(strike.part)
        found = [process.pid for process in _keepers(home)]
        return bool(found) and send(self._dice.choice(found), signal.SIGKILL)

    def _freeze(self, strike: Strike) -> bool:
        part = self._site.parts[strike.part]
        if not part.alive:
            return False
        pids = [part.pid, *(process.pid for process in children_of(part.pid))]
        for pid in pids:
            send(pid, signal.SIGSTOP)
        self._stop.wait(strike.seconds)
        for pid in pids:
            send(pid, signal.SIGCONT)
        return True

    def _flush(self, strike: Strike) -> bool:
        del strike
        with suppress(redis.RedisError), redis.Redis.from_url(self._site.redis.url) as client:
            return bool(client.flushall())
        return False

    _KINDS: ClassVar[dict[str, Callable[[Chaos, Strike], bool]]] = {
        "kill": _kill,
        "restart": _restart,
        "kill-child": _kill_child,
        "kill-payload-keeper": _kill_payload_keeper,
        "freeze": _freeze,
        "freeze-long": _freeze,
        "flush": _flush,
    }


def _keepers(home: Path) -> Iterator[psutil.Process]:
    """The shepherd of a state folder and what it forked: all have the shepherd's command line."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(home) in words and any("shepherd" in word for word in words):
            yield process
