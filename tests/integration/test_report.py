"""Reports: verdicts, budgets, artifacts; starts, releases and what lapses. On every database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airavata_scheduler.models import epoch, flow, leases, stats
from airavata_scheduler.models.database import change, database, execute, now_ms
from airavata_scheduler.models.ids import new_id, new_lease_id
from airavata_scheduler.models.lease_records import (
    Grant,
    InlineLog,
    LeaseName,
    Mark,
    Report,
    ReportedArtifact,
)
from airavata_scheduler.models.rows import insert_rows
from airavata_scheduler.models.sweeping import expire_session
from tests.integration.world import (
    Agent,
    World,
    available_now,
    check_counters,
    counts,
    experiment_state,
    failed,
    lost,
    node,
    work,
)

pytestmark = pytest.mark.usefixtures("fresh_database")


def one_lease(world: World, agent: Agent, **fields: Any) -> tuple[str, Grant]:
    """An experiment of one task, claimed by `agent`."""
    experiment_id = world.run(node("simulate", **fields))
    return experiment_id, agent.claim(1)[0]


def again(agent: Agent) -> Grant:
    """The next attempt, at once."""
    available_now()
    return agent.claim(1)[0]


def expire(agent: Agent) -> None:
    """Let the agent's session be silent for too long."""
    change("UPDATE agent_sessions SET heartbeat_at = 0 WHERE id = %s", [agent.session_id])
    work(leases.expire_sessions())


def state_of(grant: Grant) -> int:
    """The task's state as a number."""
    return int(execute("SELECT state FROM tasks WHERE id = %s", [grant.task_id])[0][0])


def test_a_success_completes_the_task_and_the_experiment() -> None:
    """COMPLETED with an attempt row, statistics, an inline log, and an ended experiment."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent)

    verdicts = agent.report(
        Report(
            lease=grant.lease,
            outcome="completed",
            exit_code=0,
            duration_ms=70,
            result={"encoding": "json", "data": "42"},
            logs=(InlineLog(stream="stdout", size=3, data=b"hi\n"),),
        )
    )

    assert verdicts == ["accepted"]
    assert counts(experiment_id) == {"completed": 1}
    assert experiment_state(experiment_id) == "COMPLETED"
    assert execute("SELECT outcome, number, result FROM attempts") == [
        ("COMPLETED", 1, '{"data":"42","encoding":"json"}')
    ]
    assert execute("SELECT inline FROM logs") == [(b"hi\n",)]
    assert stats.histogram() == [(world.compute_id, "COMPLETED", 100, 1, 70)]
    assert stats.totals() == {(world.compute_id, "COMPLETED"): 1}
    check_counters()


def test_the_same_report_again_is_a_duplicate_and_another_a_conflict() -> None:
    """The first report counts; a different one is kept in the timeline and changes nothing."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent)
    agent.complete([grant])

    assert agent.complete([grant]) == ["duplicate"]
    assert agent.fail([grant]) == ["conflict"]
    assert counts(experiment_id) == {"completed": 1}
    assert execute("SELECT COUNT(*) FROM events WHERE kind = 'report_conflict'") == [(1,)]
    assert execute("SELECT outcome FROM attempts") == [("COMPLETED",)]


def test_a_lease_twice_in_one_batch_is_accepted_once() -> None:
    """The second item of the same batch is judged as if it had come later."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    report = Report(lease=grant.lease, outcome="completed")

    assert agent.report(report, report, failed(grant)) == ["accepted", "duplicate", "conflict"]
    check_counters()


def test_one_bad_item_never_blocks_the_rest() -> None:
    """An unknown task is gone, a foreign lease superseded, and the good one accepted."""
    world = World()
    agent, other = world.agent(), world.agent()
    world.run(node("simulate", 2))
    mine, theirs = agent.claim(1)[0], other.claim(1)[0]
    unknown = replace(mine, lease=LeaseName(new_id(), 1, new_lease_id()))

    assert agent.complete([unknown, theirs, mine]) == ["gone", "superseded", "accepted"]
    check_counters()


def test_a_lease_id_that_was_guessed_wrong_is_refused() -> None:
    """Attempt and agent alone are no fence: the random lease id has to match."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    forged = replace(grant, lease=replace(grant.lease, lease_id=new_lease_id()))

    assert agent.complete([forged]) == ["superseded"]
    assert state_of(grant) == 2


