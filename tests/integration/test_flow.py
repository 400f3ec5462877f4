"""Experiments in motion: windows, foreach, barriers, pause, cancel, retry, calls."""

from __future__ import annotations

from typing import Any

import pytest

from airavata_scheduler.models import counters, epoch, flow, flow_control, leases
from airavata_scheduler.models.database import change, execute
from airavata_scheduler.models.errors import BadInput, Conflict, NotFound
from airavata_scheduler.models.flow_create import Selection
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.states import TaskState
from airavata_scheduler.models.wakeups import Wakeups
from tests.integration.world import (
    World,
    available_now,
    check_counters,
    counts,
    experiment_state,
    node,
    reconcile,
    work,
)

pytestmark = pytest.mark.usefixtures("fresh_database")


def events(experiment_id: str) -> list[str]:
    """The kinds of the experiment's events, in order of writing."""
    rows = execute(
        "SELECT kind FROM events WHERE experiment_id = %s ORDER BY at, id", [experiment_id]
    )
    return [row[0] for row in rows]


def reasons(experiment_id: str, state: int) -> set[str]:
    """The distinct reasons of tasks in a state."""
    rows = execute(
        "SELECT DISTINCT reason FROM tasks WHERE experiment_id = %s AND state = %s",
        [experiment_id, state],
    )
    return {row[0] for row in rows}


def test_a_sweep_a_foreach_and_a_barrier_run_to_the_end() -> None:
    """The example of the guide in small: simulate, plot each, report all."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 6),
        node("plot", foreach="simulate"),
        node("report", depends_on=["plot"]),
    )
    assert counts(experiment_id) == {"queued": 6, "waiting": 7}

    agent.complete(agent.claim(2))
    assert counts(experiment_id, "plot") == {"queued": 2, "waiting": 4}
    check_counters()
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"completed": 13}
    assert experiment_state(experiment_id) == "COMPLETED"
    assert {"created", "submitted", "planned", "node_opened", "ended"} <= set(events(experiment_id))
    check_counters()


def test_what_was_started_is_finished_first() -> None:
    """Dependents come before instances that have not begun."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 4), node("plot", foreach="simulate"))
    agent.complete(agent.claim(1))

    assert [g.node for g in agent.claim(2)] == ["plot", "simulate"]


def test_a_foreach_with_its_own_axes_makes_them_for_each_parent() -> None:
    """Instance i belongs to the parent's instance i // own."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 3), node("slice", 4, foreach="simulate"))
    middle = next(g for g in agent.claim(3) if g.idx == 1)

    agent.complete([middle])

    rows = execute("SELECT idx FROM tasks WHERE idx > 2 OR state = 1 ORDER BY idx")
    assert [row[0] for row in rows] == [4, 5, 6, 7]
    assert counts(experiment_id, "slice") == {"queued": 4, "waiting": 8}


def test_a_failed_instance_skips_its_dependents_with_the_reason() -> None:
    """Down the chain; the barrier runs all the same, as one instance succeeded."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 2),
        node("plot", foreach="simulate"),
        node("print", foreach="plot"),
        node("report", depends_on=["print"]),
    )
    bad, good = agent.claim(2)
    agent.fail([bad])
    check_counters()
    agent.complete([good])
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"failed": 1, "skipped": 2, "completed": 4}
    assert reasons(experiment_id, 8) == {f"simulate[{bad.idx}] ended FAILED"}
    assert experiment_state(experiment_id) == "FAILED"
    check_counters()


def test_very_many_dependents_are_skipped_by_numbers_alone() -> None:
    """One failed instance above 250,000 others costs no row for each."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("a"), node("b", 500, foreach="a"), node("c", 500, foreach="b"), node("d", foreach="c")
    )

    agent.fail(agent.claim(1))

    assert counts(experiment_id) == {"failed": 1, "skipped": 500 + 250_000 + 250_000}
    assert experiment_state(experiment_id) == "FAILED"
    assert execute("SELECT COUNT(*) FROM tasks") == [(1,)]


def test_more_dependents_than_can_be_made_at_once_are_refused() -> None:
    """With a sentence that says what to write instead."""
    with pytest.raises(BadInput) as caught:
        World().create(node("a"), node("b", 1001, foreach="a"))
    assert caught.value.code == "too_many_per_parent"


def test_a_barrier_is_skipped_when_nothing_succeeded() -> None:
    """With its dependents, and the experiment ends."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 2),
        node("report", 3, depends_on=["simulate"]),
        node("send", foreach="report"),
        node("archive", depends_on=["send"]),
    )

    agent.fail(agent.claim(2))

    assert counts(experiment_id) == {"failed": 2, "skipped": 3 + 3 + 1}
    assert experiment_state(experiment_id) == "FAILED"
    check_counters()


