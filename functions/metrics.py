"""`/metrics` for Prometheus: requests counted by every process, everything else read from SQL.

Under gunicorn each process writes its counts into files below PROMETHEUS_MULTIPROC_DIR, and
whichever process is scraped adds them up. Tasks are told from `task_stats` and the nodes' counters;
no scrape ever counts rows of the task table.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from flask import Response
from flask_openapi3 import APIBlueprint
from peewee import PeeweeException
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from airavata_scheduler.functions import tokens
from airavata_scheduler.models import audit_chain, deployment, stats
from airavata_scheduler.models.database import execute, now_ms
from airavata_scheduler.models.errors import AiravataError
from airavata_scheduler.models.states import Outcome, TaskState

api = APIBlueprint("metrics", __name__, doc_ui=False)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WAITING_STATES: Final = ("pending", "queued", "leased", "running", "finalizing")

# `state` stands there literally, so that SQLite finds the partial index.
_NEXT_TASK: Final = (
    "SELECT available_at FROM tasks WHERE compute_id = %s "  # noqa: S608 - a number of ours
    f"AND state = {TaskState.QUEUED.value} ORDER BY priority DESC, available_at LIMIT 1"
)

_of_this_process = CollectorRegistry()
_requests = Counter(
    "scheduler_api_requests",
    "Requests answered, by method, route and status",
    ("method", "route", "status"),
    registry=_of_this_process,
)
_request_seconds = Histogram(
    "scheduler_api_request_duration_seconds",
    "How long requests took until their answer began; long polls wait on purpose",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=_of_this_process,
)
_shed = Counter(
    "scheduler_api_requests_shed",
    "Requests refused at once because too many were at work, by class",
    ("call",),
    registry=_of_this_process,
)


def count_shed(call: str) -> None:
    """Count one request that an overloaded process refused."""
    _shed.labels(call).inc()


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request. `route` is the pattern, never the address with its ids."""
    known = method if method in _METHODS else "other"
    _requests.labels(known, route, str(status)).inc()
    _request_seconds.labels(known, route).observe(seconds)


