"""Agent sessions: opening, superseding, heartbeats, reconciling, revoking. On every database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import reduce
from threading import Thread

import pytest

from airavata_scheduler.models import leases, patience, sessions
from airavata_scheduler.models.database import change, connected, dialect, execute, now_ms
from airavata_scheduler.models.errors import Conflict, Forbidden, NotFound, Unauthenticated
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.lease_records import Grant, Mark, Report
from airavata_scheduler.models.task_rows import TaskRow, lock_tasks
from tests.integration.world import Agent, World, available_now, check_counters, counts, node, work

pytestmark = pytest.mark.usefixtures("fresh_database")


def digest(grants: list[Grant]) -> tuple[int, str]:
    """What an agent sends to say that it holds these leases."""
    xor = reduce(lambda seen, g: seen ^ int(g.lease.lease_id, 16), grants, 0)
    return len(grants), f"{xor:x}"


def fall_silent(agent: Agent) -> None:
    """Let the agent's session expire."""
    change("UPDATE agent_sessions SET heartbeat_at = 0 WHERE id = %s", [agent.session_id])
    work(leases.expire_sessions())


def test_a_new_session_takes_the_leases_of_the_old_one_over() -> None:
    """A restarted agent goes on with what it holds; the older session is told that it is over."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 2))
    grants = agent.claim(2)
    old = agent.session_id

    opened = agent.open(leases=[(g.lease, "running") for g in grants])

    assert opened.verdicts == ["keep", "keep"]
    assert opened.superseded == old
    assert counts(experiment_id) == {"running": 2}
    with pytest.raises(Conflict) as caught:
        sessions.heartbeat(session_id=old, seq=9)
    assert caught.value.code == "session_superseded"
    assert agent.complete(grants) == ["accepted", "accepted"]
    check_counters()


@pytest.mark.parametrize("request_of", ["start", "mark"])
def test_a_request_of_a_session_that_is_superseded_meanwhile_takes_no_lease_along(
    request_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease stays with the newer session, where a sweep finds it (I5)."""
    if dialect() == "sqlite":
        pytest.skip("one writer at a time: nothing happens meanwhile")
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1))
    lease = agent.claim(1)[0].lease
    old = agent.session_id

    def supersede() -> None:
        with connected():
            agent.open(leases=[(lease, None)])

    def lock_late(task_ids: Iterable[str]) -> dict[str, TaskRow]:
        # The second session locks its tasks the same way, and must not begin a third.
        monkeypatch.setattr(patience, "lock_tasks", lock_tasks)
        other = Thread(target=supersede)
        other.start()
        other.join()
        return lock_tasks(task_ids)

    monkeypatch.setattr(patience, "lock_tasks", lock_late)
    with pytest.raises(Conflict) as caught:
        if request_of == "start":
            leases.start(old, [lease])
        else:
            leases.mark(old, [Mark(lease=lease, phase="running")])

    assert caught.value.code == "session_superseded"
    assert execute("SELECT session_id FROM tasks") == [(agent.session_id,)]
    check_counters()


def test_a_restart_gives_back_what_the_journal_does_not_know() -> None:
    """A lease that was granted but never received is queued again at once."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 2))
    kept, _unknown = agent.claim(2)

    agent.open(leases=[(kept.lease, None)])

    assert counts(experiment_id) == {"leased": 1, "queued": 1}
    check_counters()


def test_payloads_that_an_agent_forgets_again_and_again_use_up_the_budget() -> None:
    """A task that takes its agent's journal along ends FAILED, with its attempts on record."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    for attempt in range(1, 5):
        available_now()
        grant = agent.claim()[0]
        agent.beat(marks=[Mark(lease=grant.lease, phase="running")])
        work(agent.open(leases=[]).wakeups)
        recorded = execute("SELECT outcome, failure_code FROM attempts")
        assert recorded == [("LOST", "lease_forgotten")] * attempt

    assert counts(experiment_id) == {"failed": 1}
    check_counters()


