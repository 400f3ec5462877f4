"""Jobs and the clock: enqueued once, run by a real RQ worker, derived again after FLUSHALL."""

from __future__ import annotations

import signal
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from airavata_scheduler.models import flow
from airavata_scheduler.models.database import change, connected, execute, now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import (
    AgentSession,
    Claim,
    Deployment,
    EnrolmentToken,
    Event,
    Experiment,
    IdempotencyKey,
    Task,
)
from airavata_scheduler.queue import connection, cron, jobs, retention_rules
from airavata_scheduler.queue.enqueue import CLOCK_QUEUE, QUEUES, WORK_QUEUE, enqueue, job_id
from airavata_scheduler.queue.worker import QueueWorker
from tests.api import Api
from tests.servers.redis import Redis
from tests.wire_agent import Wire
from tests.work import sweep

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test alone, which it may kill; this process is connected to it."""
    server = Redis(tmp_path / "redis")
    server.start()
    connection.configure(server.url)
    yield server
    connection.configure(connection.DEFAULT_URL)
    server.stop()


@pytest.fixture
def wire(api: Api, own_redis: Redis) -> Wire:
    """An agent whose application shares the test's Redis."""
    wire = Wire.enrolled(api)
    connection.configure(own_redis.url)
    return wire


def work_through() -> None:
    """Let a real RQ worker do everything that waits."""
    worker = QueueWorker(
        list(QUEUES),
        connection=connection.connect(socket_timeout_s=None),
        serializer=JSONSerializer,
    )
    # RQ wants the main thread for its signals; pytest's is that.
    worker.work(burst=True, logging_level="WARNING")


def waiting(queue: str = WORK_QUEUE) -> list[str]:
    """The ids of the jobs on a queue."""
    return Queue(queue, connection=connection.client(), serializer=JSONSerializer).job_ids


def submit(wire: Wire) -> str:
    """Submit an experiment without running anything for it."""
    if wire.owner.get("/projects/spine").status_code == 404:
        wire.api.project(wire.owner)
    body = {"project": "spine", "document": sweep("1..3"), "submit": True}
    answer = wire.owner.post("/experiments", body)
    assert answer.status_code == 201, answer.text
    experiment: str = answer.json["id"]
    return experiment


def test_a_job_that_waits_is_not_enqueued_twice(own_redis: Redis) -> None:
    """The id is made of the job and its key; RQ holds one of it, with JSON arguments."""
    assert enqueue("plan", "e1")
    assert enqueue("plan", "e1")
    enqueue("plan", "e2")
    enqueue("sweep")

    assert waiting() == ["plan-e1", "plan-e2"]
    assert waiting(CLOCK_QUEUE) == ["sweep"]
    data = connection.client().hget("rq:job:plan-e1", "data")
    assert isinstance(data, bytes)
    raw = zlib.decompress(data)
    assert b'["airavata_scheduler.queue.jobs.plan", null, ["e1"], {}]' in raw


def test_a_running_job_gets_one_behind_it(own_redis: Redis) -> None:
    """News for a job that has begun are not lost: one more waits, however many ask."""
    enqueue("finish", "e1")
    client = connection.client()
    job = Job.fetch("finish-e1", connection=client, serializer=JSONSerializer)
    Queue(WORK_QUEUE, connection=client, serializer=JSONSerializer).remove("finish-e1")
    job.set_status(JobStatus.STARTED)
    for _ in range(3):
        enqueue("finish", "e1")

    assert waiting() == [job_id("finish", "e1", 1)]


def test_a_lost_entry_blocks_its_name_for_a_minute_only(own_redis: Redis) -> None:
    """What waits has a time to live, so that an id without its place in the list goes away."""
    enqueue("expand", "n1")

    assert 0 < connection.client().ttl("rq:job:expand-n1") <= 60


def test_without_redis_enqueue_says_so_and_raises_nothing(own_redis: Redis) -> None:
    """Away, killed or out of memory: False, at once."""
    own_redis.server.stop(signal.SIGKILL)

    assert enqueue("plan", "e1") is False


def test_a_submitted_experiment_runs_by_its_jobs(wire: Wire) -> None:
    """Submit enqueues plan, plan expand, and the tasks can be claimed: no reconciler needed."""
    submit(wire)
    work_through()

    assert len(wire.claim(10)["leases"]) == 3


def test_flushall_loses_nothing(wire: Wire) -> None:
    """Every job is derived again from SQL by the reconciler."""
    submit(wire)
    connection.client().flushall()
    work_through()
    before = wire.claim(10)["leases"]
    enqueue("reconcile")
    work_through()

    assert before == []
    assert len(wire.claim(10)["leases"]) == 3


def test_redis_killed_the_reconciler_works_here(wire: Wire, own_redis: Redis) -> None:
    """Without Redis the reconciler itself does what it finds, and what follows from that."""
    submit(wire)
    own_redis.server.stop(signal.SIGKILL)
    jobs.run_here("reconcile")

    assert len(wire.claim(10)["leases"]) == 3