@api.get("/metrics", doc_ui=False)
def metrics() -> Response:
    """Tell Prometheus what happened and what is waiting."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text = generate_latest(registry)
    else:
        text = generate_latest(_of_this_process)
    from_sql = CollectorRegistry()
    from_sql.register(_FromDatabase())
    return Response(text + generate_latest(from_sql), content_type=CONTENT_TYPE_LATEST)


class _FromDatabase(Collector):
    """What SQL knows. With the database away only `scheduler_database_up 0` is left."""

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("scheduler_database_up", "Whether the database answered this scrape")
        try:
            found = list(_read())
        except (AiravataError, PeeweeException):
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *found]


def _read() -> Iterator[Metric]:
    names = {row[0]: row[1] for row in execute("SELECT id, name FROM compute_resources")}
    yield from _ended(names)
    yield from _sessions(names)
    yield _in_motion()
    yield _next_task_age(names)
    yield from _outbox()


def _ended(names: dict[str, str]) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "scheduler_tasks", "Attempts of tasks that ended, by outcome", labels=["compute", "outcome"]
    )
    expired = CounterMetricFamily(
        "scheduler_lease_expiries", "Leases that ended in silence", labels=["compute"]
    )
    for (compute_id, outcome), count in sorted(stats.totals().items()):
        compute = names.get(compute_id, compute_id)
        total.add_metric([compute, outcome.lower()], count)
        if outcome == Outcome.EXPIRED:
            expired.add_metric([compute], count)
    yield total
    yield expired
    yield _durations(names)


def _durations(names: dict[str, str]) -> Metric:
    """The classes of `task_stats` as a cumulative histogram."""
    family = HistogramMetricFamily(
        "scheduler_tasks_duration_seconds",
        "How long attempts ran, by outcome",
        labels=["compute", "outcome"],
    )
    classes: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for compute_id, outcome, bound_ms, count, sum_ms in stats.histogram():
        classes[compute_id, outcome][bound_ms] = count
        sums[compute_id, outcome] += sum_ms
    for key, counts in classes.items():
        cumulated = 0
        buckets: list[tuple[str, float]] = []
        for bound_ms in stats.BOUNDS_MS:
            cumulated += counts.get(bound_ms, 0)
            buckets.append((str(bound_ms / 1000), cumulated))
        buckets.append(("+Inf", sum(counts.values())))
        compute_id, outcome = key
        family.add_metric(
            [names.get(compute_id, compute_id), outcome.lower()],
            buckets=buckets,
            sum_value=sums[key] / 1000,
        )
    return family


def _sessions(names: dict[str, str]) -> Iterator[Metric]:
    active = GaugeMetricFamily(
        "scheduler_workers_active", "Agents that were heard of lately", labels=["compute"]
    )
    by_state = GaugeMetricFamily(
        "scheduler_sessions", "Agent sessions that have not ended", labels=["compute", "state"]
    )
    held = GaugeMetricFamily(
        "scheduler_leases_held", "Leases that the agents said they hold", labels=["compute"]
    )
    since = now_ms() - int(tokens.configuration().suspect_after_s * 1000)
    rows = execute(
        "SELECT compute_id, SUM(CASE WHEN heartbeat_at >= %s THEN 1 ELSE 0 END), COUNT(*), "
        "SUM(held) FROM agent_sessions WHERE ended_at IS NULL GROUP BY compute_id",
        (since,),
    )
    found = {row[0]: (int(row[1]), int(row[2]), int(row[3])) for row in rows}
    for compute_id, name in names.items():
        alive, everyone, leases = found.get(compute_id, (0, 0, 0))
        active.add_metric([name], alive)
        by_state.add_metric([name, "alive"], alive)
        by_state.add_metric([name, "silent"], everyone - alive)
        held.add_metric([name], leases)
    yield active
    yield by_state
    yield held
    yield _swaps(names)


def _swaps(names: dict[str, str]) -> Metric:
    family = CounterMetricFamily(
        "scheduler_session_swaps",
        "Sessions that spoke although another of their agent had taken over",
        labels=["compute"],
    )
    counted = execute("SELECT compute_id, SUM(swaps) FROM agents GROUP BY compute_id")
    found = {row[0]: int(row[1]) for row in counted}
    for compute_id, name in names.items():
        family.add_metric([name], found.get(compute_id, 0))
    return family


def _in_motion() -> Metric:
    """From the counters of the nodes that have not finished."""
    family = GaugeMetricFamily(
        "scheduler_tasks_in_state", "Tasks that have not ended, by state", labels=["state"]
    )
    sums = ", ".join(f"COALESCE(SUM({state}), 0)" for state in _WAITING_STATES)
    row = execute(f"SELECT {sums} FROM nodes WHERE finished_at IS NULL")[0]  # noqa: S608 - our words
    for state, count in zip(_WAITING_STATES, row, strict=True):
        family.add_metric([state], int(count))
    return family


def _next_task_age(names: dict[str, str]) -> Metric:
    """One look at the first entry of the claim's index for each compute resource."""
    family = GaugeMetricFamily(
        "scheduler_queue_age_seconds",
        "For how long the task that is claimed next has been waiting",
        labels=["compute"],
    )
    now = now_ms()
    for compute_id, name in names.items():
        rows = execute(
            _NEXT_TASK,
            (compute_id,),
        )
        waited_s = max(0, now - int(rows[0][0])) / 1000 if rows else 0.0
        family.add_metric([name], waited_s)
    return family


def _outbox() -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "scheduler_outbox_lag_seconds", "Age of the oldest change of grants that was not relayed"
    )
    rows = execute(
        "SELECT created_at FROM outbox WHERE relayed_at IS NULL ORDER BY relayed_at, id LIMIT 1"
    )
    lag.add_metric([], max(0, now_ms() - int(rows[0][0])) / 1000 if rows else 0.0)
    yield lag
    repaired = CounterMetricFamily(
        "scheduler_permissions_repaired",
        "Relationships that SpiceDB lacked, or had without any row that grants them",
        labels=["fault"],
    )
    for fault in ("missing", "extra"):
        repaired.add_metric([fault], float(deployment.read(f"authz:{fault}") or 0))
    yield repaired
    yield from _audit()


def _audit() -> Iterator[Metric]:
    sealed = CounterMetricFamily(
        "scheduler_audit_entries", "Entries of the audit that are in its chain"
    )
    sealed.add_metric([], float(audit_chain.sealed_count()))
    yield sealed
    age = GaugeMetricFamily(
        "scheduler_audit_unsealed_seconds", "Age of the oldest entry that is not in the chain yet"
    )
    since = audit_chain.unsealed_since()
    age.add_metric([], max(0, now_ms() - since) / 1000 if since is not None else 0.0)
    yield age