def test_a_restart_keeps_leases_of_a_claim_without_an_answer() -> None:
    """They can still be asked for by the claim's id, also in the new session."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 2))
    granted = agent.claimed(2, claim_id="no-answer")

    agent.open(unresolved_claims=["no-answer"])

    assert counts(experiment_id) == {"leased": 2}
    replayed = agent.claimed(2, claim_id="no-answer")
    assert {g.lease for g in replayed.grants} == {g.lease for g in granted.grants}


def test_a_full_list_gives_back_only_what_is_old_enough() -> None:
    """A list may have been under way while a claim was answered, so young leases stay."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    agent.claim(1)

    agent.beat(full=[])
    assert counts(experiment_id) == {"leased": 1}
    change("UPDATE tasks SET leased_at = leased_at - 120000")
    agent.beat(full=[])

    assert counts(experiment_id) == {"queued": 1}
    check_counters()


def test_an_ended_lease_in_the_list_does_not_keep_the_present_one_of_its_task() -> None:
    """The list names leases, not tasks: the agent never received the second one."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1, retries=1))
    (first,) = agent.claim(1)
    agent.fail([first])
    available_now()
    agent.claim(1)

    opened = agent.open(leases=[(first.lease, "finalizing")])

    assert opened.verdicts == ["superseded"]
    assert counts(experiment_id) == {"queued": 1}
    check_counters()


def test_a_delayed_full_list_is_ignored() -> None:
    """A heartbeat that is older than the last one keeps the session alive and does nothing else."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    agent.claim(1)
    agent.beat()
    agent.beat()
    change("UPDATE tasks SET leased_at = leased_at - 120000")

    sessions.heartbeat(session_id=agent.session_id, seq=1, full=[])

    assert counts(experiment_id) == {"leased": 1}


def test_a_digest_that_differs_asks_for_the_full_list() -> None:
    """Equal digests are quiet; any difference is settled by the full list."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 3))
    grants = agent.claim(3)

    assert not agent.beat(digest=digest(grants)).want_full
    assert agent.beat(digest=digest(grants[:2])).want_full
    assert not agent.beat().want_full
    assert agent.beat(digest=(3, "not a number")).want_full


def test_a_heartbeat_tells_of_marks_and_costs_one_session_row() -> None:
    """Phases go into the tasks; the session's row says when, and what is free."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    grant = agent.claim(1)[0]
    change("UPDATE agent_sessions SET heartbeat_at = 0")

    agent.beat(marks=[Mark(lease=grant.lease, phase="running", started_ms_ago=5)], free={"cpu": 3})

    heartbeat_at, free = execute("SELECT heartbeat_at, free FROM agent_sessions")[0]
    assert heartbeat_at > now_ms() - 60_000
    assert free == '{"cpu":3}'
    assert counts(experiment_id) == {"running": 1}