def test_a_clock_entry_runs_once_a_period(fresh_database: str) -> None:
    """Eight clocks that find an entry due at the same moment: one of them gets the turn."""
    turns: list[bool] = []
    gate = threading.Barrier(8)

    def one_clock() -> None:
        with connected():
            gate.wait()
            turns.append(cron.take(cron.RETENTION))

    clocks = [threading.Thread(target=one_clock) for _ in range(8)]
    for clock in clocks:
        clock.start()
    for clock in clocks:
        clock.join()

    assert sorted(turns) == [False] * 7 + [True]


def test_what_is_due(fresh_database: str) -> None:
    """Everything is overdue at first; then nothing; then what its period says."""
    entries = cron.table(30.0)
    first = cron.due(entries, redis_is_up=True)
    for entry in entries:
        cron.take(entry)
    then = cron.due(entries, redis_is_up=True)
    change("UPDATE deployment SET at = at - 7000 WHERE name LIKE %s", ("cron:%",))
    later = cron.due(entries, redis_is_up=True)
    alone = cron.due(entries, redis_is_up=False)

    assert [(entry.name, overdue) for entry, overdue in first] == [
        ("sweep", True),
        ("reconcile", True),
        ("permissions", True),
        ("sealing", True),
        ("secrets", True),
        ("comparison", True),
        ("retention", True),
    ]
    assert then == []
    assert [entry.name for entry, _ in later] == ["sweep", "permissions", "sealing"]
    assert [entry.name for entry, _ in alone] == ["sweep", "reconcile", "permissions", "sealing"]


def test_the_sweep_ticks_and_requeues(wire: Wire) -> None:
    """A silent session's tasks go back, and another agent gets them; a busy one keeps its own."""
    wire.submit(sweep("1..2"))
    wire.claim(1)
    other = wire.beside()
    other.claim(1)
    jobs.run_here("sweep")
    AgentSession.update(heartbeat_at=now_ms() - 16 * 60_000).where(
        AgentSession.id == wire.session_id
    ).execute()
    change("UPDATE deployment SET at = at - 5000 WHERE name = %s", ("cron:sweep",))
    jobs.run_here("sweep")
    Task.update(available_at=0).execute()

    assert Deployment.select().where(Deployment.name == "cron:sweep").count() == 1
    assert len(other.claim(5)["leases"]) == 1


def test_after_our_outage_nothing_expires(wire: Wire) -> None:
    """I7: a sweeper that was away for long finds silent sessions and leaves them in peace."""
    wire.submit(sweep("1..1"))
    lease = wire.claim(1)["leases"][0]["lease"]
    jobs.run_here("sweep")
    for name in ("sweep_tick", "cron:sweep"):
        change("UPDATE deployment SET at = at - 3600000 WHERE name = %s", (name,))
    change(
        "UPDATE deployment SET value = %s WHERE name = %s",
        (str(now_ms() - 3_600_000), "sweep_tick"),
    )
    AgentSession.update(heartbeat_at=now_ms() - 3_600_000).execute()
    jobs.run_here("sweep")

    assert wire.heartbeat(full=[{"lease": lease, "phase": "running"}])["leases"] == []


def test_retention_deletes_what_nobody_needs(wire: Wire) -> None:
    """Old bookkeeping goes; what is young, alive, or the newest session of an agent stays."""
    experiment = submit(wire)
    old, young = now_ms() - 40 * DAY_MS, now_ms()
    for key, at in (("old", old), ("young", young)):
        IdempotencyKey.insert(principal_id="p", key=key, request_hash="h", created_at=at).execute()
        Claim.insert(
            claim_id=key,
            agent_id=wire.agent_id,
            session_id=wire.session_id,
            granted=1,
            created_at=at,
        ).execute()
    first = wire.session_id
    wire.open_session()
    AgentSession.update(ended_at=old).execute()
    EnrolmentToken.update(expires_at=old).execute()
    events = Event.select().count()
    deleted = retention_rules.delete_old(7 * 24 * 3600.0)
    kept_events = Event.select().count()
    Experiment.update(finished_at=old).where(Experiment.id == experiment).execute()
    retention_rules.delete_old(7 * 24 * 3600.0)

    assert deleted["idempotency_keys"] == deleted["claims"] == deleted["enrolment_tokens"] == 1
    assert [row.key for row in IdempotencyKey.select()] == ["young"]
    assert {row.id for row in AgentSession.select()} == {wire.session_id} != {first}
    assert (kept_events, Event.select().count()) == (events, 0)


def test_retention_is_bounded(fresh_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run deletes a bounded number of rows, and the next one goes on."""
    monkeypatch.setattr(retention_rules, "PART", 10)
    monkeypatch.setattr(retention_rules, "PARTS", 2)
    for number in range(35):
        IdempotencyKey.insert(
            principal_id="p", key=f"k{number}", request_hash="h", created_at=number
        ).execute()
    left = []
    for _ in range(3):
        retention_rules.delete_old(0)
        left.append(execute("SELECT COUNT(*) FROM idempotency_keys")[0][0])

    assert left == [15, 0, 0]


def test_jobs_of_things_that_are_gone(wire: Wire) -> None:
    """A job for an id that does not exist does no harm and leaves the queue empty."""
    for job in ("plan", "expand", "finish"):
        enqueue(job, new_id())
    work_through()

    assert waiting() == []
    assert flow.due_work() == []