def test_another_attempt_of_the_same_lease_is_refused() -> None:
    """The random lease id alone is no fence either: the attempt's number has to match."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    forged = replace(grant, lease=replace(grant.lease, attempt=grant.attempt + 1))

    assert agent.complete([forged]) == ["superseded"]
    assert leases.start(agent.session_id, [forged.lease]).verdicts == ["superseded"]
    assert state_of(grant) == 2


def test_a_result_after_the_tasks_end_changes_nothing() -> None:
    """Cancelled while its agent was silent: the newest lease is not current any more (I1)."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent)
    expire(agent)
    work(flow.cancel_task(grant.task_id))
    agent.open()

    assert agent.complete([grant]) == ["superseded"]
    assert counts(experiment_id) == {"cancelled": 1}
    check_counters()


def test_an_attempt_from_the_future_is_not_believed_without_a_failover() -> None:
    """While the database never lost commits, only the lease on the row counts."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1))
    task_id = execute("SELECT id FROM tasks")[0][0]
    forged = Report(lease=LeaseName(task_id, 7, new_lease_id()), outcome="completed")

    assert agent.report(forged) == ["superseded"]


def test_a_result_whose_claim_the_database_forgot_is_accepted() -> None:
    """After a failover that lost the claim, the unclaimed task takes the agent's result (I3)."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    task_id = execute("SELECT id FROM tasks")[0][0]
    change("UPDATE tasks SET created_at = created_at - 60000")
    epoch.bump("restored from a backup")
    report = Report(lease=LeaseName(task_id, 2, new_lease_id()), outcome="completed")

    assert agent.report(report) == ["accepted"]
    assert agent.report(report) == ["duplicate"]
    assert counts(experiment_id) == {"completed": 1}
    check_counters()


def test_two_leases_of_one_task_in_one_batch() -> None:
    """After a failover both could be believed: the first one is, the second is superseded (I1)."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1))
    task_id = execute("SELECT id FROM tasks")[0][0]
    change("UPDATE tasks SET created_at = created_at - 60000")
    epoch.bump("restored from a backup")
    first, second = (
        Report(lease=LeaseName(task_id, attempt, new_lease_id()), outcome="completed")
        for attempt in (2, 3)
    )

    assert agent.report(first, second) == ["accepted", "superseded"]
    assert execute("SELECT lease_id FROM tasks") == [(first.lease.lease_id,)]
    assert counts(experiment_id) == {"completed": 1}
    check_counters()


def test_a_task_younger_than_the_failover_has_no_forgotten_leases() -> None:
    """What was made after the loss cannot have been lost by it, so the row is believed."""
    world = World()
    agent = world.agent()
    epoch.bump("restored from a backup")
    world.run(node("simulate", 1))
    change("UPDATE tasks SET created_at = created_at + 60000")
    task_id = execute("SELECT id FROM tasks")[0][0]
    forged = Report(lease=LeaseName(task_id, 2, new_lease_id()), outcome="completed")

    assert agent.report(forged) == ["superseded"]


def test_after_a_failover_a_claimed_task_is_not_given_away() -> None:
    """Once somebody claimed the task again, the forgotten lease is superseded."""
    world = World()
    agent, other = world.agent(), world.agent()
    world.run(node("simulate", 1))
    change("UPDATE tasks SET created_at = created_at - 60000")
    epoch.bump("restored from a backup")
    grant = other.claimed(1, hold_s=0).grants[0]
    report = Report(lease=LeaseName(grant.task_id, 2, new_lease_id()), outcome="completed")

    assert agent.report(report) == ["superseded"]
    expire_session(other.session_id, 10, -1)
    assert agent.report(report) == ["superseded"]


def test_two_attempts_that_the_database_forgot_come_in_one_batch() -> None:
    """A failed attempt and the one that succeeded after it: the result is kept (I3)."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 1, retries=1))
    task_id = execute("SELECT id FROM tasks")[0][0]
    change("UPDATE tasks SET created_at = created_at - 60000")
    epoch.bump("restored from a backup")
    first, second = (LeaseName(task_id, number, new_lease_id()) for number in (1, 2))
    done = Report(lease=second, outcome="completed")

    assert agent.report(replace(done, lease=first, outcome="failed"), done) == ["accepted"] * 2
    assert counts(experiment_id) == {"completed": 1}
    assert execute("SELECT lease_id FROM tasks") == [(second.lease_id,)]
    check_counters()


