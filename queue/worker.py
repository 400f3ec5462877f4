"""One RQ worker process: blocking pops, no fork for a job, and patience with Redis.

RQ's own loop ends on many errors. Here it is entered again, until the daemon says TERM or is gone.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait as wait_for
from types import FrameType

from rq import SimpleWorker
from rq.serializers import JSONSerializer

from airavata_scheduler.models import database, history
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.queue import connection, jobs
from airavata_scheduler.queue.enqueue import QUEUES

RECONNECT_S = 1.0
MAINTENANCE_S = 60  # how often RQ forgets what dead workers left in its registries

_log = logging.getLogger(__name__)


class QueueWorker(SimpleWorker):
    """RQ's worker without fork, without remote commands, and with a short wait for Redis."""

    max_connection_wait_time = 2.0
    stopping = False

    def subscribe(self) -> None:
        """Nobody commands our workers over Redis, so they do not listen there."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """TERM or INT: finish the present job, then end."""
        self.stopping = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]


def work(configuration: Configuration) -> None:
    """Take jobs until TERM; the target of the daemon's child processes.

    Raises what the database raises when it cannot be reached at the start.
    """
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    connection.configure(configuration.redis_url)
    history.keep(configuration.history_dir, "queue")
    database.connect(configuration.database_url, max_connections=2)
    jobs.configure(configuration)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    pause = threading.Event()
    while True:
        try:
            worker = _new_worker()
            worker.work(logging_level="WARNING")
            if worker.stopping:
                return
        except connection.RedisAway as error:
            _log.warning("queue worker %d: Redis is away (%s); trying again", os.getpid(), error)
        pause.wait(RECONNECT_S)


def _new_worker() -> QueueWorker:
    return QueueWorker(
        list(QUEUES),
        connection=connection.connect(socket_timeout_s=None),
        serializer=JSONSerializer,
        maintenance_interval=MAINTENANCE_S,
        log_job_description=False,
    )


def _end_with_parent() -> None:
    """A daemon that was killed leaves no worker behind: its death reads as the sentinel's end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
