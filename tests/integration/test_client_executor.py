"""The Executor against the real application, with the agent's own loader running the functions."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.agent.python_function import Function, failure_of
from airavata_scheduler.backends import stores
from airavata_scheduler.client.call_collector import RemoteTraceback
from airavata_scheduler.client.errors import BadInputError, RemoteError
from airavata_scheduler.client.executor import Executor
from airavata_scheduler.client.function_source import source_of
from airavata_scheduler.models import database
from airavata_scheduler.models.leases import Grant, Report
from airavata_scheduler.models.tables import Blob, FunctionVersion, Node
from tests.client_server import Served, served
from tests.waiting import wait_until
from tests.work import Site

__all__ = ["served"]


@dataclass(kw_only=True)
class Worker:
    """Plays the agent: claims calls and runs them with the agent's own loading code."""

    site: Site
    folder: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    seen: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Until stopped: claim, run, report."""
        while not self.stopping.is_set():
            with database.connected():
                if not self.held.is_set():
                    for grant in self.site.claim(100):
                        self.site.start(grant)
                        self.site.report(self._worked(grant))
            self.stopping.wait(0.02)

    def _worked(self, grant: Grant) -> Report:
        spec = Node.get_by_id(grant.node_id).spec
        python = dict(spec["python"])
        self.seen.append(python)
        function = Function.load(python, self._blob(python.get("blob")))
        arguments = json.loads(grant.arguments or "null")
        if arguments["encoding"] == "blob":
            arguments["file"] = self._blob(arguments)
        folder = self.folder / grant.task_id
        try:
            done = function.call({"arguments": arguments}, folder)
        except Exception as error:  # noqa: BLE001 - whatever the function raises
            return _failed(grant, error, function.codec)
        if "result" in done:
            return Report(
                lease=grant.lease, outcome="completed", exit_code=0, result=done["result"]
            )
        data = (folder / "result").read_bytes()
        artifact = self.site.upload(grant, "__result__", "result", data)
        return Report(
            lease=grant.lease,
            outcome="completed",
            exit_code=0,
            artifacts=(artifact,),
            result={"encoding": done["result_file"], "artifact": "result"},
        )

    def _blob(self, blob: dict[str, Any] | None) -> str | None:
        """The path of a copy of a blob, as the agent downloads it."""
        if blob is None:
            return None
        row = Blob.get(Blob.sha256 == blob["sha256"])
        path = self.folder / blob["sha256"]
        with stores.store(row.storage_id).open(row.storage_key) as opened:
            path.write_bytes(opened.read())
        return str(path)


def _failed(grant: Grant, error: Exception, codec: str) -> Report:
    failure = failure_of(error, codec)
    pickled = failure.get("exception")
    return Report(
        lease=grant.lease,
        outcome="failed",
        failure_kind=failure["kind"],
        failure_code=failure["code"],
        message=f"{failure['message']}\n{failure['traceback']}",
        exit_code=1,
        result={"encoding": "pickle", "data": pickled} if pickled else None,
    )


@pytest.fixture
def worker(served: Served, tmp_path: Path) -> Iterator[Worker]:
    """An agent that runs Python functions in a thread of this process."""
    folder = tmp_path / "worker"
    folder.mkdir()
    made = Worker(site=served.site(), folder=folder)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stopping.set()
    thread.join()


@pytest.fixture
def executor(served: Served, worker: Worker) -> Iterator[Executor]:
    """An Executor of ada's."""
    with Executor(served.client()) as made:
        yield made


def double(x: int) -> int:
    """A function that needs nothing but its source."""
    return 2 * x


def fail(text: str) -> None:
    """A function that raises."""
    raise KeyError(text)


@dataclass
class Point:
    """A type that exists on this machine only."""

    x: int


def moved(point: Point, by: int) -> Point:
    """A function of a type that only exists here."""
    return Point(point.x + by)


def big(count: int, data: bytes = b"") -> bytes:
    """A function whose result and argument are large."""
    return data + b"x" * count


def test_submit_gives_the_value(executor: Executor, worker: Worker) -> None:
    """A plain function travels as source; its value comes back as it was."""
    future = executor.submit(double, 21)

    assert future.result(20) == 42
    assert "source" in worker.seen[0]


def test_map_keeps_the_order_and_batches(executor: Executor) -> None:
    """`map` over many, in order, with few requests."""
    assert list(executor.map(double, range(150), timeout=60)) == [2 * x for x in range(150)]


