"""Leases that a request names are taken up one after the other. On every database."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airavata_scheduler.models import epoch, leases
from airavata_scheduler.models.database import change, execute
from airavata_scheduler.models.ids import new_lease_id
from airavata_scheduler.models.lease_records import LeaseName, Mark
from tests.integration.world import (
    Agent,
    World,
    available_now,
    check_counters,
    counts,
    failed,
    node,
    work,
)

pytestmark = pytest.mark.usefixtures("fresh_database")

Ask = Callable[[Agent, list[LeaseName]], list[str]]


def gate(agent: Agent, names: list[LeaseName]) -> list[str]:
    """Ask to start these leases."""
    return [*leases.start(agent.session_id, names).verdicts]


def full_list(agent: Agent, names: list[LeaseName]) -> list[str]:
    """Say that these leases run."""
    return [*agent.open(leases=[(name, "running") for name in names]).verdicts]


both_ways = pytest.mark.parametrize("ask", [gate, full_list])


def fail_over() -> None:
    """Minutes later the database loses commits: what is not on the rows now was lost."""
    change("UPDATE tasks SET created_at = created_at - 60000, leased_at = leased_at - 60000")
    epoch.bump("restored from a backup")


def row() -> tuple[str, int]:
    """Which lease the one task's row names."""
    lease_id, attempt = execute("SELECT lease_id, attempt FROM tasks")[0]
    return lease_id, attempt


def forgotten(attempt: int) -> LeaseName:
    """A lease of the one task of which the database does not know any more."""
    return LeaseName(execute("SELECT id FROM tasks")[0][0], attempt, new_lease_id())


def test_a_later_phase_in_the_same_heartbeat_is_not_taken_back() -> None:
    """`finalizing`, and late in the same batch `running`: the payload has ended all the same."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    lease = agent.claim(1)[0].lease

    agent.beat(marks=[Mark(lease=lease, phase=phase) for phase in ("finalizing", "running")])

    assert counts(experiment_id) == {"finalizing": 1}
    check_counters()


@both_ways
@pytest.mark.parametrize("order", [1, -1])
def test_of_two_forgotten_leases_the_later_one_is_taken_up(ask: Ask, order: int) -> None:
    """Two payloads of one task never get leave to run by one answer."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1))
    fail_over()
    first, second = forgotten(1), forgotten(2)

    verdicts = ask(agent, [first, second][::order])

    assert verdicts[::order] == ["superseded", "ok" if ask is gate else "keep"]
    assert row() == (second.lease_id, 2)
    check_counters()


@both_ways
def test_a_later_forgotten_lease_takes_the_task_from_one_that_runs_on_the_row(ask: Ask) -> None:
    """Whoever hears `ok` or `keep` holds the task from then on."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1))
    earlier = agent.claim(1)[0].lease
    leases.start(agent.session_id, [earlier])
    agent.beat(marks=[Mark(lease=earlier, phase="running")])
    fail_over()
    later = forgotten(2)

    assert ask(agent, [later]) == ["ok" if ask is gate else "keep"]

    assert row() == (later.lease_id, 2)
    assert gate(agent, [earlier]) == ["superseded"]
    check_counters()


@both_ways
def test_a_lease_that_was_reported_is_not_taken_up_again_after_a_failover(ask: Ask) -> None:
    """A late request, or a state folder of before, would leave a lease that can never end."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1, retries=2))
    grant = agent.claim(1)[0]
    assert agent.report(failed(grant)) == ["accepted"]
    fail_over()

    assert ask(agent, [grant.lease]) == ["superseded"]

    assert leases.truth(agent.session_id, grant.lease).verdict == "superseded"
    available_now()
    change("UPDATE agent_sessions SET heartbeat_at = 0")
    change("UPDATE deployment SET value = '1' WHERE name = 'grace_until'")
    epoch.tick(grace_s=0)
    work(leases.expire_sessions())
    assert counts(experiment_id) == {"queued": 1}
    check_counters()
