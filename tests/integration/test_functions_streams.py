"""Event streams, waits and large bodies through the real server: gunicorn with threads.

The server is a process of its own on SQLite; the test plays daemon and agent beside it. There is no
Redis, so wake-ups between the two are polls of a second.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from airavata_scheduler.backends import spicedb
from airavata_scheduler.backends.stores import ensure_default_storage
from airavata_scheduler.functions.logins import open_login
from airavata_scheduler.models import database as db
from airavata_scheduler.models import migrations
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import User
from airavata_scheduler.queue import connection
from tests.api import NO_REDIS, SECRET, configuration, refill
from tests.servers.programs import free_port, listens
from tests.servers.spicedb import SpiceDBTesting
from tests.waiting import wait_until
from tests.work import Site, sweep

THREADS = 8  # so two may wait and two may send files


class Server:
    """A gunicorn of one process with `THREADS` threads, and a user who is logged in."""

    def __init__(self, url: str, folder: Path, endpoint: str) -> None:
        self.port = free_port()
        config = configuration(url, folder, SPICEDB_ENDPOINT=endpoint)
        spicedb.configure(config)
        ensure_default_storage(config)
        user_id, at = new_id(), now_ms()
        User.insert(id=user_id, name="ada", created_at=at, updated_at=at).execute()
        refill()
        token = open_login(config, user_id).as_json()["access_token"]
        environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "DATABASE_URL": url,
            "JWT_SECRET_KEY": SECRET,
            "RATE_LIMIT_ENABLED": "false",
            "REDIS_URL": NO_REDIS,
            "STORAGE_PATH": str(folder / "storage"),
            "API_THREADS": str(THREADS),
            "SPICEDB_ENDPOINT": endpoint,
            "SPICEDB_TOKEN": config.spicedb_token,
            "SPICEDB_INSECURE": "true",
        }
        self.log = (folder / "gunicorn.log").open("wb")
        command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread"]
        command += ["--workers", "1", "--threads", str(THREADS), "--bind", f"127.0.0.1:{self.port}"]
        command += ["-c", "python:airavata_scheduler.functions.gunicorn_config"]
        command += ["airavata_scheduler.functions.wsgi:application"]
        self.process = subprocess.Popen(
            command, env=environ, cwd=folder, stdout=self.log, stderr=self.log
        )
        self.base = f"http://127.0.0.1:{self.port}/api/v1"
        self.headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=self.base, headers=self.headers, timeout=30)
        wait_until(self._answers, timeout_s=60, message="the API")
        self.client.post("/projects", json={"name": "spine"}).raise_for_status()

    def _answers(self) -> bool:
        assert self.process.poll() is None, "gunicorn ended"
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def worker(self) -> psutil.Process:
        """The process that serves."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def submit(self, document: Any) -> str:
        """Submit an experiment; its id."""
        body = {"project": "spine", "document": document, "submit": True}
        answer = self.client.post("/experiments", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def stop(self) -> None:
        """End it as an operator would."""
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=40)
        finally:
            self.process.kill()
            self.log.close()


@pytest.fixture
def server(
    sqlite_url: str, tmp_path: Path, spicedb_testing_server: SpiceDBTesting
) -> Iterator[Server]:
    """A running server on a fresh database, which the test has open too."""
    connection.configure(NO_REDIS)
    db.connect(sqlite_url)
    migrations.upgrade()
    running = Server(sqlite_url, tmp_path, spicedb_testing_server.endpoint)
    yield running
    running.stop()
    db.disconnect()


class Listener:
    """Reads one event stream in a thread."""

    def __init__(self, server: Server, path: str, last_event_id: str | None = None) -> None:
        self.events: list[tuple[str, Any, str | None]] = []
        self.comments = 0
        self.closed = threading.Event()
        self._server, self._path, self._last = server, path, last_event_id
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        headers = {**self._server.headers, "Accept": "text/event-stream"}
        if self._last is not None:
            headers["Last-Event-ID"] = self._last
        fields: dict[str, str] = {}
        with httpx.stream(
            "GET", self._server.base + self._path, headers=headers, timeout=60
        ) as got:
            for line in got.iter_lines():
                name, _, value = line.partition(": ")
                if name in ("event", "data", "id"):
                    fields[name] = value
                elif line.startswith(":"):
                    self.comments += 1
                elif not line and "event" in fields:
                    found = (fields["event"], json.loads(fields["data"]), fields.get("id"))
                    self.events.append(found)
                    fields = {}
        self.closed.set()

    def kinds(self) -> list[str]:
        """The kinds of the events so far."""
        return [kind for kind, _, _ in self.events]


def test_watching_an_experiment_to_its_end(server: Server) -> None:
    """State, timeline and progress come as they happen; after `end` the stream closes."""
    site = Site.make()
    identity = server.submit(sweep("1..3"))
    listener = Listener(server, f"/experiments/{identity}/events")
    wait_until(lambda: "progress" in listener.kinds(), message="the first progress")
    site.settle()
    for grant in site.claim(3):
        site.start(grant)
        site.complete(grant)
    site.settle()

    assert listener.closed.wait(30)
    kind, last, _ = listener.events[-1]
    assert (kind, last["state"], last["counts"]["completed"]) == ("end", "COMPLETED", 3)
    states = [data["state"] for kind, data, _ in listener.events if kind == "state"]
    assert states[0] == "PLANNING"
    assert states[-1] == "COMPLETED"
    told = [data["kind"] for kind, data, _ in listener.events if kind == "event"]
    assert told[:3] == ["created", "submitted", "planned"]


