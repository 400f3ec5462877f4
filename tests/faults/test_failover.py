"""The database fails over while tasks run: on PostgreSQL and MariaDB, with and without loss.

A whole deployment (API, daemon, one agent) reaches its database at one address. The primary dies as
by a power cut, its standby is promoted, the address leads there, and nobody tells the scheduler.
Then all tasks must end, and the judge of the campaigns must find no promise broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.campaign.checker import reruns, task_of
from tests.campaign.notes import now
from tests.campaign.site import site
from tests.faults.under_load import AGENT, UnderLoad
from tests.servers.pairs import PAIRS, Kind, Pair
from tests.servers.programs import server_folder

pytestmark = pytest.mark.nightly

TASKS = 500
LOST_AT_LEAST = 40  # results that are acknowledged and that the standby does not have


@contextmanager
def loaded_pair(kind: Kind, *, synchronous: bool) -> Iterator[tuple[Pair, UnderLoad]]:
    """A deployment on a pair of databases; all that was submitted is on both.

    Where commits will be lost the agent has not begun: nothing of its work is on the standby.
    """
    with (
        server_folder("failover") as folder,
        PAIRS[kind](folder / "pair", synchronous=synchronous).running() as pair,
        site(folder, kind, url=pair.url, agents=(AGENT,)) as made,
        UnderLoad(site=made, tasks=TASKS, waits=not synchronous) as load,
    ):
        pair.wait_until_caught_up()
        yield pair, load


@pytest.mark.parametrize("kind", PAIRS)
def test_a_failover_that_loses_the_newest_commits(kind: Kind) -> None:
    """Every result that was acknowledged comes back, what was under way goes on, nothing reruns."""
    with loaded_pair(kind, synchronous=False) as (pair, load):
        cut = now()
        pair.cut_line()
        load.let_go()
        load.await_results(LOST_AT_LEAST, since=cut)
        pair.fail_over()
        # Before it nothing was taken over: what was acknowledged by then is lost.
        over = now()
        load.note("failover", t=over, lost=True)
    record = load.judged

    lost = {
        lease
        for event in record.of("judged")
        if cut < event["began"] and event["t"] < over
        for lease, verdict, outcome in event["items"]
        if (verdict, outcome) == ("accepted", "completed")
    }
    given = {
        lease
        for event in record.of("claimed")
        if cut < event["began"] and event["t"] < over
        for lease in event["leases"]
    }
    kept = {final["lease"] for final in record.of("final")}
    failed = {final["task"] for final in record.of("final") if final["failures"]}
    assert len(lost) >= LOST_AT_LEAST / 2
    assert lost <= kept
    # Leases of which the new primary knew nothing, most of which had not ended.
    assert given - lost
    assert {lease for lease in given if task_of(lease) not in failed} <= kept
    assert reruns(record) == 0


@pytest.mark.parametrize("kind", PAIRS)
def test_a_failover_that_loses_nothing(kind: Kind) -> None:
    """The standby had acknowledged every commit: all goes on, and no payload runs again."""
    with loaded_pair(kind, synchronous=True) as (pair, load):
        load.await_results(LOST_AT_LEAST)
        pair.fail_over()
        load.note("failover", lost=False)

    assert reruns(load.judged) == 0
