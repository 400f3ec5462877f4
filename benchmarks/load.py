"""What is measured on a running system: rates, latencies, a huge sweep, an idle agent."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.cost import PAYLOADS, cost
from benchmarks.figures import Figures, quantile
from benchmarks.systems import System
from tests.acceptance.system import BIN
from tests.waiting import wait_until

BATCH = 1000
ENDS_WITHIN_S = 300.0
SHELL = {"script": "#!/bin/sh\n:\n", "parameters": {"N": {"type": "int"}}}
PYTHON = {
    "python": {"entry": "noop", "source": "def noop(N):\n    return N\n", "codec": "json"},
    "parameters": {"N": {"type": "int"}},
}
_CONTROL = ("api", "agents-api", "daemon", "redis")
_AGENT = ("agent", "shepherd")


def register(system: System) -> None:
    """Register both no-ops, and run one of each so that nothing is measured cold."""
    for name, spec in (("shell", SHELL), ("python", PYTHON)):
        system.client.functions.register(project=system.client.project, name=name, spec=spec)
        call(system, name)


def call(system: System, function: str) -> Any:
    """Call once and wait for the result."""
    body = {"arguments": {"N": 1}}
    found = system.client.calls.create(function, body, project=system.client.project, wait_s=30.0)
    if found.state != "COMPLETED":
        raise RuntimeError(f"{function}: {found.state}: {found.failure}")
    return found


def batch_calls(system: System, function: str, tasks: int) -> None:
    """Send `tasks` calls in batches and collect every result."""
    waiting: list[str] = []
    for start in range(0, tasks, BATCH):
        calls = [{"arguments": {"N": n}} for n in range(start, min(start + BATCH, tasks))]
        waiting += system.client.calls.create_batch(function, calls, project=system.client.project)
    while waiting:
        asked = waiting[:BATCH]
        done = {one.id for one in system.client.calls.results(asked, wait_s=10.0)}
        waiting = [one for one in [*waiting[BATCH:], *asked] if one not in done]


def sweep(system: System, function: str, tasks: int) -> None:
    """Run an experiment of `tasks` instances and wait for its end."""
    experiment = submit(system, function, tasks)
    state = wait_until(
        lambda: ended(system, experiment), timeout_s=ENDS_WITHIN_S, message="the sweep to end"
    )
    if state != "COMPLETED":
        raise RuntimeError(f"the sweep of {function} ended {state}")


def ended(system: System, experiment: str) -> str | None:
    """The experiment's final state; None while it runs."""
    state = system.client.experiments.get(experiment).state
    return state if state in ("COMPLETED", "FAILED", "CANCELLED") else None


def submit(system: System, function: str, tasks: int) -> str:
    """Submit a sweep; its id."""
    document = {
        "name": f"{function}-{tasks}",
        "function": function,
        "task_inputs": {"N": f"1..{tasks}"},
    }
    body = {"project": system.client.project, "document": document, "submit": True}
    answer = system.client.transport.post("/experiments", {**body, "format": "json"})
    return str(answer["id"])


def rate(
    figures: Figures, system: System, way: Callable[[System, str, int], None], kind: str, tasks: int
) -> float:
    """Run `tasks` one way; note the rate and what one task costs. Returns the rate."""
    before = cost(system.folder)
    started = time.monotonic()
    way(system, kind, tasks)
    per_s = tasks / (time.monotonic() - started)
    used = cost(system.folder).since(before)
    name = way.__name__.replace("_", " ")
    figures.add(
        f"{system.name}: {name}, {kind} no-op", per_s, "tasks/s", note=_per_task(used, tasks)
    )
    return per_s


def _per_task(used: dict[str, float], tasks: int) -> str:
    control = sum(used.get(part, 0.0) for part in _CONTROL)
    agent = sum(used.get(part, 0.0) for part in _AGENT)
    parts = (("control plane", control), ("agent", agent), ("payload", used.get(PAYLOADS, 0.0)))
    shown = ", ".join(f"{name} {seconds / tasks * 1000:.2f}" for name, seconds in parts)
    return f"CPU ms a task: {shown}"


