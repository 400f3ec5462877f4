"""A process that does one deed and is killed in the middle of it.

It imports everything once and forks for each deed, so that a deed costs milliseconds. A deed is a
request of the API's, or a round of the daemon's; the point at which it is cut off is the moment
before or after a call of a named function, or a step into the database. Whoever is killed there is
the deed's own process, or a server whose process id the test names; then the deed goes on, and its
answer counts.

Spoken to by `Doer`, in lines of JSON.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airavata_scheduler.functions.app import create_app
from airavata_scheduler.models import database, flow
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.queue import jobs

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place in the code: `module:name` or `module:Class.name` below the package, and when."""

    where: str
    after: bool

    def __str__(self) -> str:
        """As test ids have it."""
        return f"{'after' if self.after else 'before'} {self.where}"


def before(where: str) -> Point:
    """The moment before each call of a function; the first one counts."""
    return Point(where=where, after=False)


def after(where: str) -> Point:
    """The moment after the first call."""
    return Point(where=where, after=True)


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a deed: the signal that ended it, or its answer's status."""

    signal: int | None
    status: int | None
    text: str = ""


@dataclass(kw_only=True)
class Doer:
    """The test's end of the process."""

    settings: Mapping[str, str]
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.doer"],
            env={**os.environ, "DOER_SETTINGS": json.dumps(dict(self.settings))},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def request(self, token: str, method: str, path: str, body: Any = None, **how: Any) -> Done:
        """Send one request; `point` and `victim` (a process id, else itself) say what happens."""
        return self._do({"token": token, "method": method, "path": path, "body": body}, **how)

    def job(self, name: str, **how: Any) -> Done:
        """Run one of the daemon's jobs."""
        return self._do({"job": name}, **how)

    def cut_off(self, deed: Mapping[str, Any], step: int) -> Done:
        """Do a deed whose process dies before its step `step` into the database, from 1.

        Steps are each statement, each commit, and the moment after each commit: whatever is
        durable, becomes so between two of them. A deed of fewer steps is done and answered.
        """
        return self._do({**deed, "step": step}, point=None)

    def _do(self, deed: dict[str, Any], *, point: Point | None, victim: int | None = None) -> Done:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if point is not None:
            deed |= {"where": point.where, "after": point.after, "victim": victim}
        self.process.stdin.write(json.dumps(deed) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the doer ended"
        return Done(**json.loads(answer))

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # log lines must not end up among the answers
    config = Configuration.read(json.loads(os.environ["DOER_SETTINGS"]), dotenv=None)
    database.connect(config.database_url, max_connections=4)
    app = create_app(config)
    jobs.configure(config)
    database.disconnect()
    for line in sys.stdin:
        deed = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            database.connect(config.database_url, max_connections=4)
            status, text = _perform(app, deed)
            os.write(writer, json.dumps({"status": status, "text": text}).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        _, ended = os.waitpid(child, 0)
        told = json.loads(said) if said else {"status": None, "text": ""}
        number = os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else None
        answers.write(json.dumps({"signal": number, **told}) + "\n")
        answers.flush()


def _perform(app: Any, deed: dict[str, Any]) -> tuple[int | None, str]:
    if "where" in deed:
        _arm(deed["where"], later=deed["after"], victim=deed["victim"] or os.getpid())
    if "step" in deed:
        _count_down(deed["step"])
    if "job" in deed:
        jobs.BY_CLOCK[deed["job"]]()
        return None, ""
    if "flow" in deed:
        with database.connected():
            getattr(flow, deed["flow"])(deed["about"])
        return None, ""
    answer = app.test_client().open(
        deed["path"],
        method=deed["method"],
        json=deed.get("body"),
        data=deed["data"].encode() if "data" in deed else None,
        headers={"Authorization": f"Bearer {deed['token']}", **deed.get("headers", {})},
    )
    return answer.status_code, answer.text[:2000]


def _arm(where: str, *, later: bool, victim: int) -> None:
    """Put the kill around the function that `where` names."""
    module_name, _, path = where.partition(":")
    holder: Any = importlib.import_module(f"airavata_scheduler.{module_name}")
    *classes, name = path.split(".")
    for attribute in classes:
        holder = getattr(holder, attribute)
    armed = [True]

    def strike() -> None:
        if armed.pop() if armed else False:
            os.kill(victim, signal.SIGKILL)

    setattr(holder, name, _around(getattr(holder, name), strike, later=later))


def _count_down(step: int) -> None:
    """Die before the step of that number of the connection to the database."""
    left = [step]

    def strike() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    # The object behind the proxy: the one through which every statement of ours goes.
    real: Any = database.database.obj
    real.execute_sql = _around(real.execute_sql, strike, later=False)
    real.commit = _around(_around(real.commit, strike, later=False), strike, later=True)


def _around(
    function: Callable[..., Any], strike: Callable[[], None], *, later: bool
) -> Callable[..., Any]:
    @functools.wraps(function)
    def struck(*args: Any, **kwargs: Any) -> Any:
        if not later:
            strike()
        result = function(*args, **kwargs)
        if later:
            strike()
        return result

    return struck


if __name__ == "__main__":
    _serve()
