"""Five times what the machine can do: what is refused, what never is, and how soon it is over."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest

from tests.acceptance.deployment import PASSWORD
from tests.campaign import outcome
from tests.campaign.checker import check
from tests.campaign.notes import Notes
from tests.campaign.record import read
from tests.campaign.site import Site, children_of, site
from tests.overload.fleet import BASE, Member, Seen, fleet, pretty, submit
from tests.overload.flood import Ask, Flood, capacity, flood
from tests.overload.wire import Answer, Line
from tests.servers.programs import server_folder

AGENTS = 60
TASKS = 2000  # no more than are queued at a time
TIMES = 5.0
PLAIN_S = 5
RECOVERS_WITHIN_S = 30.0
GROWS_BY_MB = 200.0  # both processes: bodies, threads and connections of a flood
# What the machine can do is measured: it has to do nothing else meanwhile.
pytestmark = pytest.mark.nightly
LENGTHS = [pytest.param(20.0, id="seconds"), pytest.param(240.0, id="minutes")]


@pytest.fixture
def loaded() -> Iterator[tuple[Site, list[Member], Seen]]:
    """A deployment with tasks that wait, and agents that are enrolled but not there yet."""
    with (
        server_folder("overload") as folder,
        site(folder, "postgresql", agents=(), HEARTBEAT="5s") as made,
    ):
        outcome.look_at(made.database_url)
        members, seen = fleet(made, AGENTS)
        submit(made, TASKS)
        yield made, members, seen


@dataclass
class Users:
    """Many users' and agents' programs without manners, over connections of their own."""

    made: Site
    member: Member

    def __post_init__(self) -> None:
        said = {"username": "ada", "password": PASSWORD}
        answer = httpx.post(f"{self.made.deployment.url}/api/v1/auth/login", json=said)
        self.token = answer.raise_for_status().json()["access_token"]
        host, port = self.member.line.host, self.member.line.port
        self._all = [Line(host, port, 60.0) for _ in range(300)]
        self._lines = itertools.cycle(self._all)

    def leave(self) -> None:
        """Close every connection."""
        for line in self._all:
            line.close()

    async def read(self) -> Answer:
        """What a dashboard asks all the time."""
        return await self._ask("GET", "/api/v1/experiments?limit=20", None, self.token)

    async def claim(self) -> Answer:
        """A claim that waits for nothing."""
        body = {"claim_id": secrets.token_hex(8), "seq": 0, "max": 0, "wait_s": 0}
        return await self._ask("POST", f"{BASE}/leases/claim", body, self.member.token)

    async def start(self) -> Answer:
        """A start of a lease that is nobody's."""
        return await self._ask(
            "POST", f"{BASE}/leases/start", {"leases": ["none"]}, self.member.token
        )

    async def _ask(self, method: str, path: str, body: object, token: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "X-Agent-Session": self.member.session}
        return await next(self._lines).ask(method, path, body, headers)


def memory_mb(made: Site) -> float:
    """What the API's processes hold."""
    api = made.parts["api"].pid
    processes = [psutil.Process(api), *children_of(api)]
    return float(sum(process.memory_info().rss for process in processes)) / 2**20


@pytest.mark.parametrize("seconds", LENGTHS)
def test_five_times_what_the_machine_can_do(
    loaded: tuple[Site, list[Member], Seen], seconds: float
) -> None:
    """Reads go first, then claims, then starts; no heartbeat or result is lost, nothing expires.

    Memory stays within bounds, and within 30 s of its end everybody is served as before.
    """
    made, members, seen = loaded
    before = memory_mb(made)

    found, plain, recovered_s = asyncio.run(flooded(made, members, seen, seconds))

    said = f"{found} {plain:.0f}/s {pretty(seen)} recovered in {recovered_s:.1f} s"
    after = memory_mb(made)
    said += f"; {before:.0f} MB, then {after:.0f} MB"
    outcome.note_all(Notes(made.histories, "outcome"), set())
    broken = [str(fault) for fault in check(read(made.histories, made.ledger))]
    assert [fault for fault in broken if not fault.startswith("stuck_task")] == [], said
    assert not any(read(made.histories, made.ledger).of("expired"))
    assert seen.lost_heartbeats == []
    assert seen.lost_sessions == []
    assert found.count(200) + found.count(503) == sum(found.answers.values()), said
    assert found.count(503, "read") > 0, said
    assert found.no_retry_after == 0
    assert found.share_refused("read") >= found.share_refused("claim"), said
    assert found.share_refused("claim") >= found.share_refused("start"), said
    assert max(seen.heartbeats) < 10.0, said
    assert recovered_s < RECOVERS_WITHIN_S, said
    assert after - before < GROWS_BY_MB, said


async def flooded(
    made: Site, members: list[Member], seen: Seen, seconds: float
) -> tuple[Flood, float, float]:
    """The flood, what the machine does without it, and the seconds until that is so again."""
    await asyncio.gather(*(member.begin() for member in members))
    for member in members:
        member.is_forgiving = False
    users = Users(made, members[0])
    beating = [asyncio.create_task(member.keep_beating()) for member in members]
    # The best of some seconds: the machine may have had something else to do in others.
    plain = max([await capacity(users.read, seconds=1.0) for _ in range(PLAIN_S)])
    working = [asyncio.create_task(member.work()) for member in members[1:]]
    asks: dict[str, Ask] = {"read": users.read, "claim": users.claim, "start": users.start}
    found = await flood(asks, rate=TIMES * plain, seconds=seconds)
    over = time.monotonic()
    while not await is_served(users.read):
        assert time.monotonic() - over < 120.0
    recovered_s = time.monotonic() - over
    for member in members:
        member.leaving = True
    await asyncio.wait_for(asyncio.gather(*working), 60.0)
    for task in beating:
        task.cancel()
    for task in beating:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    users.leave()
    for member in members:
        member.drop()
    await asyncio.sleep(0)
    return found, plain, recovered_s


async def is_served(ask: Ask) -> bool:
    """Whether ten requests in a row are answered, each within a second."""
    for _ in range(10):
        began = time.monotonic()
        answer = await ask()
        if answer.status != 200 or time.monotonic() - began > 1.0:
            return False
    return True
