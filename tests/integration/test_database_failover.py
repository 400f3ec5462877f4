"""A standby takes over, really: what it lacks comes back from the agents, from their first word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import deployment, epoch, leases, migrations
from airavata_scheduler.models.lease_records import Report
from tests.integration.world import World, node
from tests.servers.pairs import PAIRS, Kind, Pair
from tests.servers.programs import server_folder
from tests.waiting import wait_until


@contextmanager
def pair_of(kind: Kind, *, synchronous: bool) -> Iterator[Pair]:
    """A pair with our tables, bound."""
    with (
        server_folder(f"{kind}-pair") as folder,
        PAIRS[kind](folder, synchronous=synchronous).running() as made,
    ):
        db.connect(made.url)
        migrations.upgrade()
        epoch.tick()
        yield made
        db.disconnect()


def fail_over(pair: Pair) -> None:
    """Let the standby take over, and wait until it answers."""
    pair.fail_over()
    wait_until(_answers, message="the new primary")


def _answers() -> bool:
    try:
        db.checked_connection()
    except db.ConnectionLost:
        return False
    return True


@pytest.mark.parametrize("kind", PAIRS)
def test_commits_that_only_the_primary_had(kind: Kind) -> None:
    """The first call of an agent is judged in the new epoch: no sweep has to come before it.

    An acknowledged result and a lease that the new primary does not know are both taken back.
    """
    with pair_of(kind, synchronous=False) as pair:
        world = World()
        agent = world.agent()
        world.run(node("simulate", 2))
        before = epoch.current()
        pair.wait_until_caught_up()
        pair.cut_line()
        done, held = (grant.lease for grant in agent.claim(2))
        report = Report(lease=done, outcome="completed")
        assert agent.report(report) == ["accepted"]
        assert epoch.current() == before

        fail_over(pair)

        assert agent.report(report) == ["accepted"]
        assert leases.reconcile_session(agent.session_id, [(held, None)], ()).verdicts == ["keep"]
        assert epoch.current() != before
        assert epoch.in_grace()
        assert epoch.tick()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", PAIRS)
def test_commits_that_the_standby_acknowledged(kind: Kind) -> None:
    """They are all there; the epoch changes nevertheless, for nobody can tell by looking."""
    with pair_of(kind, synchronous=True) as pair:
        before = epoch.current()
        deployment.write("newest", "1")

        fail_over(pair)

        assert deployment.read("newest") == "1"
        assert epoch.current() != before
