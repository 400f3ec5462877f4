"""Writes docs/proof.md from what the campaigns kept: `python -m tests.campaign.page`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.campaign.checker import RULES
from tests.campaign.record import EVENTS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "proof.md"
RESULTS = HERE / "results.jsonl"
FINDINGS = HERE / "findings.yml"
FAILURES = HERE / "failures.yml"

_HEAD = HERE / "proof_head.txt"


def page() -> str:
    """The whole page."""
    return "\n".join(
        [
            _HEAD.read_text(),
            "## What the campaigns showed\n",
            *_results(),
            "\n## What they found\n",
            "Each was mended at its cause; the test fails without the mend.\n",
            *_findings(),
            "\n## What the judge decides\n",
            "Each rule rejects a forged history by name (`tests/unit/test_campaign_checker.py`).\n",
            *_rules(),
            "\n## What a history holds\n",
            *_events(),
            "\n## Each failure, and the test that shows it\n",
            *_failures(),
            "",
        ]
    )


def _results() -> Iterator[str]:
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    rows = [
        (
            result["database"],
            result["seed"],
            f"{result['tasks']:,}",
            f"{sum(result['faults'].values()):,}",
            ", ".join(f"{n:,} {state}" for state, n in sorted(result["states"].items())),
            result["reruns"],
            len(result["broken"]) + result["wrong_results"],
            f"{result['seconds'] / 60:.0f} min",
            result["machine"],
        )
        for result in found
    ]
    head = ("database", "seed", "tasks", "faults", "ended", "re-runs", "broken", "took", "machine")
    yield from _table(head, rows)
    struck: dict[str, int] = defaultdict(int)
    for result in found:
        for name, count in result["faults"].items():
            kind, _, part = name.partition(" ")
            struck[f"{kind} {'agent' if part.startswith('agent-') else part}"] += count
    yield "\nFaults of all these runs, by kind:\n"
    yield from _table(("fault", "times"), sorted(struck.items()))


def _findings() -> Iterator[str]:
    rows = [
        (item["by"], item["fault"], item["mended"], f"`{item['test']}`")
        for item in yaml.safe_load(FINDINGS.read_text())
    ]
    yield from _table(("found by", "fault", "mended by", "test"), rows)


def _rules() -> Iterator[str]:
    said = [(invariant, f"`{name}`", text) for name, invariant, text in RULES]
    yield from _table(("invariant", "rule", "rejects"), sorted(said))


def _events() -> Iterator[str]:
    rows = [(f"`{name}`", *text.split(": ", 1)) for name, text in EVENTS.items()]
    yield from _table(("event", "written by", "meaning"), rows)


def _failures() -> Iterator[str]:
    rows = [
        (item["failure"], "<br>".join(f"`{test}`" for test in item["tests"]))
        for item in yaml.safe_load(FAILURES.read_text())
    ]
    yield from _table(("failure", "shown by"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"


def named_tests() -> set[str]:
    """The tests that the page names."""
    found = {str(item["test"]) for item in yaml.safe_load(FINDINGS.read_text())}
    for item in yaml.safe_load(FAILURES.read_text()):
        found.update(item["tests"])
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
