"""Claiming, on every database."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airavata_scheduler.models import claiming, leases
from airavata_scheduler.models.database import change, connected, database, dialect, execute
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.lease_records import Free, LeaseName
from airavata_scheduler.models.node_facts import NodeFacts, facts_of
from tests.integration.world import PLENTY, World, check_counters, counts, node

pytestmark = pytest.mark.usefixtures("fresh_database")


def test_a_claim_grants_leases_with_their_own_random_ids() -> None:
    """Each lease has attempt 1 and 128 random bits of its own; rows and counters say LEASED."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 5))

    grants = agent.claim(3)

    assert len({g.lease.lease_id for g in grants}) == 3
    assert all(g.attempt == 1 and len(g.lease.lease_id) == 32 for g in grants)
    assert [g.node for g in grants] == ["simulate"] * 3
    assert counts(experiment_id) == {"queued": 2, "leased": 3}
    check_counters()


def test_threads_that_claim_at_once_never_get_the_same_task() -> None:
    """Six agents drain 300 tasks beside each other; every task is granted once."""
    world = World()
    agents = [world.agent() for _ in range(6)]
    experiment_id = world.run(node("simulate", 300))
    start = threading.Barrier(6)

    def drain(number: int) -> list[str]:
        start.wait()
        granted: list[str] = []
        with connected():
            for _ in range(200):
                got = agents[number].claimed(7).grants
                granted += [g.task_id for g in got]
                if not execute("SELECT 1 FROM tasks WHERE state = 1 LIMIT 1"):
                    break
        return granted

    with ThreadPoolExecutor(6) as pool:
        granted = [task for part in pool.map(drain, range(6)) for task in part]

    assert len(granted) == 300
    assert len(set(granted)) == 300
    assert counts(experiment_id) == {"leased": 300}
    check_counters()


def test_the_same_claim_again_gets_the_same_leases() -> None:
    """A lost answer costs nothing: the replay names the same leases and grants no others."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 4))
    first = agent.claimed(2, claim_id="claim-1")

    again = leases.claim(
        session_id=agent.session_id, claim_id="claim-1", seq=1, max_tasks=2, free=PLENTY
    )

    assert again.replay
    assert {g.lease for g in again.grants} == {g.lease for g in first.grants}
    assert execute("SELECT COUNT(*) FROM tasks WHERE state = 2") == [(2,)]


def test_a_replay_leaves_out_leases_that_ended() -> None:
    """What was reported meanwhile is not granted a second time."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 2))
    grants = agent.claimed(2, claim_id="claim-1").grants
    agent.complete(grants[:1])

    again = leases.claim(
        session_id=agent.session_id, claim_id="claim-1", seq=1, max_tasks=2, free=PLENTY
    )

    assert [g.lease for g in again.grants] == [grants[1].lease]


def test_a_delayed_claim_that_was_never_answered_grants_nothing() -> None:
    """A claim older than the newest one seen comes from the past: no phantom lease."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 4))
    agent.claimed(1)
    agent.claimed(1)

    late = leases.claim(
        session_id=agent.session_id, claim_id="delayed", seq=1, max_tasks=2, free=PLENTY
    )

    assert late.grants == []
    assert execute("SELECT COUNT(*) FROM tasks WHERE state = 2") == [(2,)]


def test_a_long_poll_may_ask_again_with_the_same_claim() -> None:
    """An empty answer is not kept: the same claim gets work as soon as there is some."""
    world = World()
    agent = world.agent()
    empty = agent.claimed(5, claim_id="waiting")
    world.run(node("simulate", 2))

    found = leases.claim(
        session_id=agent.session_id, claim_id="waiting", seq=1, max_tasks=5, free=PLENTY
    )

    assert empty.grants == []
    assert len(found.grants) == 2


def test_another_agents_claim_id_gets_nothing() -> None:
    """A claim id answers only the agent that made it."""
    world = World()
    first, second = world.agent(), world.agent()
    world.run(node("simulate", 4))
    first.claimed(1, claim_id="mine")

    assert second.claimed(1, claim_id="mine").grants == []


def test_claims_of_one_session_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim and its repetition at the same moment: the second waits and gets the same leases."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 4))
    arrived, second_is_done = threading.Event(), threading.Event()

    def first_waits(sql: str, params: Sequence[Any] = ()) -> int:
        # The first claim knows by now that its id was not answered yet.
        if not arrived.is_set():
            arrived.set()
            second_is_done.wait(0.5)  # in vain: the second cannot get so far
        return change(sql, params)

    def claim() -> set[LeaseName]:
        with connected():
            answer = leases.claim(
                session_id=agent.session_id, claim_id="once", seq=1, max_tasks=2, free=PLENTY
            )
        return {grant.lease for grant in answer.grants}

    monkeypatch.setattr(claiming, "change", first_waits)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(claim)
        assert arrived.wait(10)
        second = pool.submit(claim)
        second.add_done_callback(lambda _: second_is_done.set())
        granted = first.result(30), second.result(30)

    assert len(granted[0]) == 2
    assert granted[0] == granted[1]
    assert execute("SELECT COUNT(*) FROM tasks WHERE state = 2") == [(2,)]
    check_counters()


def test_a_task_that_is_being_granted_is_left_to_its_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another agent's claim gets the next task meanwhile, and does not wait for the first one."""
    if dialect() == "sqlite":
        pytest.skip("one writer at a time: nothing happens meanwhile")
    world = World()
    agents = world.agent(), world.agent()
    world.run(node("simulate", 2))
    chosen, second_is_done = threading.Event(), threading.Event()

    def first_waits(node_ids: Iterable[str]) -> dict[str, NodeFacts]:
        if not chosen.is_set():
            chosen.set()
            assert second_is_done.wait(10), "the second claim waits for the first one"
        return facts_of(node_ids)

    def claim(number: int) -> list[str]:
        with connected():
            return [grant.task_id for grant in agents[number].claimed(1).grants]

    monkeypatch.setattr(claiming, "facts_of", first_waits)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(claim, 0)
        assert chosen.wait(10)
        second = pool.submit(claim, 1)
        second.add_done_callback(lambda _: second_is_done.set())
        granted = [*first.result(30), *second.result(30)]

    assert len(granted) == len(set(granted)) == 2
    check_counters()