def test_a_forgotten_attempt_that_has_been_reported_is_over() -> None:
    """A list of leases that crossed the report's answer on its way does not bring it back."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 1, retries=2))
    task_id = execute("SELECT id FROM tasks")[0][0]
    change("UPDATE tasks SET created_at = created_at - 60000")
    epoch.bump("restored from a backup")
    lease = LeaseName(task_id, 1, new_lease_id())
    assert agent.report(Report(lease=lease, outcome="failed", exit_code=3)) == ["accepted"]

    late = leases.reconcile_session(agent.session_id, [(lease, "finalizing")], ())

    assert late.verdicts == ["superseded"]
    assert agent.report(Report(lease=lease, outcome="failed", exit_code=3)) == ["duplicate"]
    check_counters()


@pytest.mark.parametrize("forgot", ["the second claim", "both claims"])
def test_a_forgotten_later_attempt_goes_before_the_lease_on_the_row(forgot: str) -> None:
    """The row's lease had ended when the later one was given out, which the database forgot."""
    world = World()
    other, agent = world.agent(), world.agent()
    experiment_id, grant = one_lease(world, other)
    first = grant.lease
    if forgot == "both claims":
        change("UPDATE tasks SET state = 1, attempt = 0, lease_id = NULL, leased_at = NULL")
        change("UPDATE nodes SET queued = 1, leased = 0")
        check_counters()
    change("UPDATE tasks SET created_at = created_at - 60000, leased_at = leased_at - 60000")
    epoch.bump("restored from a backup")
    assert leases.reconcile_session(other.session_id, [(first, None)], ()).verdicts == ["keep"]
    second = Report(lease=LeaseName(first.task_id, 2, new_lease_id()), outcome="completed")

    assert agent.report(second) == ["accepted"]
    assert other.report(replace(second, lease=first)) == ["superseded"]
    assert counts(experiment_id) == {"completed": 1}
    check_counters()


def test_a_lease_given_out_after_the_loss_is_never_superseded_by_a_forgotten_one() -> None:
    """A later attempt, if it ever was: the task has been claimed in the present epoch."""
    world = World()
    other, agent = world.agent(), world.agent()
    world.run(node("simulate", 1))
    change("UPDATE tasks SET created_at = created_at - 60000")
    epoch.bump("restored from a backup")
    grant = other.claimed(1, hold_s=0).grants[0]
    later = Report(lease=LeaseName(grant.task_id, 7, new_lease_id()), outcome="completed")

    assert agent.report(later) == ["superseded"]
    assert other.complete([grant]) == ["accepted"]