def test_a_barrier_that_requires_all_is_skipped_after_one_failure() -> None:
    """`requires: all` is stricter than the default."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 2), node("report", depends_on=["simulate"], requires="all")
    )
    first, second = agent.claim(2)

    agent.fail([first])
    agent.complete([second])

    assert counts(experiment_id, "report") == {"skipped": 1}
    assert experiment_state(experiment_id) == "FAILED"


def test_a_gathering_reference_is_a_barrier() -> None:
    """`${plot.PICTURE[*]}` waits for all instances even without `depends_on`."""
    world = World()
    agent = world.agent()
    gather = [{"parameter": "P", "node": "plot", "output": "PICTURE", "gather": True}]
    experiment_id = world.run(node("plot", 2), node("report", references=gather))

    agent.complete(agent.claim(1))

    assert counts(experiment_id, "report") == {"waiting": 1}
    agent.work_off(experiment_id)
    assert experiment_state(experiment_id) == "COMPLETED"


def test_dependents_behind_a_barrier_are_held_and_then_released() -> None:
    """A foreach node with `depends_on` has PENDING rows until the barrier is passed."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 2),
        node("calibrate"),
        node("plot", foreach="simulate", depends_on=["calibrate"]),
    )
    grants = agent.claim(3)
    agent.complete([g for g in grants if g.node == "simulate"])
    assert counts(experiment_id, "plot") == {"pending": 2}
    check_counters()

    agent.complete([g for g in grants if g.node == "calibrate"])

    assert counts(experiment_id, "plot") == {"queued": 2}
    agent.work_off(experiment_id)
    assert experiment_state(experiment_id) == "COMPLETED"


def test_held_dependents_are_skipped_when_the_barrier_fails() -> None:
    """Their rows end with the reason."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 2),
        node("calibrate"),
        node("plot", foreach="simulate", depends_on=["calibrate"]),
    )
    grants = agent.claim(3)
    agent.complete([g for g in grants if g.node == "simulate"])

    agent.fail([g for g in grants if g.node == "calibrate"])

    assert counts(experiment_id, "plot") == {"skipped": 2}
    assert reasons(experiment_id, 8) == {"no instance of calibrate succeeded"}
    assert experiment_state(experiment_id) == "FAILED"
    check_counters()


def test_on_failure_stop_begins_nothing_new() -> None:
    """After the first final failure what has not begun is skipped; what runs goes on."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 10), node("plot", foreach="simulate"), on_failure="stop"
    )
    bad, good = agent.claim(2)

    agent.fail([bad])
    check_counters()
    agent.complete([good])

    assert counts(experiment_id) == {"failed": 1, "completed": 1, "skipped": 8 + 10}
    assert experiment_state(experiment_id) == "FAILED"
    check_counters()


def test_a_window_keeps_the_rows_few_and_moves_on() -> None:
    """5,000 instances never have more than 2,000 rows waiting."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 5000))
    assert counts(experiment_id) == {"queued": 2000, "waiting": 3000}

    seen = 0
    while grants := agent.claim(500):
        agent.complete(grants)
        seen += len(grants)
        assert counts(experiment_id).get("queued", 0) <= 2000

    assert seen == 5000
    assert experiment_state(experiment_id) == "COMPLETED"
    check_counters()


def test_the_operator_chooses_the_window(request: pytest.FixtureRequest) -> None:
    """SWEEP_WINDOW bounds the rows that wait."""
    request.addfinalizer(lambda: counters.configure(counters.DEFAULT_WINDOW))
    counters.configure(50)
    world = World()

    experiment_id = world.run(node("simulate", 5000))

    assert counts(experiment_id) == {"queued": 50, "waiting": 4950}


@pytest.mark.parametrize("size", [10**6, 10**12])
def test_a_huge_sweep_costs_no_more_than_its_first_window(size: int) -> None:
    """Stored, planned, expanded and cancelled by numbers; only the window has rows."""
    world = World()
    world.agent()

    experiment_id = world.run(node("simulate", size))

    assert counts(experiment_id) == {"queued": 2000, "waiting": size - 2000}
    assert execute("SELECT COUNT(*) FROM tasks") == [(2000,)]
    work(flow.cancel(experiment_id))
    assert counts(experiment_id) == {"cancelled": size}
    assert experiment_state(experiment_id) == "CANCELLED"
    check_counters()


def test_more_tasks_than_the_limit_are_refused() -> None:
    """With the number that was asked for."""
    with pytest.raises(BadInput) as caught:
        World().create(node("simulate", 10**13))
    assert "10000000000000" in caught.value.detail


def test_pause_holds_what_is_queued_and_resume_releases_it() -> None:
    """Leased tasks go on; their retries and dependents are held as well."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 5, retries=1), node("plot", foreach="simulate"))
    fails, completes = agent.claim(2)

    work(flow.pause(experiment_id))
    assert counts(experiment_id) == {"pending": 3, "leased": 2, "waiting": 5}
    assert agent.claim(5) == []
    agent.fail([fails])
    agent.complete([completes])
    assert counts(experiment_id) == {"pending": 5, "completed": 1, "waiting": 4}
    check_counters()
    reconcile()
    assert counts(experiment_id)["pending"] == 5

    work(flow.resume(experiment_id))
    assert counts(experiment_id)["queued"] == 5
    available_now()
    agent.work_off(experiment_id)
    assert experiment_state(experiment_id) == "COMPLETED"
    check_counters()


