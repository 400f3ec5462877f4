"""Put a job on its RQ queue: deterministic id, JSON arguments, and never an exception.

A job that is waiting is not enqueued twice. A job that is *running* may already have read the
database, so a second one is put behind it, under the next of a few ids. Whatever is lost here
(Redis flushed, killed, full) the reconciler derives again from SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import redis
from rq import Queue
from rq.exceptions import DuplicateJobError, NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from airavata_scheduler.queue import connection

# The clock's queue is served first: a sweep must never wait behind the expansion of a big sweep.
CLOCK_QUEUE = "airavata-clock"
WORK_QUEUE = "airavata-work"
QUEUES = (CLOCK_QUEUE, WORK_QUEUE)
CLOCK_JOBS = frozenset(
    {"sweep", "reconcile", "permissions", "sealing", "secrets", "comparison", "retention"}
)

JOB_TIMEOUT_S = 120
# Filling SpiceDB, or comparing it with the database, takes as long as there are objects.
LONG_JOBS = frozenset({"permissions", "comparison"})
LONG_TIMEOUT_S = 3600
# A job that waits longer than this is forgotten by Redis. So an id whose entry in the list was
# lost (a worker killed between pop and start) blocks its name for a minute, not for ever.
WAITING_TTL_S = 60
FAILURE_TTL_S = 60
RUNNING_AT_ONCE = 4  # ids a name: one waiting plus those running on several workers

_log = logging.getLogger(__name__)


def job_id(job: str, key: str = "", slot: int = 0) -> str:
    """The deterministic RQ id; RQ allows letters, digits, `_` and `-` only."""
    name = f"{job}-{key}" if key else job
    return f"{name}-{slot}" if slot else name


def enqueue(job: str, key: str = "") -> bool:
    """Enqueue `queue/jobs.py:<job>(key)`; False if Redis is away (logged, never raised).

    Call it after the commit that makes the work: a job that waits already will see that commit.
    """
    try:
        with connection.guarded() as client:
            _enqueue_once(client, job, key)
    except (*connection.RedisAway, redis.exceptions.RedisError) as error:
        _log.info("job %s: not enqueued, the reconciler will find it: %s", job_id(job, key), error)
        return False
    return True


def enqueue_many(jobs: Iterable[tuple[str, str]]) -> None:
    """Enqueue each (job, key) once."""
    for job, key in dict.fromkeys(jobs):
        enqueue(job, key)


def _enqueue_once(client: redis.Redis, job: str, key: str) -> None:
    name = CLOCK_QUEUE if job in CLOCK_JOBS else WORK_QUEUE
    queue = Queue(name, connection=client, serializer=JSONSerializer)
    # A clock job comes again by itself, so it needs no second one behind a running one.
    slots = 1 if job in CLOCK_JOBS else RUNNING_AT_ONCE
    for slot in range(slots):
        identity = job_id(job, key, slot)
        try:
            queue.enqueue_call(
                f"airavata_scheduler.queue.jobs.{job}",
                args=(key,) if key else (),
                job_id=identity,
                unique=True,
                timeout=LONG_TIMEOUT_S if job in LONG_JOBS else JOB_TIMEOUT_S,
                ttl=WAITING_TTL_S,
                result_ttl=0,
                failure_ttl=FAILURE_TTL_S,
                description=identity,
            )
        except DuplicateJobError:
            if _is_waiting(client, identity):
                return
        else:
            return


def _is_waiting(client: redis.Redis, identity: str) -> bool:
    """Whether that job has not begun, so that it will see everything committed until now."""
    try:
        job = Job.fetch(identity, connection=client, serializer=JSONSerializer)
    except NoSuchJobError:
        return False
    return bool(job.get_status(refresh=False) == JobStatus.QUEUED)