@pytest.mark.parametrize("days", [-1, 1])
def test_only_the_databases_clock_counts(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API whose own clock is a day off keeps its agents alive all the same, and expires none."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    agent.claim(1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + days * 86_400)

    agent.beat()
    work(leases.expire_sessions(requeue_after_s=60))

    heartbeat_at = execute("SELECT heartbeat_at FROM agent_sessions")[0][0]
    assert abs(heartbeat_at - now_ms()) < 60_000
    assert counts(experiment_id) == {"leased": 1}


def test_a_lease_that_expired_is_attached_again_by_the_full_list() -> None:
    """A partition of a day re-runs nothing while nobody else claimed the task."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 2))
    grants = agent.claim(2)
    change("UPDATE agent_sessions SET heartbeat_at = 0")
    work(leases.expire_sessions())
    other = world.agent()
    available_now()
    taken = other.claim(1)[0]

    with pytest.raises(Conflict) as caught:
        agent.beat()
    assert caught.value.code == "session_expired"
    opened = agent.open(leases=[(g.lease, "running") for g in grants])

    expected = ["superseded" if g.task_id == taken.task_id else "keep" for g in grants]
    assert opened.verdicts == expected
    assert counts(experiment_id) == {"running": 1, "leased": 1}
    check_counters()


@pytest.mark.parametrize("way", ["full list", "start"])
def test_a_lease_that_is_attached_again_may_end_in_every_way(way: str) -> None:
    """Its attempt counts as expired no longer: it is reported, or expires once more."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 2))
    grants = agent.claim(2)
    fall_silent(agent)
    if way == "full list":
        agent.open(leases=[(g.lease, "running") for g in grants])
    else:
        agent.open()
        leases.start(agent.session_id, [g.lease for g in grants])
    assert execute("SELECT COUNT(*) FROM attempts") == [(0,)]

    assert agent.complete(grants[:1]) == ["accepted"]
    fall_silent(agent)

    assert counts(experiment_id) == {"completed": 1, "queued": 1}
    outcomes = execute("SELECT outcome FROM attempts ORDER BY outcome")
    assert outcomes == [("COMPLETED",), ("EXPIRED",)]
    check_counters()


def test_an_accepted_lease_in_the_full_list_is_to_be_reported_again() -> None:
    """The acknowledgement was lost: the second report gets its `duplicate`."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1))
    grant = agent.claim(1)[0]
    agent.complete([grant])

    beat = agent.beat(full=[(grant.lease, "finalizing")])

    assert beat.verdicts == [(grant.lease, "report_again")]


def test_a_session_that_speaks_after_it_was_superseded_counts_as_a_swap() -> None:
    """Two copies of one state folder take over from each other; a restart of one does not count."""
    world = World()
    agent = world.agent()
    assert agent.open().swaps == 0

    for number in range(1, sessions.ALARMING_SWAPS + 1):
        old = agent.session_id
        assert agent.open().swaps == number - 1
        for _ in range(2):
            assert sessions.refusal_of_old(agent.id, old).code == "session_superseded"

    assert agent.open().swaps == sessions.ALARMING_SWAPS


def test_an_older_session_that_had_expired_is_no_swap() -> None:
    """Requests of one process that cross its own new session hear that they must use that one."""
    world = World()
    agent = world.agent()
    old = agent.session_id
    fall_silent(agent)
    agent.open()

    assert sessions.refusal_of_old(agent.id, old).code == "session_expired"
    assert agent.open().swaps == 0


def test_a_stopped_agent_keeps_its_leases_until_it_is_silent_too_long() -> None:
    """Payloads may outlive their agent; I5: the sweep still looks at them."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    grant = agent.claim(1)[0]

    sessions.end_session(agent.session_id, "stopped")
    leases.expire_sessions()
    assert counts(experiment_id) == {"leased": 1}
    check_counters()
    with pytest.raises(Conflict) as caught:
        agent.complete([grant])
    assert caught.value.code == "session_ended"
    change("UPDATE agent_sessions SET heartbeat_at = 0")
    leases.expire_sessions()

    assert counts(experiment_id) == {"queued": 1}
    check_counters()


def test_a_stopped_agent_that_comes_back_has_its_leases() -> None:
    """The next start takes them over, as after a crash."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1))
    grant = agent.claim(1)[0]
    sessions.end_session(agent.session_id)

    assert agent.open(leases=[(grant.lease, "running")]).verdicts == ["keep"]
    assert agent.complete([grant]) == ["accepted"]


def test_a_revoked_agent_loses_its_leases_at_once() -> None:
    """Its session ends, its tasks are queued again, and it may not come back."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 3))
    agent.claim(3)

    sessions.revoke_agent(agent.id)

    assert counts(experiment_id) == {"queued": 3}
    with pytest.raises(Conflict):
        agent.beat()
    with pytest.raises(Unauthenticated):
        agent.open()
    check_counters()


def test_who_may_not_open_a_session_hears_why() -> None:
    """Pending agents wait for approval; unknown ones have to enrol."""
    world = World()
    agent = world.agent()
    change("UPDATE agents SET state = 'pending'")

    with pytest.raises(Forbidden) as pending:
        agent.open()
    with pytest.raises(NotFound) as unknown:
        Agent(new_id(), {})

    assert pending.value.code == "agent_pending"
    assert unknown.value.code == "agent_unknown"


def test_an_unknown_session_is_not_found() -> None:
    """Every write of an agent begins with its session."""
    with pytest.raises(NotFound) as caught:
        leases.report(new_id(), [Report(lease=_some_lease(), outcome="completed")])
    assert caught.value.code == "session_unknown"


def _some_lease() -> leases.LeaseName:
    return leases.LeaseName(new_id(), 1, "0" * 32)
