"""How many attempts ended how, and how long they took: kept for the metrics, never counted."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from airavata_scheduler.models.database import execute
from airavata_scheduler.models.rows import insert_or_add

# Upper bounds of the duration classes, in milliseconds; the last one stands for infinity.
BOUNDS_MS = (
    10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000,
    1_800_000, 3_600_000, 21_600_000, 86_400_000,
)  # fmt: skip
INFINITE_MS = 2**62


def bound_of(duration_ms: int) -> int:
    """The upper bound of the class that a duration falls into."""
    position = bisect_left(BOUNDS_MS, duration_ms)
    return BOUNDS_MS[position] if position < len(BOUNDS_MS) else INFINITE_MS


def add(ended: Iterable[tuple[str, str, int]]) -> None:
    """Count ended attempts, each (compute id, outcome, ms), in the caller's transaction."""
    sums: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    for compute_id, outcome, duration_ms in ended:
        entry = sums[compute_id, outcome, bound_of(duration_ms)]
        entry[0] += 1
        entry[1] += duration_ms
    rows = [(*key, *sums[key]) for key in sums]
    insert_or_add("task_stats", ("compute_id", "outcome", "le_ms"), ("count", "sum_ms"), rows)


def totals() -> dict[tuple[str, str], int]:
    """How many attempts ended, by (compute id, outcome)."""
    rows = execute(
        "SELECT compute_id, outcome, SUM(count) FROM task_stats GROUP BY compute_id, outcome"
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def histogram() -> list[tuple[str, str, int, int, int]]:
    """(compute id, outcome, upper bound in ms, attempts in that class alone, sum of ms)."""
    rows = execute(
        "SELECT compute_id, outcome, le_ms, count, sum_ms FROM task_stats "
        "ORDER BY compute_id, outcome, le_ms"
    )
    return [(row[0], row[1], int(row[2]), int(row[3]), int(row[4])) for row in rows]