def test_pause_before_the_plan_waits_for_resume() -> None:
    """Nothing is opened meanwhile; resuming plans it."""
    world = World()
    experiment_id = world.create(node("simulate", 3))
    flow.submit(experiment_id)
    flow.pause(experiment_id)

    work(flow.plan(experiment_id))
    assert experiment_state(experiment_id) == "PAUSED"
    work(flow.resume(experiment_id))

    assert counts(experiment_id) == {"queued": 3}


def test_a_resume_that_dies_before_it_plans_is_due_to_be_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No experiment waits for a job that nothing would ask for again (I5)."""
    world = World()
    experiment_id = world.create(node("simulate", 3))
    flow.submit(experiment_id)
    flow.pause(experiment_id)
    with monkeypatch.context() as killed:
        killed.setattr(flow_control, "plan", lambda _: Wakeups())
        flow.resume(experiment_id)

    reconcile()

    assert counts(experiment_id) == {"queued": 3}
    assert experiment_state(experiment_id) == "RUNNING"


def test_cancel_ends_what_waits_and_tells_the_sessions() -> None:
    """Queued ends at once, leased when its agent says so; a success that came first counts (I6)."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 6, retries=9), node("plot", foreach="simulate"))
    was_first, stops, succeeds = agent.claim(3)
    agent.complete([was_first])

    wakeups = flow.cancel(experiment_id)
    assert wakeups.sessions == {agent.session_id}
    assert counts(experiment_id) == {"cancelled": 3 + 6, "leased": 2, "completed": 1}
    assert experiment_state(experiment_id) == "RUNNING"
    check_counters()
    agent.fail([stops])
    agent.complete([succeeds])

    assert counts(experiment_id) == {"cancelled": 5 + 6, "completed": 1}
    assert experiment_state(experiment_id) == "CANCELLED"
    work(flow.cancel(experiment_id))
    check_counters()


@pytest.mark.parametrize("how", ["fails", "succeeds", "silent"])
def test_a_task_claimed_while_its_experiment_is_cancelled_ends_cancelled(how: str) -> None:
    """Also a row that the cancel did not mark, as it was claimed that moment (I6)."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1, retries=9))
    grants = agent.claim(1)
    flow.cancel(experiment_id)
    change("UPDATE tasks SET cancel_requested_at = NULL")

    if how == "fails":
        agent.fail(grants)
    elif how == "succeeds":
        agent.complete(grants)
    else:
        change("UPDATE agent_sessions SET heartbeat_at = 0")
        work(leases.expire_sessions())

    assert counts(experiment_id) == {"cancelled": 1}
    assert experiment_state(experiment_id) == "CANCELLED"


def test_an_experiment_without_an_open_node_is_due_to_be_finished() -> None:
    """Whatever left it there, the reconciler looks at it."""
    world = World()
    world.agent()
    experiment_id = world.run(node("simulate", 1))
    change("UPDATE nodes SET state = 'WAITING'")

    assert flow.due_work() == [("finish", experiment_id)]
    reconcile()
    assert execute("SELECT state FROM nodes") == [("OPEN",)]


@pytest.mark.parametrize("submitted", [False, True])
def test_cancel_before_the_plan_ends_at_once(submitted: bool) -> None:
    """CREATED and PLANNING have nothing to wait for."""
    world = World()
    experiment_id = world.create(node("simulate", 3))
    if submitted:
        flow.submit(experiment_id)

    work(flow.cancel(experiment_id))

    assert experiment_state(experiment_id) == "CANCELLED"
    assert counts(experiment_id) == {"cancelled": 3}
    assert flow.due_work() == []


def test_cancelling_one_task_skips_only_its_dependents() -> None:
    """The rest of the experiment goes on, and it ends COMPLETED: nothing failed."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 2), node("plot", foreach="simulate"))
    task_id = execute("SELECT id FROM tasks WHERE idx = 1")[0][0]

    work(flow.cancel_task(task_id))
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"cancelled": 1, "skipped": 1, "completed": 2}
    assert experiment_state(experiment_id) == "COMPLETED"
    work(flow.cancel_task(task_id))
    with pytest.raises(NotFound):
        flow.cancel_task(new_id())