def test_only_tasks_that_fit_are_granted() -> None:
    """4 cores are not granted to an agent with 2 free; large tasks are not fetched ahead."""
    world = World()
    agent = world.agent()
    world.run(node("wide", 6, resources={"cpu": 4, "ram_mb": 100, "gpu": 0}))

    assert agent.claim(10, Free(cpu=2, ram_mb=1000)) == []
    assert len(agent.claim(10, Free(cpu=8, ram_mb=1000))) == 2
    assert len(agent.claim(10, Free(cpu=100, ram_mb=250))) == 2


def test_higher_priority_goes_first() -> None:
    """A task of a higher priority is granted before older ones."""
    world = World()
    agent = world.agent()
    world.run(node("low", 3))
    world.run(node("high", 1), priority=5)

    assert [g.node for g in agent.claim(1)] == ["high"]


def test_scarce_tasks_are_shared_between_sessions() -> None:
    """With four sessions and eight tasks nobody gets more than two at once."""
    world = World()
    agents = [world.agent() for _ in range(4)]
    world.run(node("simulate", 8))

    assert len(agents[0].claim(500)) == 2
    assert len(agents[1].claim(500)) == 2


def test_a_draining_agent_gets_nothing() -> None:
    """Draining ends new work, not the session."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 2))
    change("UPDATE agents SET state = 'draining' WHERE id = %s", [agent.id])

    assert agent.claim(2) == []


def test_a_task_that_is_due_later_is_not_granted() -> None:
    """A retry waits for its time, which is the database's."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1, retries=1))
    agent.fail(agent.claim(1))

    assert agent.claim(1) == []


def test_the_gate_is_open_only_without_inputs() -> None:
    """Staging and references close the gate: the payload may start only after `start`."""
    world = World()
    agent = world.agent()
    world.run(node("plain", 1))
    world.run(node("staged", 1, stage_in=[{"storage": "s", "source": "/x", "destination": "x"}]))

    assert {g.node: g.gate_open for g in agent.claim(2)} == {"plain": True, "staged": False}


@pytest.mark.parametrize("size", [1, 40])
def test_the_number_of_statements_does_not_depend_on_the_leases(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim is at most ten statements, whether it grants one lease or forty."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 50))
    agent.claimed(1)
    said: list[str] = []
    run = database.obj.execute_sql

    def counted(sql: str, *rest: object, **more: object) -> object:
        said.append(sql)
        return run(sql, *rest, **more)

    monkeypatch.setattr(database.obj, "execute_sql", counted)

    assert len(agent.claimed(size).grants) == size
    assert len(said) <= 10, said


def test_a_lease_name_survives_its_text_form() -> None:
    """What is printed is read again; anything else is refused."""
    name = LeaseName("0198d3a0-0000-7000-8000-000000000000", 3, "ab" * 16)

    assert LeaseName.parse(str(name)) == name
    for wrong in ("", "x", f"{name}x", str(name).upper(), str(name).replace(".3.", ".٣.")):
        with pytest.raises(BadInput):
            LeaseName.parse(wrong)
