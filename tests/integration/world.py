"""A small world for the tests of leases and flow: a user, a project, resources, agents.

Everything is made of rows and of the functions under test; nothing here knows about HTTP.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

from airavata_scheduler.models import flow, leases, sessions
from airavata_scheduler.models.counters import COUNTER_COLUMNS
from airavata_scheduler.models.database import change, execute, now_ms
from airavata_scheduler.models.function_file import read_function
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.lease_records import Claimed, Free, Grant, Report
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.wakeups import Wakeups

PLENTY = Free(cpu=1000, ram_mb=10**6, gpu=100)
_numbers = count(1)


def axis(values: int, name: str = "N") -> dict[str, Any]:
    """An axis with so many points."""
    return {
        "kind": "range",
        "names": [name],
        "type": "int",
        "start": 0,
        "step": 1,
        "scale": 1,
        "count": values,
    }


def node(name: str, own: int = 1, **fields: Any) -> NodeSpec:
    """A script node with `own` instances (per instance of its `foreach` parent)."""
    axes = [axis(own)] if own > 1 else []
    return NodeSpec(name=name, script="true", axes=axes, own=own, **fields)


class World:
    """One project with one compute resource, `here`, and as many agents as a test asks for."""

    def __init__(self) -> None:
        now = now_ms()
        self.user_id, self.project_id = new_id(), new_id()
        insert_rows(
            "users",
            ("id", "name", "is_admin", "state", "version", "created_at", "updated_at"),
            [(self.user_id, "ada", True, "active", 1, now, now)],
        )
        insert_rows(
            "projects",
            (
                "id",
                "name",
                "description",
                "owner_id",
                "state",
                "version",
                "created_at",
                "updated_at",
            ),
            [(self.project_id, "waves", "", self.user_id, "active", 1, now, now)],
        )
        self.compute_id = self.compute("here")
        self._claims = count(1)

    def compute(self, name: str, **limits: Any) -> str:
        """A compute resource that everybody may use; its id."""
        compute_id, now = new_id(), now_ms()
        insert_rows(
            "compute_resources",
            (
                *("id", "name", "kind", "description", "owner_id", "limits", "timers", "state"),
                *("price_per_core_hour", "version", "created_at", "updated_at"),
            ),
            [
                (
                    *(compute_id, name, "BARE_METAL", "", self.user_id, json.dumps(limits), "{}"),
                    *("active", 0, 1, now, now),
                )
            ],
        )
        return compute_id

    def agent(self, compute_id: str | None = None, **capabilities: Any) -> Agent:
        """An enrolled agent with an open session."""
        agent_id, now = new_id(), now_ms()
        insert_rows(
            "agents",
            (
                *("id", "compute_id", "name", "state", "secret_hash", "secret_set_at"),
                *("token_version", "host", "version_text", "capabilities", "policy", "swaps"),
                "created_at",
            ),
            [
                (
                    *(agent_id, compute_id or self.compute_id, f"agent-{next(_numbers)}", "active"),
                    *("0" * 64, now, 1, "{}", "", "{}", "{}", 0, now),
                )
            ],
        )
        return Agent(agent_id, {"cpu": 8, "ram_mb": 16384, "python": "3.11.7"} | capabilities)

    def create(self, *nodes: NodeSpec, **options: Any) -> str:
        """An experiment of these nodes, in state CREATED; its id."""
        return flow.create_experiment(
            project_id=self.project_id,
            owner_id=self.user_id,
            name="sweep",
            document={},
            source="",
            nodes=nodes,
            **options,
        )

    def run(self, *nodes: NodeSpec, **options: Any) -> str:
        """An experiment that was submitted and planned, with its first windows expanded."""
        experiment_id = self.create(*nodes, **options)
        flow.submit(experiment_id)
        work(flow.plan(experiment_id))
        return experiment_id

    def function(self, **spec: Any) -> str:
        """A registered function version; its id. `spec` is what a user would send."""
        python = {"entry": "square", "source": "def square(x):\n    return x * x\n"}
        stored = read_function({"kind": "python", "python": python} | spec, name="square")
        function_id, version_id, now = new_id(), new_id(), now_ms()
        insert_rows(
            "functions",
            (
                *("id", "project_id", "name", "latest_version", "owner_id", "state", "version"),
                *("created_at", "updated_at"),
            ),
            [(function_id, self.project_id, "square", 1, self.user_id, "active", 1, now, now)],
        )
        insert_rows(
            "function_versions",
            ("id", "function_id", "number", "spec", "created_by", "created_at"),
            [(version_id, function_id, 1, json.dumps(stored), self.user_id, now)],
        )
        return version_id


class Agent:
    """An agent as the server sees it; each instance is one start (`open`) of it."""

    def __init__(self, agent_id: str, capabilities: dict[str, Any]) -> None:
        self.id, self.capabilities = agent_id, capabilities
        self.seq = self.beats = 0
        self.session_id = ""
        self.open()

    def open(self, boot_id: str = "boot-1", **options: Any) -> sessions.Opened:
        """Open a new session."""
        opened = sessions.open_session(
            agent_id=self.id,
            boot_id=boot_id,
            state_folder_id="folder",
            version="0.1.0",
            capabilities=self.capabilities,
            policy={},
            **options,
        )
        self.session_id, self.seq, self.beats = opened.session_id, 0, 0
        return opened

    def claimed(
        self, limit: int = 500, free: Free = PLENTY, claim_id: str = "", **options: Any
    ) -> Claimed:
        """The whole answer to a new claim."""
        self.seq += 1
        return leases.claim(
            session_id=self.session_id,
            claim_id=claim_id or f"{self.session_id}/{self.seq}",
            seq=self.seq,
            max_tasks=limit,
            free=free,
            **options,
        )

    def claim(self, limit: int = 500, free: Free = PLENTY) -> list[Grant]:
        """The leases of a new claim; the jobs that follow are done at once."""
        answer = self.claimed(limit, free)
        work(answer.wakeups)
        return answer.grants

    def report(self, *reports: Report) -> list[str]:
        """The verdicts of a batch; the jobs that follow are done at once."""
        answer = leases.report(self.session_id, reports)
        work(answer.wakeups)
        return [verdict.verdict for verdict in answer.verdicts]

    def complete(self, grants: Sequence[Grant]) -> list[str]:
        """Report success for each lease."""
        return self.report(*[Report(lease=g.lease, outcome="completed") for g in grants])

    def fail(self, grants: Sequence[Grant]) -> list[str]:
        """Report a failure of the payload for each lease."""
        return self.report(*[failed(g) for g in grants])

    def beat(self, **options: Any) -> sessions.Beat:
        """One heartbeat."""
        self.beats += 1
        return sessions.heartbeat(session_id=self.session_id, seq=self.beats, **options)

    def work_off(self, experiment_id: str, limit: int = 100_000) -> None:
        """Claim and complete until nothing is left to claim."""
        for _ in range(limit):
            grants = self.claim()
            if not grants:
                return
            self.complete(grants)
        raise AssertionError(f"{experiment_id} never ran out of tasks")


def failed(grant: Grant) -> Report:
    """A failure of the payload itself."""
    return Report(
        lease=grant.lease,
        outcome="failed",
        failure_kind="user",
        failure_code="exit_nonzero",
        message="exit status 3",
        exit_code=3,
    )


def lost(grant: Grant) -> Report:
    """An attempt that died with its host."""
    return Report(
        lease=grant.lease,
        outcome="lost",
        failure_kind="infrastructure",
        failure_code="lost_host",
        message="the host was restarted",
    )


def work(wakeups: Wakeups) -> None:
    """Do the jobs that a transaction asked for, and those that follow, as the queue would."""
    todo = wakeups
    while todo.expand or todo.finish:
        again = Wakeups()
        for node_id in sorted(todo.expand):
            again.merge(flow.expand(node_id))
        for experiment_id in sorted(todo.finish):
            again.merge(flow.finish(experiment_id))
        todo = again


def reconcile() -> None:
    """Do everything that is due by SQL alone."""
    for job, object_id in flow.due_work():
        if job == "plan":
            work(flow.plan(object_id))
        elif job == "expand":
            work(flow.expand(object_id))
        else:
            work(flow.finish(object_id))


def available_now() -> None:
    """Let the time pass for which retries wait."""
    change("UPDATE tasks SET available_at = 0 WHERE state = 1")


def experiment_state(experiment_id: str) -> str:
    """The experiment's state."""
    return str(execute("SELECT state FROM experiments WHERE id = %s", [experiment_id])[0][0])


