"""The examples run as their README says, against the whole system."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.system import ROOT, LocalSystem

EXAMPLES = ROOT / "examples"
PRICE = re.compile(r"price (?P<price>\d+\.\d+) ± (?P<error>\d+\.\d+) from (?P<paths>[\d,]+) paths")
# Arithmetic-average call, S=K=100, r=5 %, sigma=20 %, monthly dates over one year.
KNOWN_PRICE = 6.15


def test_monte_carlo_through_the_executor(local: LocalSystem) -> None:
    """`python examples/montecarlo.py` prices the option on the agents."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "montecarlo.py")],
        env=local.environment,
        cwd=local.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = PRICE.search(done.stdout)
    assert found is not None, done.stdout
    assert found["paths"] == "200,000"
    assert abs(float(found["price"]) - KNOWN_PRICE) < 0.02 + 5 * float(found["error"])


def test_one_task_for_each_line_of_a_table(local: LocalSystem, folder: Path) -> None:
    """`experiment run …/experiment.yml --watch`; its summary has a line for each."""
    path = EXAMPLES / "parameters_from_csv" / "experiment.yml"

    done = local.airavata("experiment", "run", str(path), "--watch")

    assert done.returncode == 0, done.stdout + done.stderr
    fetched = local.airavata(
        "experiment", "download", "pendulums", "--output", str(folder / "out"), "--extract"
    )
    assert fetched.returncode == 0, fetched.stderr
    with (EXAMPLES / "parameters_from_csv" / "params.csv").open() as table:
        wanted = {line["LABEL"] for line in csv.DictReader(table)}
    with (folder / "out" / "table" / "0" / "summary.csv").open() as table:
        lines = list(csv.DictReader(table))
    assert {line["label"] for line in lines} == wanted
    assert len(lines) == len(wanted)
    for line in lines:
        assert float(line["period_s"]) >= float(line["small_angle_period_s"]) * 0.99