def test_retry_runs_failed_instances_and_their_dependents_again() -> None:
    """In a new generation; ended rows stay as they are, completed instances are not touched."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 4), node("plot", foreach="simulate"), node("report", depends_on=["plot"])
    )
    grants = agent.claim(4)
    agent.fail(grants[:2])
    agent.complete(grants[2:])
    plots = agent.claim(2)
    agent.fail(plots[:1])
    agent.complete(plots[1:])
    agent.work_off(experiment_id)
    assert counts(experiment_id) == {"failed": 3, "skipped": 2, "completed": 4}

    work(flow.retry(experiment_id, failed_only=True))
    assert counts(experiment_id) == {"completed": 4, "queued": 3, "waiting": 2}
    assert experiment_state(experiment_id) == "RUNNING"
    check_counters()
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"completed": 9}
    assert experiment_state(experiment_id) == "COMPLETED"
    assert execute("SELECT COUNT(*) FROM tasks WHERE state = 6 AND generation = 0") == [(3,)]
    check_counters()


def test_retry_twice_and_failing_again() -> None:
    """Each retry has its own generation; counters follow the newest."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 3), node("plot", foreach="simulate"))
    grants = agent.claim(3)
    agent.complete(grants[:1])
    agent.fail(grants[1:])
    agent.work_off(experiment_id)

    work(flow.retry(experiment_id))
    again = agent.claim(3)
    agent.fail(again[:1])
    agent.complete(again[1:])
    agent.work_off(experiment_id)
    assert counts(experiment_id) == {"completed": 4, "failed": 1, "skipped": 1}
    check_counters()
    work(flow.retry(experiment_id))
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"completed": 6}
    check_counters()


def test_retry_after_a_barrier_opens_it_again() -> None:
    """A skipped barrier waits for its parents once more."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate"), node("report", depends_on=["simulate"]))
    agent.fail(agent.claim(1))
    assert counts(experiment_id) == {"failed": 1, "skipped": 1}

    work(flow.retry(experiment_id))
    assert counts(experiment_id, "report") == {"waiting": 1}
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"completed": 2}
    check_counters()


def test_a_cancelled_experiment_can_be_run_again_whole() -> None:
    """Everything that did not complete, with or without a row, also below completed parents."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 2100), node("plot", foreach="simulate"))
    grants = agent.claim(3)
    agent.complete(grants[:1])
    work(flow.cancel(experiment_id))
    agent.complete(grants[1:])
    assert experiment_state(experiment_id) == "CANCELLED"

    with pytest.raises(Conflict) as caught:
        flow.retry(experiment_id, failed_only=True)
    assert caught.value.code == "retry_cancelled"
    work(flow.retry(experiment_id, failed_only=False))
    check_counters()
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"completed": 4200}
    assert experiment_state(experiment_id) == "COMPLETED"
    check_counters()


def test_what_on_failure_stop_left_out_is_run_by_a_retry() -> None:
    """Also dependents of parents that completed after the stop."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(
        node("simulate", 4), node("plot", foreach="simulate"), on_failure="stop"
    )
    bad, good = agent.claim(2)
    agent.fail([bad])
    agent.complete([good])

    work(flow.retry(experiment_id))
    agent.work_off(experiment_id)

    assert counts(experiment_id) == {"completed": 8}
    check_counters()


def test_a_running_or_a_perfect_experiment_cannot_be_retried() -> None:
    """Each with its own code."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate"))

    with pytest.raises(Conflict) as running:
        flow.retry(experiment_id)
    agent.work_off(experiment_id)
    with pytest.raises(Conflict) as perfect:
        flow.retry(experiment_id)

    assert running.value.code == "experiment_not_ended"
    assert perfect.value.code == "nothing_to_retry"