def counts(experiment_id: str, name: str | None = None) -> dict[str, int]:
    """The counters of an experiment (or of one node) that are not zero, with `waiting`."""
    total: Counter[str] = Counter()
    columns = ", ".join(COUNTER_COLUMNS)
    for row in execute(
        f"SELECT name, total, {columns} FROM nodes WHERE experiment_id = %s", [experiment_id]
    ):
        if name in (None, row[0]):
            total.update(dict(zip(COUNTER_COLUMNS, row[2:], strict=True)))
            total["waiting"] += row[1] - sum(row[2:])
    return {state: number for state, number in total.items() if number}


def check_counters() -> None:
    """Compare every node's counters with a real count of its rows, and look for lost timers.

    Rows count in the newest generation of their instance. What a retry reopened but did not make
    again yet is not counted; what ended in bulk has no row, so CANCELLED and SKIPPED counters may
    be higher.
    """
    columns = ", ".join(COUNTER_COLUMNS)
    for row in execute(f"SELECT id, name, total, generation, {columns} FROM nodes"):
        node_id, name, total, generation = row[:4]
        kept = dict(zip(COUNTER_COLUMNS, row[4:], strict=True))
        newest: dict[int, tuple[int, TaskState]] = {}
        for idx, made, state in execute(
            "SELECT idx, generation, state FROM tasks WHERE node_id = %s ORDER BY idx, generation",
            [node_id],
        ):
            newest[idx] = (made, TaskState(state))
        ended_before = (TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED)
        real = Counter(
            state.name.lower()
            for made, state in newest.values()
            if made == generation or state not in ended_before
        )
        for column in COUNTER_COLUMNS:
            said, counted = kept[column], real[column]
            if column in ("cancelled", "skipped"):
                assert said >= counted, f"{name}.{column}: {said} said, {counted} counted"
            else:
                assert said == counted, f"{name}.{column}: {said} said, {counted} counted"
        assert 0 <= sum(kept.values()) <= total, f"{name}: {kept} of {total}"
    assert flow.tasks_without_timer() == []
