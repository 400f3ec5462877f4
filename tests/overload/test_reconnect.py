"""The API was away, and everybody comes back in the same moment."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.campaign import outcome
from tests.campaign.checker import check
from tests.campaign.notes import Notes
from tests.campaign.record import read
from tests.campaign.site import Site, children_of, site
from tests.overload.fleet import Member, fleet, pretty, submit
from tests.servers.programs import server_folder

pytestmark = pytest.mark.nightly  # the machine for itself
SIZES = [
    pytest.param(300, 30.0, id="300"),
    pytest.param(2000, 120.0, id="2000"),
]


@pytest.fixture
def deployed() -> Iterator[Site]:
    """A deployment without agents."""
    with (
        server_folder("reconnect") as folder,
        site(
            folder, "postgresql", agents=(), HEARTBEAT="5s", REQUEUE_AFTER="90s", OFFER_ACK="300s"
        ) as made,
    ):
        outcome.look_at(made.database_url)
        yield made


@pytest.mark.parametrize(("count", "within_s"), SIZES)
def test_all_sessions_come_back_at_once(deployed: Site, count: int, within_s: float) -> None:
    """Each opens a session again and is heard within the time; no lease expires, none is lost."""
    members, seen = fleet(deployed, count)
    submit(deployed, count)

    took_s = asyncio.run(away_and_back(deployed, members))

    said = f"{count} were back in {took_s:.1f} s; {pretty(seen)}"
    outcome.note_all(Notes(deployed.histories, "outcome"), set())
    record = read(deployed.histories, deployed.ledger)
    assert [str(fault) for fault in check(record)] == [], said
    assert not any(record.of("expired")), said
    assert (seen.accepted, seen.lost_sessions) == (count, []), said
    assert took_s < within_s, said


async def away_and_back(made: Site, members: list[Member]) -> float:
    """Every agent holds a lease while the API is killed; the seconds until all are back."""
    await asyncio.gather(*(take_one(member) for member in members))
    kill_api(made)
    for member in members:
        member.drop()
    await asyncio.to_thread(made.parts["api"].start)
    await asyncio.to_thread(made.deployment.wait_until_it_answers)
    began = time.monotonic()
    await asyncio.gather(*(come_back(member) for member in members))
    took_s = time.monotonic() - began
    await asyncio.gather(*(member.report(lease) for member in members for lease in member.held))
    for member in members:
        member.drop()
    await asyncio.sleep(0)
    return took_s


async def take_one(member: Member) -> None:
    """Open a session, claim one task and start it."""
    await member.begin()
    while not member.held:
        for lease in await member.claim(1):
            await member.start(lease)


async def come_back(member: Member) -> None:
    """A new session with what is held, then a heartbeat that is answered."""
    await member.begin()
    while not await member.beat():
        await asyncio.sleep(1.0)


def kill_api(made: Site) -> None:
    """As by a power cut: all its processes at once."""
    part = made.parts["api"]
    workers = children_of(part.pid)
    os.kill(part.pid, signal.SIGKILL)
    for worker in workers:
        worker.kill()
    made.deployment.processes = [
        process for process in made.deployment.processes if process.pid != part.pid
    ]
