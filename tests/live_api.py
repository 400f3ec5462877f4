"""The real application served over HTTP from this process: for real agents, on a real database.

Tests see both ends: the agent's processes and files, and the rows. Background work is done when a
test asks for it (`settle`), so nothing happens behind its back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from airavata_scheduler.models import flow, leases
from airavata_scheduler.models.database import change, connected, execute
from airavata_scheduler.models.states import TaskState
from tests.api import Api
from tests.wire_agent import Wire

_ENDED = tuple(int(state) for state in TaskState if state.is_terminal)
_NAMES = {state.value: state.name for state in TaskState}


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Silence."""


@dataclass(kw_only=True)
class LiveApi:
    """The application behind `url`, one compute resource, and one enrolment token for it."""

    site: Wire
    server: BaseWSGIServer
    enrolment_token: str
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        return f"http://127.0.0.1:{self.server.server_port}"

    def script(self, script: str, count: int = 1, **task: Any) -> list[str]:
        """Submit so many tasks that run `script`; their ids. An agent must be there."""
        experiment = self.site.submit(
            {
                "name": f"work-{next(self.numbers)}",
                "parameters": {"N": {"type": "int"}},
                "scripts": {"RUN": script},
                "tasks": {"run": {"script": "RUN", "task_inputs": {"N": f"1..{count}"}, **task}},
            }
        )
        rows = execute("SELECT id FROM tasks WHERE experiment_id = %s ORDER BY idx", [experiment])
        assert len(rows) == count
        return [row[0] for row in rows]

    def state(self, task_id: str) -> str:
        """The task's state, by its name."""
        with connected():
            rows = execute("SELECT state FROM tasks WHERE id = %s", [task_id])
        return _NAMES[rows[0][0]]

    def lease(self, task_id: str) -> str:
        """The task's newest lease."""
        with connected():
            rows = execute("SELECT id, attempt, lease_id FROM tasks WHERE id = %s", [task_id])
        return "{}.{}.{}".format(*rows[0])

    def done(self, *task_ids: str) -> bool:
        """Whether all of these tasks (default: every task) have ended."""
        with connected():
            rows = execute("SELECT id, state FROM tasks")
        return all(state in _ENDED for task, state in rows if not task_ids or task in task_ids)

    def attempts(self, task_id: str) -> list[tuple[int, str, str | None]]:
        """(number, outcome, failure code) of each attempt that has ended."""
        with connected():
            rows = execute(
                "SELECT number, outcome, failure_code FROM attempts WHERE task_id = %s "
                "ORDER BY number",
                [task_id],
            )
        return [(row[0], row[1], row[2]) for row in rows]

    def sessions(self) -> list[tuple[str, str | None]]:
        """(id, why it ended) of each session, the oldest first."""
        with connected():
            rows = execute("SELECT id, end_reason FROM agent_sessions ORDER BY started_at, id")
        return [(row[0], row[1]) for row in rows]

    def let_pass(self, seconds: float) -> None:
        """Pretend that nobody was heard of for so long, then sweep; retries need not wait."""
        change("UPDATE agent_sessions SET heartbeat_at = heartbeat_at - %s", [int(seconds * 1000)])
        leases.expire_sessions()
        self.hurry()

    def hurry(self) -> None:
        """Do what is due, and let the time pass for which retries wait."""
        for job, identity in flow.due_work():
            getattr(flow, job)(identity)
        change("UPDATE tasks SET available_at = 0 WHERE state = %s", [int(TaskState.QUEUED)])


@contextmanager
def live(api: Api) -> Iterator[LiveApi]:
    """Serve `api` on a free port of the loopback."""
    site = Wire.site(api)
    server = make_server("127.0.0.1", 0, api.app, threaded=True, request_handler=_Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield LiveApi(site=site, server=server, enrolment_token=site.new_token())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
