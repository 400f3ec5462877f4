"""A new epoch: older tasks wait until the agents have told what it forgot. On every database."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airavata_scheduler.models import epoch, sessions
from airavata_scheduler.models.database import change, execute
from airavata_scheduler.models.lease_records import Mark, Phase, Report
from airavata_scheduler.models.states import TaskState
from tests.integration.world import Agent, World, check_counters, node, work

pytestmark = pytest.mark.usefixtures("fresh_database")


@pytest.fixture
def world() -> World:
    """A world with a sweep whose tasks are older than the present epoch."""
    made = World()
    epoch.tick()
    return made


def lose_commits(world: World, count: int = 3) -> None:
    """So many tasks are there, and then the database loses its newest commits."""
    world.run(node("simulate", count))
    epoch.bump("restored from a backup")
    change("UPDATE tasks SET created_at = created_at - 1000")


def has_told(agent: Agent, **more: object) -> None:
    """The agent says that it has reported everything again."""
    work(agent.beat(settled=epoch.current(), **more).wakeups)


def test_older_tasks_wait_for_every_agent_that_was_there(world: World) -> None:
    """Until the last of them has told everything nobody is given one, then everybody."""
    agent, other = world.agent(), world.agent()
    lose_commits(world)

    assert agent.claim() == []
    has_told(agent)
    assert agent.claim() == []
    beat = other.beat(settled=epoch.current())

    assert beat.wakeups.computes == {world.compute_id}
    assert len(agent.claim(1)) == 1
    assert len(other.claim(1)) == 1


def test_an_epoch_that_was_told_before_does_not_count(world: World) -> None:
    """An agent that is still in the epoch before has everything to tell."""
    agent = world.agent()
    has_told(agent)
    lose_commits(world)

    assert agent.beat(settled="another epoch").wakeups.computes == set()
    assert agent.claim() == []


def test_a_task_that_is_newer_than_the_loss_does_not_wait(world: World) -> None:
    """Nothing can have been lost of it."""
    agent, _other = world.agent(), world.agent()
    lose_commits(world)
    world.run(node("later", 1))
    (later,) = execute("SELECT id FROM nodes WHERE name = 'later'")
    change("UPDATE tasks SET created_at = created_at + 2000 WHERE node_id = %s", later)

    assert [grant.node for grant in agent.claim()] == ["later"]


def test_nobody_waits_for_agents_that_are_gone_or_elsewhere(world: World) -> None:
    """Stopped, long silent already when the commits were lost, or of another resource."""
    agent = world.agent()
    stopped, silent = world.agent(), world.agent()
    world.agent(world.compute("there"))
    sessions.end_session(stopped.session_id)
    change(
        "UPDATE agent_sessions SET heartbeat_at = heartbeat_at - 91000 WHERE id = %s",
        [silent.session_id],
    )
    lose_commits(world)
    has_told(agent)

    assert len(agent.claim(1)) == 1


def test_an_outage_does_not_make_agents_silent(world: World) -> None:
    """Who was there at the last sign of life is waited for, however long ago that was."""
    agent, _other = world.agent(), world.agent()
    for table, column in (("agent_sessions", "heartbeat_at"), ("deployment", "at")):
        change(f"UPDATE {table} SET {column} = {column} - 3600000")
    change("UPDATE deployment SET value = %s WHERE name = 'sweep_tick'", [str(ticked() - 3600000)])
    lose_commits(world)
    has_told(agent)

    assert agent.claim() == []


def ticked() -> int:
    """When the sweep was there the last time, in ms."""
    return int(execute("SELECT value FROM deployment WHERE name = 'sweep_tick'")[0][0])


def test_an_agent_that_does_not_come_back_is_waited_for_no_longer(world: World) -> None:
    """`hold_s` (OUTAGE_GRACE) bounds it; 0 turns it off."""
    agent, _gone = world.agent(), world.agent()
    lose_commits(world)
    has_told(agent)

    assert agent.claimed(1, hold_s=0).grants
    assert agent.claim() == []
    change("UPDATE deployment SET at = at - 300001 WHERE name = 'epoch_began'")
    assert len(agent.claim(1)) == 1


def test_an_agent_that_starts_now_holds_up_nobody_unless_it_has_something_to_tell(
    world: World,
) -> None:
    """One without any acknowledged result has told everything."""
    agent = world.agent()
    lose_commits(world)
    has_told(agent)
    new, back = world.agent(), world.agent()
    new.open(settled="")
    back.open(settled=epoch.current())
    assert len(new.claim(1)) == 1
    back.open(settled="the epoch before")

    assert agent.claim(1) == []
    has_told(back)
    assert len(agent.claim(1)) == 1


def test_the_first_epoch_holds_up_nothing(world: World) -> None:
    """Agents of a new deployment need not say anything."""
    agent = world.agent()
    world.run(node("simulate", 3))

    assert len(agent.claim()) == 3


def told_before_the_loss(world: World, agent: Agent) -> Report:
    """A result that was acknowledged: the lost commits had it, and the row shows its lease."""
    world.run(node("simulate", 1))
    (grant,) = agent.claim(1)
    change("UPDATE tasks SET leased_at = leased_at - 120000, created_at = created_at - 120000")
    return Report(lease=grant.lease, outcome="completed")


@pytest.mark.parametrize("phase", [None, "running"])
def test_a_lease_whose_report_the_database_forgot_waits_for_it(
    world: World, phase: Phase | None
) -> None:
    """Its agent does not list it any more: it is not given back before all has been told (I3)."""
    agent = world.agent()
    report = told_before_the_loss(world, agent)
    if phase is not None:
        agent.beat(marks=[Mark(lease=report.lease, phase=phase)])
    before = epoch.current()
    epoch.bump("restored from a backup")

    agent.open(settled=before)
    agent.beat(full=[], settled=before)

    assert agent.report(report) == ["accepted"]
    has_told(agent, full=[])
    assert execute("SELECT state, lease_id FROM tasks") == [
        (TaskState.COMPLETED, report.lease.lease_id)
    ]
    check_counters()


@pytest.mark.parametrize("how", ["a new session", "a heartbeat"])
def test_a_lease_that_is_not_told_of_goes_back_when_all_is_told(world: World, how: str) -> None:
    """The agent had never received it, or its journal is gone."""
    agent = world.agent()
    told_before_the_loss(world, agent)
    before = epoch.current()
    epoch.bump("restored from a backup")
    agent.beat(full=[], settled=before)
    assert states() == [TaskState.LEASED]

    if how == "a heartbeat":
        has_told(agent, full=[])
    else:
        agent.open(settled="")  # a new journal: nothing was ever acknowledged to it

    assert states() == [TaskState.QUEUED]
    check_counters()


def test_a_lease_of_the_present_epoch_does_not_wait(world: World) -> None:
    """Its claim is known, so its report cannot have been forgotten."""
    agent = world.agent()
    before = epoch.current()
    epoch.bump("restored from a backup")
    world.run(node("simulate", 1))
    agent.claim(1)

    agent.open(settled=before)

    assert states() == [TaskState.QUEUED]


def test_an_epoch_that_another_process_has_begun_counts_at_once(
    world: World, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this one remembers of the epoch is looked up only every few seconds."""
    monkeypatch.setattr(epoch, "CACHE_S", 3600.0)
    agent, other = world.agent(), world.agent()
    world.run(node("simulate", 2))
    change("UPDATE tasks SET created_at = created_at - 1000")
    before = epoch.current()
    for one in (agent, other):
        one.beat(settled=before)

    bump_elsewhere(fresh_database)

    assert epoch.current() == before
    assert agent.claim(1) == []


def states() -> list[int]:
    """The states of all tasks."""
    return [row[0] for row in execute("SELECT state FROM tasks")]


def bump_elsewhere(url: str) -> None:
    """Another process begins a new epoch in the same database."""
    script = (
        "import sys; from airavata_scheduler.models import database, epoch;"
        "database.connect(sys.argv[1]); epoch.bump('restored from a backup')"
    )
    subprocess.run([sys.executable, "-c", script, url], check=True)
