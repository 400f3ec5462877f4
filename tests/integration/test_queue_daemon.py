"""The daemon as a whole process: it works, survives its parts' deaths, and ends when told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from airavata_scheduler.models.tables import Deployment
from airavata_scheduler.queue import connection
from airavata_scheduler.queue.enqueue import QUEUES, enqueue
from tests.api import SECRET, Api, MakeApi
from tests.servers.redis import Redis
from tests.waiting import wait_until
from tests.wire_agent import Wire
from tests.work import sweep

StartDaemon = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test alone, which it may kill; this process is connected to it."""
    server = Redis(tmp_path / "redis")
    server.start()
    yield server
    connection.configure(connection.DEFAULT_URL)
    server.stop()


@pytest.fixture
def served(make_api: MakeApi, own_redis: Redis) -> Api:
    """The application, sharing database and Redis with the daemons."""
    return make_api(REDIS_URL=own_redis.url)


@pytest.fixture
def start_daemon(
    served: Api,
    own_redis: Redis,
    fresh_database: str,
    secrets_settings: dict[str, str],
    tmp_path: Path,
) -> Iterator[StartDaemon]:
    """Start `airavata-scheduler daemon`; every one is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ,
        "DATABASE_URL": fresh_database,
        "REDIS_URL": own_redis.url,
        "JWT_SECRET_KEY": SECRET,
        "STORAGE_PATH": str(tmp_path / "storage"),
        "WORKER_INTERVAL": "1s",
        "SPICEDB_ENDPOINT": served.config.spicedb_endpoint,
        "SPICEDB_TOKEN": served.config.spicedb_token,
        "SPICEDB_INSECURE": "true",
        **secrets_settings,
    }

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / f"daemon{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "airavata_scheduler.commands.main", "daemon"],
                env=environment,
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        family = psutil.Process(process.pid).children(recursive=True) if _runs(process) else []
        for one in family:
            one.kill()
        process.kill()
        process.wait()


def _runs(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def queue_workers(process: subprocess.Popen[bytes]) -> list[int]:
    """The pids of a daemon's worker processes (not Python's own resource tracker)."""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # it may end, or be a zombie, meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def registered_workers() -> int:
    """How many RQ workers Redis knows."""
    return int(connection.client().scard("rq:workers"))


def queued() -> int:
    """How many jobs wait for a worker."""
    return sum(int(connection.client().llen(f"rq:queue:{name}")) for name in QUEUES)


def submit(wire: Wire, count: int = 2) -> None:
    """Submit an experiment and leave the rest to the daemon."""
    if wire.owner.get("/projects/spine").status_code == 404:
        wire.api.project(wire.owner)
    body = {"project": "spine", "document": sweep(f"1..{count}"), "submit": True}
    answer = wire.owner.post("/experiments", body)
    assert answer.status_code == 201, answer.text


def claims(wire: Wire, count: int) -> None:
    """Wait until `count` tasks could be claimed."""
    got: list[str] = []

    def claim() -> bool:
        got.extend(lease["lease"] for lease in wire.claim(10)["leases"])
        return len(got) >= count

    wait_until(claim, timeout_s=40, message=f"{count} tasks to claim")


def test_a_daemon_works_and_ends_when_told(served: Api, start_daemon: StartDaemon) -> None:
    """Submitted work becomes claimable by the daemon alone; TERM ends it and its workers."""
    wire = Wire.enrolled(served)
    daemon = start_daemon()
    wait_until(registered_workers, timeout_s=40, message="a worker at Redis")
    submit(wire)
    claims(wire, 2)
    workers = queue_workers(daemon)
    daemon.terminate()

    assert daemon.wait(timeout=30) == 0
    assert workers
    assert not any(psutil.pid_exists(pid) for pid in workers)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_killed_worker_comes_back(served: Api, start_daemon: StartDaemon) -> None:
    """kill -9 of the RQ worker: another is started, and work goes on."""
    wire = Wire.enrolled(served)
    daemon = start_daemon()
    first = wait_until(lambda: queue_workers(daemon), timeout_s=40, message="a worker")
    wait_until(registered_workers, timeout_s=40, message="a worker at Redis")
    os.kill(first[0], signal.SIGKILL)
    second = wait_until(
        lambda: [pid for pid in queue_workers(daemon) if pid not in first],
        timeout_s=40,
        message="another worker",
    )
    submit(wire)
    claims(wire, 2)

    assert second != first


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_killed_daemon_leaves_no_worker(served: Api, start_daemon: StartDaemon) -> None:
    """kill -9 of the daemon: its workers notice and end."""
    daemon = start_daemon()
    wait_until(lambda: queue_workers(daemon), timeout_s=40, message="a worker")
    wait_until(registered_workers, timeout_s=40, message="a worker at Redis")
    workers = queue_workers(daemon)
    daemon.kill()
    daemon.wait()

    wait_until(
        lambda: not any(psutil.pid_exists(pid) for pid in workers),
        timeout_s=20,
        message="the orphans' end",
    )


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_redis_killed_in_the_middle(
    served: Api, start_daemon: StartDaemon, own_redis: Redis
) -> None:
    """Without Redis the daemon does all by itself; with it back (and flushed) workers go on."""
    wire = Wire.enrolled(served)
    daemon = start_daemon()
    wait_until(registered_workers, timeout_s=40, message="a worker at Redis")
    own_redis.server.stop(signal.SIGKILL)
    submit(wire)
    claims(wire, 2)
    own_redis.start()
    wait_until(lambda: enqueue("plan", "0"), message="Redis, for us")
    wait_until(lambda: not queued(), timeout_s=40, message="the worker at the new Redis")
    connection.client().flushall()
    submit(wire)
    claims(wire, 2)

    assert daemon.poll() is None


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_two_daemons_beside_each_other(served: Api, start_daemon: StartDaemon) -> None:
    """Both work on one database; one of them killed, the other goes on alone."""
    wire = Wire.enrolled(served)
    first, second = start_daemon(), start_daemon()
    wait_until(lambda: registered_workers() >= 2, timeout_s=60, message="two workers")
    submit(wire, 50)
    claims(wire, 50)
    first.kill()
    first.wait()
    submit(wire)
    claims(wire, 2)

    assert second.poll() is None
    assert Deployment.select().where(Deployment.name == "cron:sweep").count() == 1