def test_failures_of_the_task_use_up_the_users_budget() -> None:
    """With `retries: 2` the third failure is final, with the reason that the agent gave."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent, retries=2)

    agent.fail([grant])
    assert state_of(grant) == 1
    agent.fail([again(agent)])
    assert state_of(grant) == 1
    check_counters()
    agent.fail([again(agent)])

    assert counts(experiment_id) == {"failed": 1}
    assert experiment_state(experiment_id) == "FAILED"
    assert execute("SELECT failures, infra_failures, reason FROM tasks") == [
        (3, 0, "exit_nonzero: exit status 3")
    ]
    check_counters()


def test_a_retry_waits_longer_each_time() -> None:
    """2 s after the first failure, 4 s after the second."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent, retries=2)

    delays = []
    for _ in range(2):
        before = now_ms()
        agent.fail([grant])
        delays.append(execute("SELECT available_at FROM tasks")[0][0] - before)
        grant = again(agent)

    assert 1900 <= delays[0] <= 3500
    assert 3900 <= delays[1] <= 5500


def test_a_duplicate_of_an_earlier_attempt_stays_a_duplicate() -> None:
    """The report of attempt 1 again, while attempt 2 is queued or runs, changes nothing."""
    world = World()
    agent = world.agent()
    _, first = one_lease(world, agent, retries=1)
    agent.fail([first])

    assert agent.fail([first]) == ["duplicate"]
    second = again(agent)
    assert agent.fail([first]) == ["duplicate"]
    assert agent.complete([first]) == ["conflict"]
    assert agent.complete([second]) == ["accepted"]


def test_lost_attempts_use_up_the_infrastructure_budget() -> None:
    """Three losses are forgiven, the fourth is final; the user's budget is untouched."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent)

    for _ in range(3):
        agent.report(lost(grant))
        assert state_of(grant) == 1
        grant = again(agent)
    agent.report(lost(grant))

    assert counts(experiment_id) == {"failed": 1}
    failures, infra, reason = execute("SELECT failures, infra_failures, reason FROM tasks")[0]
    assert (failures, infra) == (0, 4)
    assert reason.startswith("lost 4 times to infrastructure")


def test_a_failure_of_infrastructure_does_not_cost_the_user() -> None:
    """`failed` with the kind `infrastructure` (a full disk, say) is paid as a loss."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)

    agent.report(replace(failed(grant), failure_kind="infrastructure", failure_code="disk_full"))

    assert state_of(grant) == 1
    assert execute("SELECT failures, infra_failures FROM tasks") == [(0, 1)]


def test_a_task_lost_on_three_agents_is_poison() -> None:
    """It is taken for the cause, and the rest of the fleet survives."""
    world = World()
    agents = [world.agent() for _ in range(3)]
    _, grant = one_lease(world, agents[0])

    agents[0].report(lost(grant))
    agents[1].report(lost(again(agents[1])))
    agents[2].report(lost(again(agents[2])))

    state, reason = execute("SELECT state, reason FROM tasks")[0]
    assert state == 6
    assert reason.startswith("poison: lost on 3 agents")


def test_two_refusals_make_a_task_invalid() -> None:
    """What agents refuse twice fails with the reason, at no cost to other budgets."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)

    def refused(grant: Grant) -> Report:
        return replace(
            failed(grant), outcome="refused", failure_code="policy_refused", message="no"
        )

    agent.report(refused(grant))
    assert state_of(grant) == 1
    agent.report(refused(again(agent)))

    assert execute("SELECT state, failures, refusals, reason FROM tasks") == [
        (6, 0, 2, "invalid: refused 2 times; the last time: policy_refused: no")
    ]


def artifact(grant: Grant, sha256: str = "a" * 64) -> str:
    """A staged upload of `grant`'s attempt."""
    artifact_id = new_id()
    insert_rows(
        "artifacts",
        (
            *("id", "experiment_id", "node_id", "idx", "task_id", "lease_id", "attempt", "output"),
            *("path", "size", "sha256", "storage_id", "storage_key", "state", "created_at"),
        ),
        [
            (
                *(artifact_id, grant.experiment_id, grant.node_id, grant.idx, grant.task_id),
                *(grant.lease.lease_id, grant.attempt, "RESULT", "result.csv", 12, sha256),
                *(new_id(), "key", "staged", now_ms()),
            )
        ],
    )
    return artifact_id


