"""Thousands of agents in one process, each with a session, heartbeats and work of its own.

They speak the wire of the real agent and keep its manners (back-off with full jitter, Retry-After,
the interval that the server sends), but run nothing: a payload is a line in the ledger.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airavata_scheduler.models.database import execute, now_ms, transaction
from airavata_scheduler.models.ids import new_id, secret_digest
from airavata_scheduler.models.tables_resources import Agent as AgentRow
from tests.campaign import outcome
from tests.campaign.notes import Notes
from tests.campaign.site import COMPUTE, PROJECT, Site
from tests.overload.wire import Answer, Line, back_off
from tests.waiting import wait_until
from tests.wire_agent import digest_header

BASE = "/agent/v1"
Json = dict[str, Any]


@dataclass
class Seen:
    """What the whole fleet saw."""

    heartbeats: list[float] = field(default_factory=list)  # seconds that each took
    lost_heartbeats: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)  # by path
    lost_sessions: list[str] = field(default_factory=list)
    accepted: int = 0


@dataclass(kw_only=True)
class Member:
    """One agent."""

    id: str
    secret: str
    line: Line  # for heartbeats and reports
    slow: Line  # for claims, starts and logs
    note: Notes
    ledger: Path
    seen: Seen
    dice: random.Random
    is_forgiving: bool = True  # whether a heartbeat that nobody answers is no fault
    leaving: bool = False  # ends what it has begun, and claims no more
    token: str = ""
    session: str = ""
    interval_s: float = 15.0
    confirmed_at: float = 0.0  # monotonic second of the latest heartbeat that was answered
    held: dict[str, str] = field(default_factory=dict)  # lease → phase
    _beats: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _claims: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def begin(self) -> None:
        """Get a token and open a session, with the full list of what is held."""
        answer = await self._persist(
            self.line, "POST", "/token", {"agent_id": self.id, "secret": self.secret}
        )
        self.token, self.session = answer["access_token"], ""
        leases = [{"lease": lease, "phase": phase} for lease, phase in self.held.items()]
        body = {
            "boot_id": "boot-1",
            "state_folder_id": self.id,
            "version": "0.1.0",
            "capabilities": {"cpu": 4, "ram_mb": 8192, "gpu": 0, "disk_mb": 100_000},
            "mode": "normal",
            "leases": leases,
        }
        answer = await self._persist(self.line, "POST", "/session", body)
        self.session = answer["session_id"]
        self.interval_s = answer["timers"]["heartbeat_s"]
        self._beats, self._claims = itertools.count(1), itertools.count(1)

    async def beat(self) -> bool:
        """One heartbeat; whether it was answered."""
        body: Json = {"seq": next(self._beats), "epoch": None, "deltas": [], "full": None}
        began = time.monotonic()
        try:
            answer = await self._ask(self.line, "POST", "/heartbeat", body)
        except OSError as error:
            if not self.is_forgiving:
                self.seen.lost_heartbeats.append(str(error))
            return False
        if answer.status == 200:
            self.seen.heartbeats.append(time.monotonic() - began)
            self.interval_s = answer.json()["interval_s"]
            self.confirmed_at = began
            return True
        said = f"{answer.status} {answer.body[:200]!r}"
        if answer.status == 409 or not self.is_forgiving:
            self.seen.lost_heartbeats.append(said)
        return False

    async def keep_beating(self) -> None:
        """Heartbeats until the task is cancelled."""
        tries = 0
        while True:
            if await self.beat():
                tries = 0
                await asyncio.sleep(self.interval_s * self.dice.uniform(0.8, 1.2))
            else:
                await back_off(self.dice, tries, None)
                tries += 1

    async def work(self, *, pause_s: float = 0.0) -> None:
        """Claim, start, tell a line of log and report, one task at a time, until `leaving`."""
        while not self.leaving:
            for lease in await self.claim(1, wait_s=5.0):
                await self.start(lease)
                await self.log(lease, b"a line\n")
                await asyncio.sleep(pause_s)
                await self.report(lease)

    async def claim(self, most: int, wait_s: float = 0.0) -> list[str]:
        """Leases, perhaps none."""
        free = {"cpu": most, "ram_mb": 65_536, "gpu": 0, "disk_mb": 100_000}
        claim_id, number = secrets.token_hex(16), next(self._claims)
        body = {"claim_id": claim_id, "seq": number, "max": most, "free": free, "wait_s": wait_s}
        answer = await self._persist(self.slow, "POST", "/leases/claim", body)
        leases = [lease["lease"] for lease in answer["leases"]]
        self.held.update(dict.fromkeys(leases, "leased"))
        if leases:
            self.note("granted", leases=leases)
        else:
            await asyncio.sleep(max(0.2, answer["poll_s"]))
        return leases

    async def start(self, lease: str) -> None:
        """Pass the gate and write the payload's lines."""
        await self._persist(self.slow, "POST", "/leases/start", {"leases": [lease]})
        self.held[lease] = "running"
        self.note("launched", leases=[lease])
        self._write(f"start {lease}")

    async def log(self, lease: str, data: bytes) -> None:
        """The only chunk of its standard output."""
        await self._persist(
            self.slow,
            "PATCH",
            f"/leases/{lease}/log/stdout",
            data,
            {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"bytes 0-{len(data) - 1}/*",
                "Content-Digest": digest_header(data),
            },
        )

    async def report(self, lease: str) -> str:
        """Report success; the verdict."""
        self._write(f"end {lease}")
        self.note("exited", leases=[lease])
        item = {"lease": lease, "outcome": "completed", "exit_code": 0, "duration_s": 0.1}
        self.note("reported", items=[[lease, "completed"]])
        answer = await self._persist(self.line, "POST", "/reports", {"items": [item]})
        verdict = str(answer["items"][0]["verdict"])
        self.note("answered", items=[[lease, verdict]])
        self.seen.accepted += verdict == "accepted"
        self.held.pop(lease, None)
        return verdict

    def drop(self) -> None:
        """Lose both connections."""
        self.line.close()
        self.slow.close()

    async def _persist(
        self, line: Line, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> Json:
        """Ask until it is answered, with the agent's manners."""
        tries = 0
        while True:
            asked_s: float | None = None
            try:
                answer = await self._ask(line, method, path, body, headers)
            except OSError:
                pass
            else:
                if answer.status < 300:
                    return answer.json() if answer.body else {}
                asked_s = answer.retry_after_s
                kind = path.rsplit("/", 1)[-1]
                if answer.status < 500:
                    self.seen.lost_sessions.append(f"{path}: {answer.status} {answer.body!r}")
                    await asyncio.get_running_loop().create_future()  # until it is cancelled
                self.seen.refused[kind] = self.seen.refused.get(kind, 0) + 1
            await back_off(self.dice, tries, asked_s)
            tries += 1

    async def _ask(
        self, line: Line, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        if self.session:
            sent["X-Agent-Session"] = self.session
        return await line.ask(method, BASE + path, body, sent)

    def _write(self, text: str) -> None:
        with self.ledger.open("a") as file:
            file.write(text + "\n")


def fleet(site: Site, count: int, seed: int = 1) -> tuple[list[Member], Seen]:
    """So many enrolled agents of the site's compute resource; their rows are written at once."""
    url = urlsplit(site.deployment.url)
    host, port = url.hostname or "", url.port or 80
    note, seen = Notes(site.histories, "fleet"), Seen()
    compute_id = execute("SELECT id FROM compute_resources WHERE name = %s", [COMPUTE])[0][0]
    members = [
        Member(
            id=new_id(),
            secret="asa_" + secrets.token_urlsafe(32),
            line=Line(host, port),
            slow=Line(host, port, timeout_s=35.0),
            note=note,
            ledger=site.ledger,
            seen=seen,
            dice=random.Random(f"{seed}-{number}"),
        )
        for number in range(count)
    ]
    with transaction():
        at = now_ms()
        for start in range(0, count, 500):
            AgentRow.insert_many(
                [_row(one, compute_id, at) for one in members[start : start + 500]]
            ).execute()
    return members, seen


def _row(member: Member, compute_id: str, at: int) -> Json:
    return {
        "id": member.id,
        "compute_id": compute_id,
        "name": f"sim-{member.id}",
        "state": "active",
        "secret_hash": secret_digest(member.secret),
        "secret_set_at": at,
        "host": {},
        "version_text": "0.1.0",
        "capabilities": {},
        "policy": {},
        "created_at": at,
        "enrolled_at": at,
    }


def pretty(seen: Seen) -> str:
    """What the fleet saw, for a failure's message."""
    slowest = max(seen.heartbeats, default=0.0)
    return json.dumps(
        {
            "heartbeats": len(seen.heartbeats),
            "slowest_s": round(slowest, 2),
            "refused": seen.refused,
            "accepted": seen.accepted,
        }
    )


def submit(made: Site, tasks: int) -> None:
    """One experiment of so many tasks; all of them can be claimed afterwards."""
    path = Path(made.folder) / "sweep.yml"
    path.write_text(
        "name: sweep\nparameters:\n  N: {type: int}\nscripts:\n  DO: 'true'\n"
        f"tasks:\n  do: {{script: DO, task_inputs: {{N: 1..{tasks}}}}}\n"
    )
    with made.client() as client:
        experiment = client.experiments.submit_file(path, project=PROJECT)
    note = Notes(made.histories, "test")
    note("submitted", tasks=[], experiment=experiment.id, count=tasks)
    least = min(tasks, 2000)  # SWEEP_WINDOW
    wait_until(lambda: outcome.open_tasks() >= least, timeout_s=60, message="tasks that wait")