def test_a_derived_experiment_runs_only_the_failed_instances() -> None:
    """With their own numbers, and their dependents."""
    world = World()
    agent = world.agent()
    first = world.run(node("simulate", 5), node("plot", foreach="simulate"))
    grants = agent.claim(5)
    agent.fail([g for g in grants if g.idx in (1, 3)])
    agent.complete([g for g in grants if g.idx not in (1, 3)])
    agent.work_off(first)

    second = world.run(
        node("simulate", 5),
        node("plot", foreach="simulate"),
        derived_from=first,
        only=Selection(experiment_id=first, ended="failed"),
    )

    assert counts(second) == {"queued": 2, "waiting": 2}
    assert sorted(g.idx for g in agent.claim(5)) == [1, 3]
    check_counters()


def test_an_experiment_that_nothing_can_run_fails_with_a_sentence() -> None:
    """It names the resource and the reason; it does not wait for ever."""
    world = World()
    world.agent()
    experiment_id = world.run(node("wide", resources={"cpu": 64, "ram_mb": 0, "gpu": 0}))

    assert experiment_state(experiment_id) == "FAILED"
    error = execute("SELECT error FROM experiments")[0][0]
    assert error == (
        "No compute resource can run wide. "
        "here: none of its 1 agents can: it has 8 cores, 64 are asked for."
    )
    assert counts(experiment_id) == {"skipped": 1}


def test_an_experiment_waits_for_agents_that_are_not_there_yet() -> None:
    """No agent now is no failure."""
    world = World()
    experiment_id = world.run(node("simulate", 3))

    assert counts(experiment_id) == {"queued": 3}
    world.agent().work_off(experiment_id)
    assert experiment_state(experiment_id) == "COMPLETED"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"python": {"requires_python": ">=3.12"}}, "it has Python 3.11.7, >=3.12 is asked for"),
        ({"features": ["container"]}, "it does not offer container"),
        ({"compute": ["elsewhere"]}, "the node names other resources"),
        ({"resources": {"gpu": 1}}, "it allows 0 GPUs, 1 are asked for"),
    ],
)
def test_what_does_not_fit_is_explained(fields: dict[str, Any], why: str) -> None:
    """Python, features, names and limits each have their sentence."""
    world = World()
    change("UPDATE compute_resources SET limits = %s", ['{"max_gpu": 0}'])
    world.agent()

    world.run(node("simulate", **fields))

    assert why in execute("SELECT error FROM experiments")[0][0]


def test_several_resources_share_a_sweep_by_their_cores() -> None:
    """8 cores here, 24 there: a quarter and three quarters; the plan says why."""
    world = World()
    there = world.compute("there")
    world.agent()
    world.agent(there, cpu=24)
    experiment_id = world.run(node("simulate", 400))

    rows = dict(execute("SELECT compute_id, COUNT(*) FROM tasks GROUP BY compute_id"))

    assert rows == {world.compute_id: 100, there: 300}
    plan = execute("SELECT plan FROM experiments WHERE id = %s", [experiment_id])[0][0]
    assert "24 of 32 cores that are there now" in plan


def test_rows_of_a_resource_whose_agents_left_move_to_another() -> None:
    """The reconciler finds them by itself."""
    world = World()
    there = world.compute("there")
    agent = world.agent()
    gone = world.agent(there)
    experiment_id = world.run(node("simulate", 20))
    change("UPDATE agent_sessions SET heartbeat_at = 0 WHERE id = %s", [gone.session_id])

    reconcile()
    agent.work_off(experiment_id)

    assert experiment_state(experiment_id) == "COMPLETED"
    check_counters()


def test_no_row_moves_while_agents_may_only_not_have_come_back_yet() -> None:
    """After an outage of ours all of them look as if they had left; and rows that move are lost to
    the leases of them that a failover forgot."""
    world = World()
    there = world.compute("there")
    world.agent()
    late = world.agent(there)
    world.run(node("simulate", 20))
    change("UPDATE agent_sessions SET heartbeat_at = 0 WHERE id = %s", [late.session_id])
    before = execute("SELECT id, compute_id FROM tasks ORDER BY id")
    epoch.bump("restored from a backup")

    reconcile()

    assert execute("SELECT id, compute_id FROM tasks ORDER BY id") == before
    assert {row[1] for row in before} == {world.compute_id, there}


