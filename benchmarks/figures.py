"""What was measured: one line each, with its unit, its spread and what it is compared with."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table. `ratio` is value ÷ the comparison's value, as the line says."""

    name: str
    value: float
    unit: str
    note: str = ""
    samples: int = 1
    spread: tuple[float, float] | None = None  # smallest and largest sample
    ratio: float | None = None


@dataclass(kw_only=True)
class Figures:
    """All lines of one run."""

    lines: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, **more: Any) -> Figure:
        """Note one line and print it at once."""
        figure = Figure(name=name, value=value, unit=unit, **more)
        self.lines.append(figure)
        sys.stdout.write(_row(figure))
        sys.stdout.flush()
        return figure

    def add_samples(self, name: str, samples: Sequence[float], unit: str, **more: Any) -> Figure:
        """The median of `samples`, with their smallest and largest."""
        spread = (min(samples), max(samples))
        middle = statistics.median(samples)
        return self.add(name, middle, unit, samples=len(samples), spread=spread, **more)

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"about": about, "lines": [asdict(line) for line in self.lines]}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def machine(root: Path) -> dict[str, Any]:
    """Where and on what the figures were measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]


def _row(figure: Figure) -> str:
    spread = ""
    if figure.spread is not None:
        spread = f"{figure.spread[0]:.4g}-{figure.spread[1]:.4g}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.0%}"
    number = f"{figure.value:,.1f}" if figure.value < 1000 else f"{figure.value:,.0f}"
    return (
        f"{figure.name:<46} {number:>10} {figure.unit:<12} {spread:<15} {ratio:>6}  {figure.note}\n"
    )