def test_coming_back_tells_nothing_twice(server: Server) -> None:
    """With Last-Event-ID the timeline goes on behind the line that was seen."""
    Site.make()
    identity = server.submit(sweep("1..3"))
    server.client.post(f"/experiments/{identity}/cancel", json={}).raise_for_status()
    first = Listener(server, f"/experiments/{identity}/events")
    assert first.closed.wait(30)
    lines = [(data["kind"], seen) for kind, data, seen in first.events if kind == "event"]

    again = Listener(server, f"/experiments/{identity}/events", lines[0][1])
    assert again.closed.wait(30)
    told = [data["kind"] for kind, data, _ in again.events if kind == "event"]
    assert told == [kind for kind, _ in lines[1:]]


def _has_logged(listener: Listener, text: str) -> bool:
    return any(kind == "log" and text in data["text"] for kind, data, _ in listener.events)


def test_following_a_log_that_grows(server: Server) -> None:
    """What the task writes arrives while it runs; the stream ends with the task."""
    site = Site.make()
    server.submit(sweep("1..1"))
    site.settle()
    (grant,) = site.claim(1)
    site.start(grant)
    listener = Listener(server, f"/tasks/{grant.task_id}/logs/stdout/events")
    size = 0
    for line in (b"one\n", b"two\n", b"three\n"):
        size = site.log(grant, "stdout", line, size)
        text = line.decode()
        wait_until(partial(_has_logged, listener, text), message=f"the line {text!r}")
    assert not listener.closed.is_set()
    site.complete(grant)

    assert listener.closed.wait(30)
    assert listener.events[-1][1]["size"] == size


def _has_progress(listener: Listener) -> bool:
    return "progress" in listener.kinds()


def test_watchers_never_starve_the_rest(server: Server) -> None:
    """Many more streams than threads: each gets its first look, and plain requests are served."""
    Site.make()
    identity = server.submit(sweep("1..3"))
    listeners = []
    for _ in range(3 * THREADS):  # one after the other: all at once would be refused as overload
        listeners.append(Listener(server, f"/experiments/{identity}/events"))
        wait_until(partial(_has_progress, listeners[-1]), message="a first look")

    assert server.client.get(f"/experiments/{identity}/progress", timeout=10).status_code == 200
    open_ones = [listener for listener in listeners if not listener.closed.wait(0.2)]
    assert len(open_ones) == THREADS // 4
    server.client.post(f"/experiments/{identity}/cancel", json={}).raise_for_status()
    for listener in listeners:
        assert listener.closed.wait(30)


def test_a_stopping_server_ends_its_streams(server: Server) -> None:
    """SIGTERM ends open streams without an `end`, and the server is gone in a few seconds."""
    Site.make()
    identity = server.submit(sweep("1..3"))
    listener = Listener(server, f"/experiments/{identity}/events")
    wait_until(lambda: "progress" in listener.kinds(), message="the first progress")
    server.process.terminate()

    assert listener.closed.wait(15)
    assert "end" not in listener.kinds()
    assert server.process.wait(timeout=15) == 0


def test_a_worker_that_loses_its_arbiter_while_it_loads_ends(server: Server) -> None:
    """It frees the port at once, although somebody watches: the next server needs it."""
    identity = server.submit(sweep())
    token = server.headers["Authorization"]
    asked = f"GET /api/v1/experiments/{identity}/events HTTP/1.1\r\nHost: a\r\n"
    arbiter = psutil.Process(server.process.pid)
    before = server.worker()
    before.kill()
    young = wait_until(
        lambda: next((child for child in arbiter.children() if child != before), None),
        message="another worker",
    )
    assert young is not None

    with socket.create_connection(("127.0.0.1", server.port)) as watcher:
        watcher.sendall(f"{asked}Authorization: {token}\r\n\r\n".encode())
        arbiter.kill()
        wait_until(lambda: not _runs(young), timeout_s=15.0, message="the orphan to end")

    assert not listens(server.port)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_file_larger_than_memory_allows(server: Server) -> None:
    """256 MiB go up as a chunked blob and come down again while the server's memory stays flat."""
    size, piece = 256 << 20, b"0123456789abcdef" * 65_536
    digest = hashlib.sha256()
    for _ in range(size // len(piece)):
        digest.update(piece)
    path = f"/projects/spine/blobs/{digest.hexdigest()}"
    before = server.worker().memory_info().rss
    pieces = (piece for _ in range(size // len(piece)))
    sent = server.client.put(path, content=pieces, timeout=120)
    assert sent.status_code == 201, sent.text
    came = hashlib.sha256()
    with server.client.stream("GET", path, timeout=120) as got:
        for part in got.iter_bytes():
            came.update(part)
    after = server.worker().memory_info().rss

    assert came.hexdigest() == digest.hexdigest()
    assert after - before < 48 << 20


def test_slow_readers_never_starve_the_rest(server: Server) -> None:
    """Clients that ask for a large file and read nothing hold two threads; the next is told 503."""
    data = os.urandom(1 << 20) * 32
    digest = hashlib.sha256(data).hexdigest()
    path = f"/projects/spine/blobs/{digest}"
    server.client.put(path, content=data).raise_for_status()
    address = urlsplit(server.base)
    slow = []
    for _ in range(THREADS // 4):
        one = http.client.HTTPConnection(address.hostname or "", address.port)
        one.request("GET", address.path + path, headers=server.headers)
        assert one.getresponse().status == 200
        slow.append(one)

    refused = server.client.get(path)
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_downloads")
    assert refused.headers["Retry-After"] == "3"
    assert server.client.get("/health").status_code == 200
    for one in slow:
        one.close()
    wait_until(
        lambda: (
            server.client.request("HEAD", path).status_code == 200
            and server.client.get(path, headers={"Range": "bytes=0-9"}).status_code == 206
        ),
        message="a free place",
    )