def said(sha256: str = "a" * 64) -> ReportedArtifact:
    """The same upload in the agent's words."""
    return ReportedArtifact(output="RESULT", path="result.csv", size=12, sha256=sha256)


def test_artifacts_are_published_by_the_accepted_report() -> None:
    """Staged before, published with the verdict."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    artifact(grant)

    agent.report(Report(lease=grant.lease, outcome="completed", artifacts=(said(),)))

    assert execute("SELECT state FROM artifacts") == [("published",)]


def test_an_attempt_that_failed_publishes_nothing() -> None:
    """Its uploads stay staged, although its report is accepted."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    artifact(grant)

    assert agent.report(replace(failed(grant), artifacts=(said(),))) == ["accepted"]

    assert execute("SELECT state FROM artifacts") == [("staged",)]


def test_a_superseded_attempt_publishes_nothing() -> None:
    """Its uploads stay staged."""
    world = World()
    agent, other = world.agent(), world.agent()
    _, grant = one_lease(world, agent)
    artifact(grant)
    expire(agent)
    again(other)
    agent.open()

    report = Report(lease=grant.lease, outcome="completed", artifacts=(said(),))
    assert agent.report(report) == ["superseded"]
    assert execute("SELECT state FROM artifacts") == [("staged",)]


def test_a_report_of_files_that_are_not_there_is_invalid() -> None:
    """The task stays leased, so that the agent can upload and report again."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    report = Report(lease=grant.lease, outcome="completed", artifacts=(said(),))

    answer = leases.report(agent.session_id, [report])
    assert answer.verdicts[0].verdict == "invalid"
    assert "was not uploaded" in str(answer.verdicts[0].message)
    artifact(grant, "b" * 64)
    assert agent.report(report) == ["invalid"]
    assert agent.report(replace(report, artifacts=(said("b" * 64),))) == ["accepted"]


def test_a_result_that_is_too_large_is_invalid() -> None:
    """More than 64 KiB of JSON belongs into an artifact."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    large = {"encoding": "json", "data": "x" * 70_000}

    assert agent.report(Report(lease=grant.lease, outcome="completed", result=large)) == ["invalid"]


def test_a_cancelled_task_ends_cancelled_unless_it_succeeded_first() -> None:
    """Whatever is reported after the cancel's answer, it is CANCELLED and not tried again (I6)."""
    world = World()
    agent = world.agent()
    experiment_id = world.run(node("simulate", 3, retries=5))
    fails, succeeds, was_first = agent.claim(3)
    for grant in (succeeds, was_first):
        artifact(grant)
    done, late = (
        Report(lease=grant.lease, outcome="completed", artifacts=(said(),))
        for grant in (was_first, succeeds)
    )
    agent.report(done)
    for grant in (fails, succeeds, was_first):
        flow.cancel_task(grant.task_id)

    assert [verdict for _, verdict in agent.beat().verdicts] == ["cancel", "cancel"]
    assert agent.report(failed(fails), late) == ["accepted", "accepted"]
    assert agent.report(late) == ["duplicate"]
    assert counts(experiment_id) == {"cancelled": 2, "completed": 1}
    published = execute("SELECT task_id FROM artifacts WHERE state = 'published'")
    assert published == [(was_first.task_id,)]
    check_counters()


