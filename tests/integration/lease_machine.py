"""The lease machine: the real queries beside the reference, whatever befalls them.

To the requests of agents it adds what users do, what time does, and failovers that lose commits.
In the end everything must end.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from airavata_scheduler.models import epoch, flow, leases
from airavata_scheduler.models.lease_records import Report
from airavata_scheduler.models.wakeups import Wakeups
from tests.integration.lease_choices import Draw
from tests.integration.lease_requests import LeaseRequests
from tests.integration.lease_witness import rows, stored
from tests.integration.world import Agent, node

MOST_TASKS = 8
ROUNDS = 20  # more than a task can be tried


class LeaseMachine(LeaseRequests):
    """Everything that may happen."""

    # ------------------------------------------------------------------ what time does

    @rule(data=st.data(), limit=st.sampled_from([1, 2, 1000]))
    def expire(self, data: Draw, limit: int) -> None:
        """A session is heard of no more, and those that are silent too long end."""
        session = self.reference.sessions.get(self.some_holder(data))
        if session is not None:
            self.silence(session)
        self.sweep(limit)

    def sweep(self, limit: int) -> None:
        """Sessions that are silent too long end, at most `limit` leases at once."""
        self.sound = False
        wakeups = leases.expire_sessions(limit=limit)
        self.reference.sweep(limit)
        self.after(wakeups)

    @rule(late=st.booleans())
    def lapse(self, late: bool) -> None:
        """Offers that nobody took up go back."""
        self.sound = False
        if late:
            self.pass_time()
        wakeups = leases.expire_offers()
        self.reference.lapse()
        self.after(wakeups)

    @rule(what=st.sampled_from(["delays", "minutes", "tick"]))
    def wait(self, what: str) -> None:
        """The delays of retries are over; or minutes pass; or the sweeper says that it lives."""
        passing: dict[str, Callable[[], object]] = {
            "delays": self.end_delays,
            "minutes": self.pass_time,
            "tick": epoch.tick,
        }
        passing[what]()

    # ------------------------------------------------------------------ what users do

    @rule(data=st.data())
    def cancel_task(self, data: Draw) -> None:
        """One task shall end; the session that holds it hears so."""
        self.sound = False
        task = data.draw(st.sampled_from(list(self.reference.tasks.values())), "task")
        holder = {task.session} if task.state.is_leased else set()
        if not task.state.is_terminal:
            self.witness.cancelled.add(task.id)
        wakeups = flow.cancel_task(task.id)
        self.reference.cancel_task(task)
        assert wakeups.sessions == holder
        self.after(wakeups)

    @rule(data=st.data(), what=st.sampled_from(["pause", "resume", "submit", "cancel"]))
    def change(self, data: Draw, what: str) -> None:
        """An experiment is held back, goes on, is submitted or cancelled."""
        self.sound = False
        experiment = data.draw(st.sampled_from(self.reference.experiments), "experiment")
        is_paused = experiment in self.reference.paused
        if what == "submit":
            if len(self.reference.tasks) < MOST_TASKS:
                self.submit(node("late", 2))
                self.after(Wakeups())
        elif what == "cancel":
            self.cancel(experiment)
        elif experiment in self.reference.cancelled or not self.reference.is_open(experiment):
            return
        elif is_paused and what == "resume":
            self.resume(experiment)
        elif not is_paused and what == "pause":
            wakeups = flow.pause(experiment)
            self.reference.pause(experiment)
            self.after(wakeups)

    def cancel(self, experiment: str) -> None:
        """All of it shall end."""
        open_tasks = [t.id for t in self.reference.of(experiment) if not t.state.is_terminal]
        self.witness.cancelled.update(open_tasks)
        wakeups = flow.cancel(experiment)
        self.reference.cancel(experiment)
        self.after(wakeups)

    def resume(self, experiment: str) -> None:
        """It goes on."""
        wakeups = flow.resume(experiment)
        self.reference.resume(experiment)
        self.after(wakeups)

    # ------------------------------------------------------------------ failovers

    @rule()
    def snapshot_again(self) -> None:
        """What is committed by now survives the next failover."""
        self.take_snapshot()

    @precondition(lambda self: bool(self.known))
    @rule(kind=st.sampled_from(["promoted", "restored"]), waits=st.booleans())
    def lose_commits(self, kind: str, waits: bool) -> None:
        """The database forgets the newest commits.

        Agents that report again before anything else (`waits`) bring every result back that was
        acknowledged and stored (I3).
        """
        self.sound = False
        results, kept = self.witness.results(), stored()
        told = list(self.witness.ever_acknowledged.values())
        self.fail_over(kind)
        if not waits:
            return
        for agent in self.agents[:3]:
            self.open_session(agent, [], [])
            self.send_claim(agent.session_id, f"claim-{next(self.numbers)}", 1, 3)
            again = [r for by, r in told if by == agent.id and r.lease.lease_id in kept]
            self.send_reports(agent.session_id, again)
            self.send_beat(agent.session_id)
        now = rows()
        for lease in results:
            # A task that was made in the lost commits is not known any more, by anybody.
            if lease.task_id in now:
                self.witness.see_result(lease, now[lease.task_id])
                self.told["came back"] += 1

    # ------------------------------------------------------------------ the end

    def teardown(self) -> None:
        """Whatever happened, everything ends."""
        try:
            if self.sound:
                self.everything_ends()
        finally:
            self.patch.undo()

    def everything_ends(self) -> None:
        """Only one agent is left, and no user; it completes whatever it can."""
        self.pass_time()
        for experiment in sorted(self.reference.paused - self.reference.cancelled):
            if self.reference.is_open(experiment):
                self.resume(experiment)
        last, *others = self.agents
        for agent in others:
            self.silence(self.reference.sessions[self.reference.newest[agent.id]])
        self.sweep(limit=1000)
        held = [t.held for t in self.reference.tasks.values() if t.held is not None]
        self.open_session(last, [(lease, None) for lease in held], [])
        for _ in range(ROUNDS):
            self.both_agree()
            if not any(map(self.reference.is_open, self.reference.experiments)):
                return
            self.one_round(last)
        raise AssertionError(f"I5: these never end: {self.reference.tasks}")

    def one_round(self, agent: Agent) -> None:
        """Claim, and complete what is held."""
        self.end_delays()
        session = self.reference.session(agent.session_id)
        self.send_claim(session.id, f"claim-{next(self.numbers)}", session.seq + 1, 3)
        held = [t.held for t in self.reference.tasks.values() if t.held is not None]
        self.send_reports(session.id, [Report(lease=lease, outcome="completed") for lease in held])
