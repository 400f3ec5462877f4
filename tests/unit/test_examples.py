"""The examples, as documents and as programs; whole runs are in tests/acceptance."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.models.experiment_file import ExperimentSpec, parse_text, read_experiment
from airavata_scheduler.models.sweep import decode

EXAMPLES = Path(__file__).parents[2] / "examples"


def read(path: Path) -> ExperimentSpec:
    """An example with the files that lie beside it, as the client sends them."""
    folder = path.parent
    files: dict[str, dict[str, Any]] = {}
    for file in folder.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files[file.relative_to(folder).as_posix()] = {"sha256": digest, "size": len(content)}
    tables = {file.name: file.read_text() for file in folder.glob("*.csv")}
    return read_experiment(parse_text(path.read_text()), files=files, tables=tables)


def run(node: Any, index: int, folder: Path, inputs: dict[str, str], source: Path) -> None:
    """One instance as an agent runs it: its own folder, its files, its variables."""
    folder.mkdir(exist_ok=True, parents=True)
    by_digest = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path for path in source.rglob("*.py")
    }
    for entry in node.files:
        (folder / entry["destination"]).write_bytes(by_digest[entry["sha256"]].read_bytes())
    script = folder / "script.sh"
    script.write_text(node.script)
    python = Path(sys.executable).parent
    environment = {"PATH": f"{python}:/usr/bin:/bin", **decode(node.to_json(), index), **inputs}
    shell = node.script.split("\n")[0].removeprefix("#!")
    subprocess.run([shell, str(script)], cwd=folder, env=environment, check=True, timeout=60)


def test_the_diffusion_example_draws_a_picture(tmp_path: Path) -> None:
    """601 tasks; a simulation, its plot and the mosaic of some plots run with their variables."""
    spec = read(EXAMPLES / "diffusion.yml")
    simulate, plot, report = spec.nodes
    pictures = tmp_path / "pictures"
    pictures.mkdir()

    for index in (0, 150, 299):
        work = tmp_path / str(index)
        run(simulate, index, work, {}, EXAMPLES)
        run(plot, index, work, {"INPUT": "result.csv"}, EXAMPLES)
        os.link(work / "plot.png", pictures / f"{index}-plot.png")
    run(report, 0, tmp_path / "report", {"PICTURES": str(pictures)}, EXAMPLES)

    assert spec.totals == {"simulate": 300, "plot": 300, "report": 1}
    picture = (tmp_path / "report" / "diffusion.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (20 * 96 + 19 * 2, 64)


def test_heat_is_conserved_and_spreads(tmp_path: Path) -> None:
    """The physics is real: the sum stays, the highest value falls."""
    run(read(EXAMPLES / "diffusion.yml").nodes[0], 42, tmp_path, {}, EXAMPLES)

    lines = (tmp_path / "result.csv").read_text().splitlines()
    first, last = ([float(value) for value in line.split(",")] for line in (lines[0], lines[-1]))

    assert sum(last) == pytest.approx(sum(first), abs=0.01)
    assert max(last) < max(first)


def test_the_csv_example_has_a_task_for_each_row(tmp_path: Path) -> None:
    """Six rows are six tasks; a small swing has the period of the formula, a wide one a longer."""
    folder = EXAMPLES / "parameters_from_csv"
    spec = read(folder / "experiment.yml")
    swing, table = spec.nodes
    periods = tmp_path / "periods"
    periods.mkdir()

    for index in range(spec.totals["swing"]):
        run(swing, index, tmp_path / str(index), {}, folder)
        os.link(tmp_path / str(index) / "period.csv", periods / f"{index}-period.csv")
    run(table, 0, tmp_path / "table", {"PERIODS": str(periods)}, folder)

    assert spec.totals == {"swing": 6, "table": 1}
    lines = (tmp_path / "table" / "summary.csv").read_text().splitlines()
    rows = {line.split(",")[0]: line.split(",") for line in lines[1:]}
    assert len(rows) == 6
    assert float(rows["clock"][3]) == pytest.approx(2.0, abs=0.01)
    assert float(rows["wide swing"][3]) > 1.1 * float(rows["wide swing"][4])


def test_the_monte_carlo_example_prices_an_option() -> None:
    """Its function alone gives a price near the known one, whatever executes it."""
    source = (EXAMPLES / "montecarlo.py").read_text()
    scope: dict[str, Any] = {"__name__": "example"}

    exec(compile(source, "montecarlo.py", "exec"), scope)
    total, _ = scope["batch"](seed=1, paths=4000)

    assert total / 4000 == pytest.approx(6.1, abs=0.5)