def test_a_cancelled_task_whose_agent_is_gone_ends_cancelled() -> None:
    """Also where one more loss would have failed it: the cancel came before any result (I6)."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent)
    for _ in range(3):
        agent.report(lost(grant))
        grant = again(agent)
    flow.cancel_task(grant.task_id)

    expire(agent)

    assert counts(experiment_id) == {"cancelled": 1}
    check_counters()


def test_an_expired_lease_is_requeued_and_its_late_result_still_counts() -> None:
    """While nobody else claimed the task, the newest lease is attached again."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent)
    expire(agent)
    assert state_of(grant) == 1
    assert execute("SELECT outcome, failure_code FROM attempts") == [("EXPIRED", "agent_expired")]
    check_counters()

    agent.open()
    assert agent.complete([grant]) == ["accepted"]
    assert agent.complete([grant]) == ["duplicate"]
    assert counts(experiment_id) == {"completed": 1}
    assert execute("SELECT outcome FROM attempts") == [("COMPLETED",)]
    check_counters()


def test_an_expired_lease_that_was_claimed_by_another_is_superseded() -> None:
    """Never two results (I1, I2)."""
    world = World()
    agent, other = world.agent(), world.agent()
    experiment_id, grant = one_lease(world, agent)
    expire(agent)
    second = again(other)
    agent.open()

    assert second.attempt == 2
    assert leases.start(agent.session_id, [grant.lease]).verdicts == ["superseded"]
    assert agent.complete([grant]) == ["superseded"]
    assert other.complete([second]) == ["accepted"]
    assert agent.complete([grant]) == ["superseded"]
    assert counts(experiment_id) == {"completed": 1}


def test_nothing_expires_in_the_grace_after_an_outage() -> None:
    """An outage of our side is not the agents' silence (I7)."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    epoch.bump("an outage")

    expire(agent)
    change("UPDATE tasks SET gate_open = %s, leased_at = 0", [False])
    leases.expire_offers()

    assert state_of(grant) == 2


def test_a_session_that_spoke_meanwhile_does_not_expire() -> None:
    """The sweep listed it as silent; its heartbeat came before its turn (I7)."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)

    requeued, _ = expire_session(agent.session_id, 10, 60_000)

    assert requeued == 0
    assert state_of(grant) == 2
    assert execute("SELECT ended_at FROM agent_sessions") == [(None,)]


def test_expiry_takes_a_bounded_number_of_tasks_a_call() -> None:
    """The session ends with its last lease; until then the next call goes on."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 5))
    agent.claim(5)
    change("UPDATE agent_sessions SET heartbeat_at = 0")

    leases.expire_sessions(limit=3)
    assert execute("SELECT COUNT(*) FROM tasks WHERE state = 1") == [(3,)]
    assert execute("SELECT ended_at FROM agent_sessions") == [(None,)]
    leases.expire_sessions(limit=3)

    assert execute("SELECT COUNT(*) FROM tasks WHERE state = 1") == [(5,)]
    assert execute("SELECT end_reason FROM agent_sessions") == [("expired",)]
    check_counters()


def test_a_resources_own_timers_go_before() -> None:
    """A session that is silent for a minute stays where the resource waits for an hour."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    change("UPDATE compute_resources SET timers = %s", ['{"requeue_after_s": 3600}'])
    change("UPDATE agent_sessions SET heartbeat_at = heartbeat_at - 60000")

    leases.expire_sessions(requeue_after_s=10)
    assert state_of(grant) == 2
    change("UPDATE compute_resources SET timers = %s", ["{}"])
    leases.expire_sessions(requeue_after_s=10)
    assert state_of(grant) == 1