def test_as_completed_and_wait(executor: Executor) -> None:
    """The functions of `concurrent.futures` work on our futures."""
    futures = [executor.submit(double, x) for x in range(5)]

    values = {future.result() for future in concurrent.futures.as_completed(futures, timeout=20)}

    assert values == {0, 2, 4, 6, 8}
    assert concurrent.futures.wait(futures, timeout=5).not_done == set()


def test_lambdas_closures_partials_and_builtins(executor: Executor) -> None:
    """Whatever a process pool refuses goes in a bundle; a builtin needs no bundle."""
    offset = 10

    assert executor.submit(lambda x: x + offset, 1).result(20) == 11
    assert executor.submit(partial(double), x=4).result(20) == 8
    assert executor.submit(pow, 2, 5).result(20) == 32


def test_an_own_type_travels_both_ways(executor: Executor, worker: Worker) -> None:
    """An argument of a type of ours makes the function a bundle."""
    assert executor.submit(moved, Point(1), 2).result(20).x == 3
    assert "blob" in worker.seen[-1]


def test_the_exception_comes_back_with_the_remote_traceback(executor: Executor) -> None:
    """The same type, and as its cause the traceback that Python printed there."""
    future = executor.submit(fail, "lost")

    error = future.exception(20)

    assert isinstance(error, KeyError)
    assert error.args == ("lost",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in str(error.__cause__)


def test_large_arguments_and_results_go_as_files(executor: Executor) -> None:
    """Above 48 KiB the argument is a blob, the result an artifact."""
    assert executor.submit(big, 100_000, b"y" * 200_000).result(20) == (
        b"y" * 200_000 + b"x" * 100_000
    )


def test_the_same_function_is_registered_once(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many submits of one function send it once, and make one version."""
    functions = executor._client.functions
    register = functions.register
    sent: list[str] = []

    def counted(**body: Any) -> Any:
        sent.append(body["name"])
        return register(**body)

    monkeypatch.setattr(functions, "register", counted)

    for future in [executor.submit(double, x) for x in range(20)]:
        future.result(20)

    assert sent == ["double"]
    assert FunctionVersion.select().count() == 1


def test_a_waiting_call_is_cancelled(executor: Executor, worker: Worker) -> None:
    """`cancel` before the result: the future is cancelled, the call is stopped on the server."""
    worker.held.set()
    future = executor.submit(double, 1)
    wait_until(lambda: getattr(future, "call_id", None), message="the call was sent")

    cancelled = future.cancel()
    done, _ = concurrent.futures.wait([future], timeout=10)

    assert cancelled
    assert future in done
    assert future.cancelled()
    call_id = future.call_id  # type: ignore[attr-defined]
    client = executor._client
    wait_until(lambda: client.calls.get(call_id).state == "CANCELLED", message="cancelled there")


def test_shutdown_waits_and_refuses_more(served: Served, worker: Worker) -> None:
    """After `shutdown` every future is done, and submit raises."""
    executor = Executor(served.client())
    futures = [executor.submit(double, x) for x in range(10)]

    executor.shutdown()

    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        executor.submit(double, 1)


def test_the_json_codec_trusts_nobody(served: Served, worker: Worker) -> None:
    """JSON values only; an exception is a RemoteError, nothing is unpickled."""
    with Executor(served.client(), codec="json") as executor:
        value = executor.submit(double, x=3).result(20)
        error = executor.submit(fail, "lost").exception(20)
        with pytest.raises(BadInputError):
            executor.submit(double, {1, 2})  # type: ignore[arg-type]

    assert value == 6
    assert isinstance(error, RemoteError)
    assert "KeyError" in error.message
    assert "in fail" in (error.remote_traceback or "")


def test_a_result_of_a_site_that_sends_garbage_is_an_error(served: Served, worker: Worker) -> None:
    """A result that cannot be unpickled ends the future, never hangs it."""
    worker.held.set()
    with Executor(served.client()) as executor:
        future = executor.submit(double, 1)
        grant = wait_until(lambda: worker.site.claim(1), message="the call")[0]
        worker.site.start(grant)
        data = base64.b64encode(b"no pickle").decode()
        worker.site.complete(grant, result={"encoding": "pickle", "data": data})

        error = future.exception(20)

    assert "cannot be unpickled" in str(error)


def test_source_runs_without_any_package(tmp_path: Path) -> None:
    """What travels as source runs on a bare interpreter: isolated, without site packages."""
    text = source_of(double)
    assert text is not None
    path = tmp_path / "f.py"
    path.write_text(f"{text}\nprint(double(4))\n", encoding="utf-8")

    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", str(path)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "8\n"
