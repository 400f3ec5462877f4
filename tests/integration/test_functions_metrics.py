"""`/metrics` tells the truth, with the four names of the deployment guide."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from airavata_scheduler.models import database as db
from airavata_scheduler.models import stats, sweeping
from airavata_scheduler.models.database import database, execute, now_ms, transaction
from airavata_scheduler.models.ids import new_id, new_lease_id
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.tables import (
    Agent,
    AgentSession,
    Experiment,
    Node,
    Task,
)
from tests.api import Api
from tests.wire_agent import Wire

THE_GUIDES = {
    "scheduler_tasks_total",
    "scheduler_tasks_duration_seconds",
    "scheduler_workers_active",
    "scheduler_api_requests_total",
}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Each sample's value by its name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(api: Api, name: str, **labels: str) -> float | None:
    """One sample of a fresh scrape, or None."""
    text = api.nobody.get("//metrics").text
    return samples(text).get((name, tuple(sorted(labels.items()))))


def compute(api: Api, name: str = "box") -> str:
    """A compute resource; its id."""
    answer = api.admin().post("/compute-resources", {"name": name, "kind": "BARE_METAL"})
    found: str = answer.json["id"]
    return found


def test_swaps_of_an_agent_are_counted(api: Api) -> None:
    """A session that speaks after another took over is counted once, also when it goes on."""
    wire = Wire.enrolled(api, "box")
    for _ in range(2):
        old = wire.session_id
        wire.open_session()
        for path in ("/heartbeat", "/session/end"):
            wire.call("POST", path, {"seq": 1}, headers={"X-Agent-Session": old})

    assert value(api, "scheduler_session_swaps_total", compute="box") == 2


def test_the_guides_names_are_there(api: Api) -> None:
    """All four families, typed, from the first scrape on."""
    api.nobody.get("/health")

    text = api.nobody.get("//metrics").text

    typed = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert typed >= THE_GUIDES


def test_requests_are_counted_by_route(api: Api) -> None:
    """The label is the pattern: ids and names of users never become labels."""
    ada = api.user("ada")
    labels = {"method": "GET", "route": "/api/v1/projects/<project>", "status": "404"}
    before = value(api, "scheduler_api_requests_total", **labels) or 0

    for number in range(3):
        ada.get(f"/projects/none-{number}")

    assert value(api, "scheduler_api_requests_total", **labels) == before + 3
    assert "none-1" not in api.nobody.get("//metrics").text


def test_ended_attempts_are_counted_from_their_table(api: Api) -> None:
    """By outcome, with a cumulative histogram of their durations."""
    box = compute(api)
    with transaction():
        stats.add([(box, "COMPLETED", 40), (box, "COMPLETED", 2_000), (box, "FAILED", 700)])
    with transaction():
        stats.add([(box, "COMPLETED", 10**9), (box, "EXPIRED", 5)])

    def count(outcome: str) -> float | None:
        return value(api, "scheduler_tasks_total", compute="box", outcome=outcome)

    def bucket(le: str) -> float | None:
        return value(
            api,
            "scheduler_tasks_duration_seconds_bucket",
            compute="box",
            outcome="completed",
            le=le,
        )

    assert count("completed") == 3
    assert count("failed") == 1
    assert [bucket(le) for le in ("0.01", "0.05", "5.0", "+Inf")] == [0, 1, 2, 3]
    assert value(
        api, "scheduler_tasks_duration_seconds_sum", compute="box", outcome="completed"
    ) == pytest.approx(1_000_002.04)
    assert value(api, "scheduler_lease_expiries_total", compute="box") == 1


def test_an_expired_lease_is_counted(api: Api) -> None:
    """When a session was silent too long, the sweep counts each lease that it takes back."""
    ada, box = api.user("ada"), compute(api)
    project, now = api.project(ada)["id"], now_ms()
    agent_id, session_id, experiment_id, node_id = (new_id() for _ in range(4))
    Agent.insert(
        id=agent_id, compute_id=box, name="n", secret_hash="", secret_set_at=now,
        host={}, capabilities={}, policy={}, created_at=now,
    ).execute()  # fmt: skip
    AgentSession.insert(
        id=session_id, agent_id=agent_id, compute_id=box, started_at=now, free={},
        heartbeat_at=now - 60_000,
    ).execute()  # fmt: skip
    Experiment.insert(
        id=experiment_id, project_id=project, owner_id=ada.id, name="x", spec={}, compute=[box],
        state="RUNNING", total=2, created_at=now, updated_at=now,
    ).execute()  # fmt: skip
    Node.insert(
        id=node_id, experiment_id=experiment_id, name="n", position=0, total=2, next_index=2,
        spec={}, state="OPEN", running=2,
    ).execute()  # fmt: skip
    for index in range(2):
        Task.insert(
            id=new_id(), experiment_id=experiment_id, node_id=node_id, idx=index, compute_id=box,
            state=TaskState.RUNNING, attempt=1, lease_id=new_lease_id(), agent_id=agent_id,
            session_id=session_id, leased_at=now, started_at=now, created_at=now,
        ).execute()  # fmt: skip

    count, _ = sweeping.expire_session(session_id, 10, 30_000)

    assert count == 2
    assert value(api, "scheduler_lease_expiries_total", compute="box") == 2
    assert value(api, "scheduler_tasks_total", compute="box", outcome="expired") == 2


def test_active_workers_are_those_heard_of_lately(api: Api) -> None:
    """A silent session is none, an ended one is not even silent."""
    box = compute(api)
    for number, (age_s, ended) in enumerate([(0, False), (30, False), (200, False), (0, True)]):
        agent_id, now = new_id(), now_ms()
        Agent.insert(
            id=agent_id, compute_id=box, name=f"n{number}", secret_hash="", secret_set_at=now,
            host={}, capabilities={}, policy={}, created_at=now,
        ).execute()  # fmt: skip
        AgentSession.insert(
            id=new_id(), agent_id=agent_id, compute_id=box, started_at=now, free={}, held=2,
            heartbeat_at=now - age_s * 1000, ended_at=now if ended else None,
        ).execute()  # fmt: skip

    assert value(api, "scheduler_workers_active", compute="box") == 2
    assert value(api, "scheduler_sessions", compute="box", state="silent") == 1
    assert value(api, "scheduler_leases_held", compute="box") == 6


def test_what_waits_comes_from_counters_and_the_claims_index(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth by state and the age of the next task, and no query that counts tasks."""
    ada, box = api.user("ada"), compute(api)
    project, now, ids = api.project(ada)["id"], now_ms(), [new_id(), new_id()]
    Experiment.insert(
        id=ids[0], project_id=project, owner_id=ada.id, name="x", spec={}, compute=[],
        created_at=now, updated_at=now,
    ).execute()  # fmt: skip
    Node.insert(
        id=ids[1], experiment_id=ids[0], name="n", position=0, spec={}, queued=1000, running=7
    ).execute()
    Task.insert(
        id=new_id(), experiment_id=ids[0], node_id=ids[1], idx=0, compute_id=box, state=1,
        available_at=now - 60_000, created_at=now,
    ).execute()  # fmt: skip
    seen: list[str] = []
    original = database.obj.execute_sql

    def spy(sql: str, *rest: object) -> object:
        seen.append(" ".join(sql.split()))
        return original(sql, *rest)

    monkeypatch.setattr(database.obj, "execute_sql", spy)

    assert value(api, "scheduler_tasks_in_state", state="queued") == 1000
    assert value(api, "scheduler_tasks_in_state", state="running") == 7
    age_s = value(api, "scheduler_queue_age_seconds", compute="box")
    assert age_s is not None
    assert 60 <= age_s < 120
    about_tasks = [sql for sql in seen if " tasks" in sql]
    assert about_tasks
    assert all("LIMIT 1" in sql and "COUNT" not in sql.upper() for sql in about_tasks)