def test_many_sessions_that_may_be_silent_longer_hide_no_other() -> None:
    """Pilots that ended wait for their resource's long timer; a silent agent elsewhere does not."""
    world = World()
    patient = world.compute("patient")
    change(
        "UPDATE compute_resources SET timers = %s WHERE id = %s",
        ['{"requeue_after_s": 864000, "offer_ack_s": 864000}', patient],
    )
    pilot, agent = world.agent(patient), world.agent()
    insert_rows(
        "agent_sessions",
        (
            *("id", "agent_id", "compute_id", "boot_id", "state_folder_id", "started_at", "mode"),
            *("heartbeat_at", "ended_at", "end_reason", "held", "last_claim_seq", "heartbeat_seq"),
            "free",
        ),
        [
            (
                *(new_id(), pilot.id, patient, "boot", "folder", 0, "normal"),
                *(now_ms() - 7_200_000, 1, "stopped", 0, 0, 0),
                "{}",
            )
            for _ in range(600)
        ],
    )
    experiment_id, _ = one_lease(world, agent)
    change(
        "UPDATE agent_sessions SET heartbeat_at = %s WHERE id = %s",
        [now_ms() - 3_600_000, agent.session_id],
    )

    work(leases.expire_sessions())

    assert counts(experiment_id) == {"queued": 1}
    check_counters()


def test_an_offer_with_a_closed_gate_lapses_at_no_cost() -> None:
    """No budget pays, no attempt is recorded; a late start attaches the lease again."""
    world = World()
    agent = world.agent()
    staged = [{"storage": "s", "source": "/x", "destination": "x"}]
    _, grant = one_lease(world, agent, stage_in=staged)
    change("UPDATE tasks SET leased_at = leased_at - 120000")

    leases.expire_offers(offer_ack_s=300)
    assert state_of(grant) == 2
    leases.expire_offers(offer_ack_s=60)
    assert state_of(grant) == 1
    assert execute("SELECT failures, infra_failures, refusals FROM tasks") == [(0, 0, 0)]
    assert execute("SELECT COUNT(*) FROM attempts") == [(0,)]
    check_counters()

    assert leases.start(agent.session_id, [grant.lease]).verdicts == ["ok"]
    assert state_of(grant) == 2
    check_counters()


def test_an_offer_that_was_started_or_needs_no_start_never_lapses() -> None:
    """Its agent may be running it."""
    world = World()
    agent = world.agent()
    staged = [{"storage": "s", "source": "/x", "destination": "x"}]
    _, started = one_lease(world, agent, stage_in=staged)
    _, open_gate = one_lease(world, agent)
    leases.start(agent.session_id, [started.lease])
    change("UPDATE tasks SET leased_at = 1")

    leases.expire_offers()

    assert state_of(started) == 2
    assert state_of(open_gate) == 2


def test_start_answers_each_lease() -> None:
    """ok each time, finished after the result, superseded for others, gone for the unknown."""
    world = World()
    agent, other = world.agent(), world.agent()
    world.run(node("simulate", 3))
    mine, done = agent.claim(2)
    theirs = other.claim(1)[0]
    agent.complete([done])
    unknown = LeaseName(new_id(), 1, new_lease_id())
    asked = [mine.lease, mine.lease, done.lease, theirs.lease, unknown]

    verdicts = leases.start(agent.session_id, asked).verdicts

    assert verdicts == ["ok", "ok", "finished", "superseded", "gone"]
    assert leases.start(agent.session_id, [mine.lease]).verdicts == ["ok"]


def test_marks_move_a_lease_forward_only() -> None:
    """running, finalizing; a delayed `running` does not take `finalizing` back."""
    world = World()
    agent = world.agent()
    experiment_id, grant = one_lease(world, agent)

    leases.mark(agent.session_id, [Mark(lease=grant.lease, phase="running", started_ms_ago=500)])
    assert counts(experiment_id) == {"running": 1}
    leases.mark(agent.session_id, [Mark(lease=grant.lease, phase="finalizing")])
    leases.mark(agent.session_id, [Mark(lease=grant.lease, phase="running")])

    assert counts(experiment_id) == {"finalizing": 1}
    check_counters()