def latencies(figures: Figures, system: System, samples: int) -> None:
    """Calls one after another on an idle agent: submit to running, and the whole round trip."""
    for function in ("python", "shell"):
        trips, starts = [], []
        for _ in range(samples):
            began = time.monotonic()
            found = call(system, function)
            trips.append((time.monotonic() - began) * 1000)
            starts.append((found.started_at - found.created_at).total_seconds() * 1000)
        for what, values in (("submit → running", starts), ("call --wait", trips)):
            spread = (min(values), max(values))
            for share in (0.5, 0.99):
                figures.add(
                    f"{system.name}: {what}, {function}, p{share * 100:.0f}",
                    quantile(values, share),
                    "ms",
                    samples=samples,
                    spread=spread,
                )


def xargs_rate(tasks: int) -> float:
    """Empty shells a second under `xargs -P2`."""
    numbers = "\n".join(str(n) for n in range(tasks))
    started = time.monotonic()
    subprocess.run(
        ["xargs", "-P2", "-n1", "/bin/sh", "-c", ":"], input=numbers, text=True, check=True
    )
    return tasks / (time.monotonic() - started)


def noop(number: int) -> int:
    """What the process pool runs."""
    return number


def pool_rate(tasks: int) -> float:
    """Empty functions a second in a ProcessPoolExecutor of two, one task a message."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(noop, range(100)))
        started = time.monotonic()
        list(pool.map(noop, range(tasks)))
        return tasks / (time.monotonic() - started)


def huge_sweep(figures: Figures, system: System, points: int) -> None:
    """Accept a huge sweep, run its first tasks, cancel it; memory before and after."""
    before = cost(system.folder)
    started = time.monotonic()
    experiment = submit(system, "shell", points)
    accepted = time.monotonic() - started
    wait_until(
        lambda: system.client.experiments.progress(experiment).counts["completed"] > 0,
        timeout_s=60.0,
        message="the first task of the huge sweep",
    )
    first = time.monotonic() - started
    wait_until(
        lambda: system.client.experiments.progress(experiment).counts["completed"] > 100,
        timeout_s=60.0,
        message="a hundred tasks of the huge sweep",
    )
    after = cost(system.folder)
    started = time.monotonic()
    system.client.transport.post(f"/experiments/{experiment}/cancel", {})
    wait_until(
        lambda: system.client.experiments.get(experiment).state == "CANCELLED",
        timeout_s=60.0,
        message="the huge sweep to be cancelled",
    )
    cancelled = time.monotonic() - started
    note = f"{points:,} points"
    figures.add(f"{system.name}: huge sweep accepted", accepted, "s", note=note)
    figures.add(f"{system.name}: its first task completed", first, "s")
    figures.add(f"{system.name}: cancelled", cancelled, "s")
    for part, resident in sorted(after.rss_mib.items()):
        grown = resident - before.rss_mib.get(part, 0.0)
        figures.add(f"{system.name}: {part} memory", resident, "MiB", note=f"{grown:+.1f} by it")


def idle(figures: Figures, system: System, seconds: float) -> None:
    """What waiting costs, extrapolated to an hour."""
    before = cost(system.folder)
    time.sleep(seconds)
    after = cost(system.folder)
    used = after.since(before)
    for name, parts in (("agent (with its shepherd)", _AGENT), ("control plane", _CONTROL)):
        resident = sum(after.rss_mib.get(part, 0.0) for part in parts)
        figures.add(
            f"{system.name}: idle {name}",
            sum(used.get(part, 0.0) for part in parts) / seconds * 3600,
            "CPU s/hour",
            note=f"{resident:.0f} MiB; watched for {seconds:.0f} s",
        )


def start_ups(figures: Figures, system: System, samples: int) -> None:
    """How long the user's command takes to answer."""
    for arguments in (("--help",), ("experiment", "list")):
        took = []
        for _ in range(samples):
            started = time.monotonic()
            subprocess.run(
                [str(BIN / "airavata"), *arguments],
                env=system.environment,
                check=True,
                capture_output=True,
            )
            took.append((time.monotonic() - started) * 1000)
        figures.add_samples(f"airavata {' '.join(arguments)}", took, "ms")
    bare = []
    for _ in range(samples):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append((time.monotonic() - started) * 1000)
    figures.add_samples("(python -c pass)", bare, "ms")