def test_the_outbox_lag_is_the_age_of_its_oldest_entry(api: Api) -> None:
    """Zero when everything was relayed."""
    api.project(api.user("ada"))
    execute("UPDATE outbox SET created_at = created_at - 90000, relayed_at = NULL")
    behind = value(api, "scheduler_outbox_lag_seconds")
    execute("UPDATE outbox SET relayed_at = 1")

    assert behind is not None
    assert behind >= 90
    assert value(api, "scheduler_outbox_lag_seconds") == 0


def test_a_scrape_survives_the_database(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are still told, and that the database is away."""
    up = value(api, "scheduler_database_up")

    def away(*_args: object, **_kwargs: object) -> object:
        raise db.DatabaseAway

    monkeypatch.setattr(database.obj, "execute_sql", away)

    text = api.nobody.get("//metrics").text

    assert up == 1
    assert samples(text)[("scheduler_database_up", ())] == 0
    assert "scheduler_api_requests_total" in text


def test_several_processes_are_one_sum(tmp_path: Path) -> None:
    """As gunicorn's workers do: each counts into its own file, and any of them tells the sum."""
    program = (
        "from airavata_scheduler.functions import metrics\n"
        "import sys\n"
        "for _ in range(int(sys.argv[1])):\n"
        "    metrics.count_request('GET', '/x', 200, 0.01)\n"
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry()\n"
        "multiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", program, count],
            env=environment, check=True, capture_output=True, text=True,
        ).stdout
        for count in ("2", "5")
    ]  # fmt: skip

    labels = (("method", "GET"), ("route", "/x"), ("status", "200"))
    counts = [samples(text)["scheduler_api_requests_total", labels] for text in texts]
    assert counts == [2, 7]