def test_a_released_lease_costs_nothing_and_is_gone_for_good() -> None:
    """The task is queued at once; the same release again is harmless; a result is not taken."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)

    assert leases.release(agent.session_id, [grant.lease], "draining").verdicts == ["released"]
    assert leases.start(agent.session_id, [grant.lease]).verdicts == ["superseded"]
    assert leases.release(agent.session_id, [grant.lease], "draining").verdicts == ["released"]
    assert execute("SELECT state, failures, infra_failures FROM tasks") == [(1, 0, 0)]
    check_counters()
    assert agent.complete([grant]) == ["superseded"]
    assert len(agent.claim(1)) == 1


def test_a_lease_that_lapsed_is_gone_for_good_once_it_is_released() -> None:
    """Its agent has dropped it: a start that comes late must not lease the task to nobody."""
    world = World()
    agent, other = world.agent(), world.agent()
    staged = [{"storage": "s", "source": "/x", "destination": "x"}]
    _, grant = one_lease(world, agent, stage_in=staged)
    change("UPDATE tasks SET leased_at = leased_at - 120000")
    leases.expire_offers()

    assert leases.release(other.session_id, [grant.lease], "draining").verdicts == ["superseded"]
    assert leases.release(agent.session_id, [grant.lease], "draining").verdicts == ["released"]

    assert leases.start(agent.session_id, [grant.lease]).verdicts == ["superseded"]
    assert leases.release(agent.session_id, [grant.lease], "draining").verdicts == ["released"]
    assert state_of(grant) == 1
    check_counters()


def test_a_started_lease_cannot_be_released() -> None:
    """Its payload runs; it can only end."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    leases.mark(agent.session_id, [Mark(lease=grant.lease, phase="running")])

    assert leases.release(agent.session_id, [grant.lease], "draining").verdicts == ["started"]
    agent.complete([grant])
    assert leases.release(agent.session_id, [grant.lease], "draining").verdicts == ["finished"]


def test_the_truth_about_a_lease_changes_nothing() -> None:
    """Kept while current, `report_again` after its result, nothing about other agents' leases."""
    world = World()
    agent, other = world.agent(), world.agent()
    _, grant = one_lease(world, agent)

    assert leases.truth(agent.session_id, grant.lease).verdict == "keep"
    foreign = leases.truth(other.session_id, grant.lease)
    assert (foreign.state, foreign.verdict) == (None, "superseded")
    agent.complete([grant])
    assert leases.truth(agent.session_id, grant.lease).verdict == "report_again"


@pytest.mark.parametrize("size", [1, 60])
def test_the_number_of_statements_does_not_depend_on_the_batch(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report is at most sixteen statements, whether it has one item or sixty."""
    world = World()
    agent = world.agent()
    world.run(node("simulate", 60), node("plot", foreach="simulate"))
    grants = agent.claim(size)
    epoch.current()  # every answer reads it, at most every five seconds
    said: list[str] = []
    run = database.obj.execute_sql

    def counted(sql: str, *rest: object, **more: object) -> object:
        said.append(sql)
        return run(sql, *rest, **more)

    monkeypatch.setattr(database.obj, "execute_sql", counted)
    reports = [Report(lease=g.lease, outcome="completed") for g in grants]
    answer = leases.report(agent.session_id, reports)

    assert {v.verdict for v in answer.verdicts} == {"accepted"}
    assert len(said) <= 16, said


@pytest.mark.parametrize("is_told", [True, False])
def test_an_attempt_never_ends_before_its_beginning(is_told: bool) -> None:
    """An age of a day, by the wrong clock of a machine that was rebooted, is cut at the lease."""
    world = World()
    agent = world.agent()
    _, grant = one_lease(world, agent)
    if is_told:
        agent.beat(marks=[Mark(lease=grant.lease, phase="running", started_ms_ago=0)])
    day_ms = 86_400_000

    agent.report(Report(lease=grant.lease, outcome="completed", duration_ms=10, age_ms=day_ms))

    leased_at, started_at, finished_at = execute(
        "SELECT leased_at, started_at, finished_at FROM attempts"
    )[0]
    assert leased_at <= started_at <= finished_at <= now_ms()
