"""What permissions and secrets cost: a check, a list, a grant, a revoke, a rebuild, a secret."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airavata_scheduler.client.api import Client
from airavata_scheduler.client.errors import NotFoundError
from benchmarks.figures import Figures, quantile
from benchmarks.systems import System

ROUNDS = 300
LISTED = 50
GRANTS = 40
PEOPLE = 10_000  # each has two relationships
TARGET_MS = 3.0
VALUE = {"username": "bench", "password": "of-the-benchmark"}


def trust(figures: Figures, system: System) -> None:
    """All lines of permissions and secrets."""
    client = system.client
    me = client.users.me()
    # The same answer twice: one's own account without any object to decide about, and by its id,
    # which is looked up and decided by SpiceDB. Taken in turn, so that both meet the same machine.
    plain, decided = _in_turn(
        lambda: client.transport.get("/users/me"),
        lambda: client.transport.get(f"/users/{me.id}"),
    )
    _percentiles(figures, f"{system.name}: GET without a decision", plain)
    _percentiles(figures, f"{system.name}: the same, decided", decided)
    added = quantile(decided, 0.5) - quantile(plain, 0.5)
    figures.add("  of it: a permission check, p50", added, "ms", note=f"target {TARGET_MS:g}")
    _lists(figures, system)
    _grants(figures, system)
    _secrets(figures, system)
    if system.rebuild is not None:
        _rebuild(figures, system.name, system.rebuild)


def _in_turn(*requests: Callable[[], Any]) -> list[list[float]]:
    """The milliseconds of each of `requests`, sent in turn `ROUNDS` times."""
    took: list[list[float]] = [[] for _ in requests]
    for _ in range(ROUNDS):
        for request, samples in zip(requests, took, strict=True):
            samples.append(_ms(request))
    return took


def _ms(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _percentiles(figures: Figures, name: str, samples: list[float]) -> None:
    note = f"p99 {quantile(samples, 0.99):.1f}"
    figures.add(f"{name}, p50", quantile(samples, 0.5), "ms", samples=len(samples), note=note)


def _lists(figures: Figures, system: System) -> None:
    """A page of many rows, each with what the caller may do: one call of SpiceDB for all."""
    for number in range(LISTED):
        system.client.credentials.create(name=f"list-{number}", kind="PASSWORD", value=VALUE)
    (took,) = _in_turn(lambda: system.client.transport.get("/credentials", limit=LISTED))
    _percentiles(figures, f"{system.name}: a list of {LISTED}, decided", took)


def _grants(figures: Figures, system: System) -> None:
    """From sending a share (or its end) to another user's answer that knows it."""
    made = system.client.transport.post("/users", {"name": "bench-bot", "kind": "service"})
    token = system.client.access_tokens.create("bench", ("read",), user=made["id"]).token
    name = "list-0"
    found = system.client.credentials.get(name)
    shared, granted, revoked = [], [], []
    with Client(server=system.client.settings.server, token=token, environ={}) as other:

        def sees() -> bool:
            try:
                other.credentials.get(found.id)
            except NotFoundError:
                return False
            return True

        for _ in range(GRANTS):
            began = time.perf_counter()
            system.client.credentials.share(found.id, "bench-bot", relation="reader")
            shared.append((time.perf_counter() - began) * 1000)
            if not sees():
                raise RuntimeError("a grant that was answered is not honoured")
            granted.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            system.client.credentials.unshare(found.id, "bench-bot")
            if sees():
                raise RuntimeError("a revoked user got through")
            revoked.append((time.perf_counter() - began) * 1000)
    _percentiles(figures, f"{system.name}: share: committed and relayed", shared)
    _percentiles(figures, f"{system.name}: share, and the other sees it", granted)
    _percentiles(figures, f"{system.name}: revoke, and the other is refused", revoked)


def _secrets(figures: Figures, system: System) -> None:
    """Reading a value: OpenBao's KV and transit engines, and an audit entry."""
    (took,) = _in_turn(lambda: system.client.credentials.reveal("list-0"))
    _percentiles(figures, f"{system.name}: reveal a secret", took)


def _rebuild(figures: Figures, name: str, rebuild: Callable[[int], int]) -> None:
    """Filling SpiceDB from the database, by the operator's command: nobody may anything so long."""
    began = time.perf_counter()
    count = rebuild(PEOPLE)
    took_s = time.perf_counter() - began
    note = f"{count} relationships in {took_s:.1f} s, the command's start included"
    figures.add(f"{name}: authz rebuild", count / took_s, "relationships/s", note=note)