def test_everything_due_is_derived_from_sql_alone() -> None:
    """With every wake-up lost, the reconciler alone brings an experiment to its end."""
    world = World()
    agent = world.agent()
    experiment_id = world.create(
        node("simulate", 2500),
        node("plot", foreach="simulate"),
        node("report", depends_on=["plot"]),
    )
    flow.submit(experiment_id)

    for _ in range(60):
        reconcile()
        # The answers' wake-ups are thrown away here.
        granted = agent.claimed().grants
        done = [leases.Report(lease=g.lease, outcome="completed") for g in granted]
        leases.report(agent.session_id, done)
        if experiment_state(experiment_id) == "COMPLETED":
            break

    assert counts(experiment_id) == {"completed": 5001}
    assert experiment_state(experiment_id) == "COMPLETED"
    assert flow.due_work() == []
    check_counters()


def test_calls_are_queued_at_once_and_share_one_hidden_experiment() -> None:
    """Two batches of one user are instances of one node; their tasks can be claimed immediately."""
    world = World()
    agent = world.agent()
    version_id = world.function(kind="python")
    given = [{"encoding": "json", "data": str(number)} for number in range(3)]

    first = flow.add_calls(function_version_id=version_id, owner_id=world.user_id, arguments=given)
    second = flow.add_calls(
        function_version_id=version_id,
        owner_id=world.user_id,
        arguments=[{"encoding": "blob", "sha256": "0" * 64}],
    )

    assert first.experiment_id == second.experiment_id
    assert first.wakeups.computes == {world.compute_id}
    grants = {g.task_id: g for g in agent.claim(10)}
    assert set(grants) == {*first.task_ids, *second.task_ids}
    assert [grants[task_id].arguments for task_id in first.task_ids] == [
        f'{{"data":"{number}","encoding":"json"}}' for number in range(3)
    ]
    assert not grants[second.task_ids[0]].gate_open
    assert grants[first.task_ids[0]].gate_open
    agent.complete(list(grants.values()))
    assert counts(first.experiment_id) == {"completed": 4}
    assert flow.due_work() == []
    check_counters()


def test_calls_go_before_sweeps() -> None:
    """Somebody waits for the answer."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 10))
    calls = flow.add_calls(
        function_version_id=world.function(),
        owner_id=world.user_id,
        arguments=[{"encoding": "json", "data": "1"}],
    )

    assert [g.task_id for g in agent.claim(1)] == calls.task_ids


@pytest.mark.parametrize("named", [False, True])
def test_calls_move_where_agents_have_left(named: bool) -> None:
    """No call waits at a deserted resource while another could run it, unless it was named."""
    world = World()
    deserted, alive = world.compute_id, world.compute("alive")
    calls = flow.add_calls(
        function_version_id=world.function(),
        owner_id=world.user_id,
        arguments=[{"encoding": "json", "data": "1"}] * 6,
        compute=[deserted] if named else None,
    )
    agent = world.agent(alive)
    before = {grant.task_id for grant in agent.claim(10)}

    for job, key in flow.due_work():
        assert job == "expand"
        flow.expand(key)

    moved = {grant.task_id for grant in agent.claim(10)}
    assert before | moved == (set() if named else set(calls.task_ids))
    assert bool(moved) is not named
    check_counters()


def test_a_call_that_nothing_can_run_is_refused() -> None:
    """At once, with the reason."""
    world = World()
    world.agent()
    version_id = world.function(resources={"compute": {"cpu": 64}})

    with pytest.raises(Conflict) as caught:
        flow.add_calls(
            function_version_id=version_id, owner_id=world.user_id, arguments=[{"encoding": "json"}]
        )
    assert caught.value.code == "no_compute"


def test_a_call_of_an_unknown_function_is_not_found() -> None:
    """No experiment is made for it."""
    world = World()
    with pytest.raises(NotFound):
        flow.add_calls(function_version_id=new_id(), owner_id=world.user_id, arguments=[{}])
    assert execute("SELECT COUNT(*) FROM experiments") == [(0,)]


def test_a_move_that_the_table_of_states_forbids_is_a_fault() -> None:
    """What ended stays ended, whatever asks for it."""
    with pytest.raises(ValueError, match="from COMPLETED to QUEUED"):
        counters.CounterChanges().move("node", TaskState.COMPLETED, TaskState.QUEUED)
