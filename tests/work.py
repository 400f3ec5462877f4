"""A site whose agent works by calling the lease functions: for tests of the routes about work.

site = Site.make("cluster")
experiment = ada.post("/experiments", {..., "submit": True}).json
site.settle()
lease = site.claim(1)[0]
site.complete(lease, outputs={"result.csv": b"1,2"})
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from airavata_scheduler.backends import stores
from airavata_scheduler.models import flow, leases, outbox, sessions
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.leases import Free, Grant, InlineLog, Report, ReportedArtifact
from airavata_scheduler.models.tables import (
    Agent,
    Artifact,
    ComputeResource,
    Experiment,
    User,
)

_numbers = count(1)
CAPABILITIES = {"cpu": 64, "ram_mb": 65_536, "gpu": 0, "features": [], "executors": ["process"]}
FREE = Free(cpu=64, ram_mb=65_536, gpu=0, disk_mb=10_000)


@dataclass(kw_only=True)
class Site:
    """One compute resource with one active agent and its session."""

    name: str
    compute_id: str
    agent_id: str
    session_id: str | None = None
    sequence: count[int] = field(default_factory=lambda: count(1))

    @classmethod
    def make(cls, name: str = "cluster", *, agent: bool = True, **columns: Any) -> Site:
        """A compute resource for everybody; with `agent`, one that has a session."""
        now = now_ms()
        owner = User.select(User.id).limit(1).tuples()[0][0]
        site = cls(name=name, compute_id=new_id(), agent_id=new_id())
        ComputeResource.insert(
            id=site.compute_id,
            name=name,
            kind="BARE_METAL",
            owner_id=owner,
            limits={},
            timers={},
            created_at=now,
            updated_at=now,
            **columns,
        ).execute()
        outbox.resource_changed(("compute_resource", site.compute_id), owner, None)
        if agent:
            site.enrol()
            site.start_session()
        return site

    def enrol(self, state: str = "active") -> None:
        """Enrol the agent, without a session."""
        now = now_ms()
        Agent.insert(
            id=self.agent_id,
            compute_id=self.compute_id,
            name=f"{self.name}-agent",
            state=state,
            secret_hash="0" * 64,
            secret_set_at=now,
            host={},
            capabilities=CAPABILITIES,
            policy={},
            created_at=now,
        ).execute()

    def start_session(self) -> None:
        """Begin a session of the agent."""
        opened = sessions.open_session(
            agent_id=self.agent_id,
            boot_id="boot",
            state_folder_id="folder",
            version="0.1.0",
            capabilities=CAPABILITIES,
            policy={},
        )
        self.session_id = opened.session_id

    def settle(self, rounds: int = 50) -> None:
        """Run the background jobs until nothing new is due."""
        before = None
        for _ in range(rounds):
            due = flow.due_work()
            # What is still due after it was done waits for agents.
            if not due or due == before:
                return
            before = due
            for job, identity in due:
                getattr(flow, job)(identity)
        raise AssertionError(f"background work does not end: {due}")

    def claim(self, most: int) -> list[Grant]:
        """Claim up to `most` tasks."""
        assert self.session_id is not None
        number = next(self.sequence)
        answer = leases.claim(
            session_id=self.session_id,
            claim_id=f"{self.name}-{number}",
            seq=number,
            max_tasks=most,
            free=FREE,
        )
        return answer.grants

    def start(self, *grants: Grant) -> None:
        """Pass the gate and say that the payloads run."""
        assert self.session_id is not None
        leases.start(self.session_id, [grant.lease for grant in grants])
        leases.mark(
            self.session_id, [leases.Mark(lease=grant.lease, phase="running") for grant in grants]
        )

    def upload(self, grant: Grant, output: str, path: str, data: bytes) -> ReportedArtifact:
        """Stage one output file."""
        storage_id = (
            Experiment.select(Experiment.storage_id)
            .where(Experiment.id == grant.experiment_id)
            .scalar()
        ) or stores.default_storage_id()
        key = stores.artifact_key(
            experiment_id=grant.experiment_id,
            node=grant.node,
            idx=grant.idx,
            attempt=grant.attempt,
            lease_id=grant.lease.lease_id,
            path=path,
        )
        stores.store(storage_id).put(key, [data])
        digest = hashlib.sha256(data).hexdigest()
        Artifact.insert(
            id=new_id(),
            experiment_id=grant.experiment_id,
            node_id=grant.node_id,
            idx=grant.idx,
            task_id=grant.task_id,
            lease_id=grant.lease.lease_id,
            attempt=grant.attempt,
            output=output,
            path=path,
            size=len(data),
            sha256=digest,
            storage_id=storage_id,
            storage_key=key,
            created_at=now_ms(),
        ).execute()
        return ReportedArtifact(output=output, path=path, size=len(data), sha256=digest)

    def log(self, grant: Grant, stream: str, data: bytes, offset: int = 0) -> int:
        """Append to a live log; the size after it."""
        key = stores.log_key(grant.task_id, grant.attempt, grant.lease.lease_id, stream)
        return stores.store(stores.default_storage_id()).append_at(key, offset, data)

    def complete(
        self,
        grant: Grant,
        *,
        outputs: Mapping[str, bytes] | None = None,
        result: dict[str, Any] | None = None,
        stdout: bytes | None = None,
    ) -> None:
        """Report success, with files by path."""
        files = tuple(
            self.upload(grant, "RESULT", path, data) for path, data in (outputs or {}).items()
        )
        self.report(
            Report(
                lease=grant.lease,
                outcome="completed",
                exit_code=0,
                artifacts=files,
                result=result,
                logs=_logs(stdout=stdout),
            )
        )

    def fail(self, grant: Grant, message: str = "exit status 3", stderr: bytes = b"") -> None:
        """Report a failure of the task itself."""
        self.report(
            Report(
                lease=grant.lease,
                outcome="failed",
                failure_kind="user",
                failure_code="exit_nonzero",
                message=message,
                exit_code=3,
                logs=_logs(stderr=stderr),
            )
        )

    def report(self, report: Report) -> None:
        """Report, and see that it was accepted."""
        assert self.session_id is not None
        done = leases.report(self.session_id, [report])
        assert done.verdicts[0].verdict == "accepted", done.verdicts


def _logs(**streams: bytes | None) -> tuple[InlineLog, ...]:
    return tuple(
        InlineLog(stream=name, size=len(data), data=data) for name, data in streams.items() if data
    )


def sweep(total: str = "1..3", **more: Any) -> dict[str, Any]:
    """The document of a small experiment: `simulate` over a range of seeds."""
    return {
        "name": f"sweep{next(_numbers)}",
        "parameters": {"SEED": {"type": "int"}, "RATE": {"type": "float", "default": 0.5}},
        "scripts": {"SIMULATE": 'echo "$SEED" > result.csv\n'},
        "tasks": {
            "simulate": {
                "script": "SIMULATE",
                "task_inputs": {"SEED": total},
                "task_outputs": {"RESULT": "result.csv"},
            }
        },
        **more,
    }
