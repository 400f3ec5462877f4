"""`make bench`: every line, on SQLite and on PostgreSQL, in at most three minutes."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import load
from benchmarks.figures import Figures, machine
from benchmarks.systems import System, on_postgresql, on_sqlite
from benchmarks.trust import trust
from tests.acceptance.system import ROOT

SHELL_TASKS = 400
PYTHON_TASKS = 4000
PLAIN_TASKS = 20_000
POOL_TASKS = 10_000
CALLS = 50
POINTS = 1_000_000
IDLE_S = 20.0
START_UPS = 5


def main() -> int:
    """Measure, print the table, write build/bench.json."""
    about = machine(ROOT)
    figures = Figures()
    began = time.monotonic()
    sys.stdout.write(" ".join(f"{name}={value}" for name, value in about.items()) + "\n\n")
    with TemporaryDirectory(prefix="airavata-bench-") as folder:
        started = time.monotonic()
        with on_sqlite(Path(folder) / "sqlite") as system:
            figures.add("local is ready", time.monotonic() - started, "s")
            load.register(system)
            load.start_ups(figures, system, START_UPS)
            load.idle(figures, system, IDLE_S)
            load.latencies(figures, system, CALLS)
            trust(figures, system)
            _rates(figures, system)
            load.huge_sweep(figures, system, POINTS)
        if _has_postgresql():
            with on_postgresql(Path(folder) / "postgresql") as system:
                load.register(system)
                load.latencies(figures, system, CALLS)
                trust(figures, system)
                _rates(figures, system)
        else:
            sys.stdout.write("PostgreSQL is not installed here: its lines are left out.\n")
    about |= {"took_s": round(time.monotonic() - began, 1), "load_after": os.getloadavg()[0]}
    figures.write(ROOT / "build" / "bench.json", about)
    sys.stdout.write(f"\n{about['took_s']} s; written to build/bench.json\n")
    return 0


def _rates(figures: Figures, system: System) -> None:
    """What the system does in a second, and what the machine does without it, in one breath."""
    plain = system.plain_rate(PLAIN_TASKS)
    figures.add(f"{system.name}: plain batched SQL", plain, "tasks/s")
    shells = load.xargs_rate(SHELL_TASKS)
    figures.add("xargs -P2 sh -c :", shells, "tasks/s")
    pool = load.pool_rate(POOL_TASKS)
    figures.add("ProcessPoolExecutor(2)", pool, "tasks/s")
    for way in (load.batch_calls, load.sweep):
        for kind, tasks, yardstick in (
            ("shell", SHELL_TASKS, shells),
            ("python", PYTHON_TASKS, pool),
        ):
            per_s = load.rate(figures, system, way, kind, tasks)
            name = f"  of it: {way.__name__.replace('_', ' ')}, {kind}"
            figures.add(f"{name} ÷ plain SQL", per_s / plain * 100, "%")
            figures.add(f"{name} ÷ without scheduler", per_s / yardstick * 100, "%")


def _has_postgresql() -> bool:
    found = shutil.which("postgres") or next(Path("/usr/lib/postgresql").glob("*/bin/postgres"), "")
    return bool(found) and shutil.which("psql") is not None


if __name__ == "__main__":
    sys.exit(main())
