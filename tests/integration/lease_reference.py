"""A plain reference of the leases: what each call must answer, and what must hold afterwards.

No SQL, no clock, no batch: a request is taken one lease after the other, and every rule of the
protocol is written as simply as it can be said. `lease_machine` drives the real queries beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from airavata_scheduler.models.lease_records import LeaseName, Phase, Report
from airavata_scheduler.models.states import TaskState as T
from tests.integration.lease_rules import (
    PHASES,
    REFUSALS,
    WAITING,
    Ended,
    Rules,
    Session,
    Task,
    backoff_ms,
)

Asked = TypeVar("Asked")


class Reference(Rules):
    """Answers every call as the real queries must."""

    # ------------------------------------------------------------------ what agents ask

    def open(
        self,
        agent: str,
        session_id: str,
        compute: str,
        listed: list[tuple[LeaseName, Phase | None]],
        unresolved: list[str],
        *,
        is_new: bool = False,
    ) -> list[str]:
        """A new session of the agent (`is_new`: of an empty journal); verdicts on what it lists."""
        before = self.sessions.get(self.newest.get(agent, ""))
        session = Session(id=session_id, agent=agent, compute=compute)
        self.sessions[session_id] = session
        self.newest[agent] = session_id
        if before is not None:
            if before.ended in (None, "stopped"):
                before.ended = "superseded"
            for task in self.tasks.values():
                if task.state.is_leased and task.session == before.id:
                    task.session = session_id
        session.settled = self.epoch if is_new else None
        return self.reconcile(session, listed, unresolved, spare_young=False)

    def reconcile(
        self,
        session: Session,
        listed: list[tuple[LeaseName, Phase | None]],
        unresolved: list[str],
        *,
        spare_young: bool,
    ) -> list[str]:
        """The full list of what an agent holds: verdicts; what it leaves out goes back.

        But not what it may have reported, before a failover that it has not told everything yet.
        """
        verdicts = self.latest_first(
            dict(listed), lambda lease, phase: self._listed(session, lease, phase)
        )
        names = {lease for lease, _ in listed}
        for task in self.tasks.values():
            mine = task.state.is_leased and task.session == session.id
            if not mine or task.held in names or task.claim in unresolved:
                continue
            if task.young and spare_young:
                continue
            if (task.leased_in or 0) < self.epoch and session.settled != self.epoch:
                continue
            if task.state is T.LEASED:
                self.requeue(task)
            else:
                self._end_unreported(task, "LOST")
                self.lose(task, session.agent)
        return verdicts

    def latest_first(
        self, asked: dict[LeaseName, Asked], judge: Callable[[LeaseName, Asked], str]
    ) -> list[str]:
        """Verdicts in the order of the request; where it names two leases of a task, the later
        attempt is judged first."""
        order = sorted(asked, key=lambda lease: -lease.attempt)
        verdicts = {lease: judge(lease, asked[lease]) for lease in order}
        return [verdicts[lease] for lease in asked]

    def _listed(self, session: Session, lease: LeaseName, phase: Phase | None) -> str:
        task = self.tasks.get(lease.task_id)
        verdict = self.verdict_on_held(session, lease)
        if task is not None and verdict in ("keep", "cancel"):
            told = PHASES[phase]
            state = max(told, task.state) if task.state.is_leased else told
            self.hold(task, lease, session, state)
            task.passed = task.passed or state is not T.LEASED
        return verdict

    def verdict_on_held(self, session: Session, lease: LeaseName) -> str:
        """What an agent hears of a lease that it says it holds."""
        task = self.tasks.get(lease.task_id)
        if task is None:
            return "gone"
        if self.is_current(task, lease, session.agent) or self.is_believed(task, lease, session):
            return "cancel" if task.cancelled else "keep"
        accepted = task.state in (T.COMPLETED, T.FAILED)
        return "report_again" if accepted and task.is_newest(lease, session.agent) else "superseded"

    def is_left(self, agent: str | None = None) -> bool:
        """Whether an agent (or any) has no session that lives."""
        return any(
            session.ended is not None
            for session in (self.sessions[s] for s in self.newest.values())
            if agent in (None, session.agent)
        )

    def truth(self, session: Session, lease: LeaseName) -> tuple[str, T | None, bool]:
        """What an agent may know: (verdict, the task's state, whether it is cancelled)."""
        verdict, task = self.verdict_on_held(session, lease), self.tasks.get(lease.task_id)
        if task is None or (verdict == "superseded" and task.agent != session.agent):
            return verdict, None, False
        return verdict, task.state, task.cancelled

    def beat(
        self,
        session: Session,
        digest: tuple[int, str] | None = None,
        full: list[tuple[LeaseName, Phase | None]] | None = None,
        unresolved_claims: list[str] | None = None,
        *,
        settled: bool = False,
    ) -> tuple[bool, list[tuple[LeaseName, str]]]:
        """A heartbeat: whether the full list is wanted, and the leases that are not simply kept."""
        session.beats, session.silent = session.beats + 1, 0
        session.settled = self.epoch if settled else None
        if full is not None:
            verdicts = self.reconcile(session, full, unresolved_claims or [], spare_young=True)
            named = [lease for lease, _ in full]
            told = [(n, v) for n, v in zip(named, verdicts, strict=True) if v != "keep"]
            return False, sorted(told)
        held = [t for t in self.tasks.values() if t.held and t.session == session.id]
        number = 0
        for task in held:
            number ^= int(str(task.lease), 16)
        differs = digest is not None and digest != (len(held), f"{number:x}")
        return differs, sorted((t.held, "cancel") for t in held if t.held and t.cancelled)

    def wanted(self, session: Session, most: int) -> list[Task]:
        """Which tasks a claim gets, in order: when tasks are scarce they are shared evenly."""
        queue = sorted(
            (t for t in self.tasks.values() if t.state is T.QUEUED and not t.waits_ms),
            key=lambda task: task.place,
        )
        here = [s for s in self.sessions.values() if s.compute == self.compute]
        live = [s for s in here if s.ended is None and not s.silent]
        if session.compute != self.compute:
            return []
        share = most if most <= 1 or len(live) <= 1 else max(1, -(-len(queue) // len(live)))
        if self.holds and any(s.settled != self.epoch for s in live):
            queue = [task for task in queue if task.made_in == self.epoch]
        return queue[: min(most, share)]

    def granted(self, task: Task, session: Session, claim_id: str, lease: LeaseName) -> None:
        """A claim got this lease."""
        assert lease.attempt == task.attempt + 1
        task.state, task.attempt, task.lease = T.LEASED, lease.attempt, lease.lease_id
        task.agent, task.session, task.claim = session.agent, session.id, claim_id
        task.passed, task.leased_in, task.young = False, self.epoch, True
        self.claims[claim_id] = session.agent

    def replayed(self, session: Session, claim_id: str) -> tuple[set[LeaseName], set[LeaseName]]:
        """What is left of a claim that was answered before: (current leases, dead ones)."""
        if self.claims[claim_id] != session.agent:
            return set(), set()
        mine = [t for t in self.tasks.values() if t.claim == claim_id and t.session == session.id]
        current = {t.held for t in mine if t.held is not None}
        dead = {
            LeaseName(t.id, t.attempt, t.lease)
            for t in mine
            if t.state is T.QUEUED and t.lease is not None
        }
        return current, dead

    def start(self, session: Session, leases: list[LeaseName]) -> list[str]:
        """The gate."""
        return self.latest_first(
            dict.fromkeys(leases), lambda lease, _: self._start(session, lease)
        )

    def _start(self, session: Session, lease: LeaseName) -> str:
        task = self.tasks.get(lease.task_id)
        if task is None:
            return "gone"
        if self.is_current(task, lease, session.agent) or self.is_believed(task, lease, session):
            state = task.state if task.state.is_leased else T.LEASED
            self.hold(task, lease, session, state)
            task.passed = True
            return "cancel" if task.cancelled else "ok"
        ended = task.state in (T.COMPLETED, T.FAILED)
        return "finished" if ended and task.is_newest(lease, session.agent) else "superseded"

    def mark(self, session: Session, marks: list[tuple[LeaseName, Phase]]) -> None:
        """Phases that payloads have reached."""
        for lease, phase in marks:
            task = self.tasks.get(lease.task_id)
            if task is not None and self.is_current(task, lease, session.agent):
                task.state = max(task.state, PHASES[phase])
                task.passed = True

    def report(self, session: Session, reports: list[Report]) -> list[str]:
        """How attempts ended."""
        return [self._report(session, report) for report in reports]

    def _report(self, session: Session, report: Report) -> str:
        lease = report.lease
        task = self.tasks.get(lease.task_id)
        if task is None:
            return "gone"
        said = (report.outcome, report.failure_kind, report.exit_code)
        earlier = task.ended.get(lease.lease_id)
        if earlier is not None and earlier.said is not None:
            return "duplicate" if earlier.said == said else "conflict"
        current = self.is_current(task, lease, session.agent)
        if not current and not self.is_believed(task, lease, session):
            return "superseded"
        task.ended[lease.lease_id] = Ended(
            agent=session.agent, outcome=report.outcome.upper(), said=said
        )
        task.attempt, task.lease = lease.attempt, lease.lease_id
        task.agent, task.session = session.agent, session.id
        self._settle(task, report)
        return "accepted"

    def _settle(self, task: Task, report: Report) -> None:
        if report.outcome == "completed":
            task.state = T.COMPLETED
        elif task.cancelled:
            task.state = T.CANCELLED
        elif report.outcome == "refused":
            task.refusals += 1
            self._again(task, 5000, budget_left=task.refusals < REFUSALS)
        elif report.outcome == "failed" and report.failure_kind != "infrastructure":
            task.failures += 1
            self._again(task, backoff_ms(task.failures), budget_left=task.failures <= task.retries)
        else:
            self.lose(task, str(task.agent))

    def _again(self, task: Task, waits_ms: int, *, budget_left: bool) -> None:
        if budget_left:
            self.requeue(task, waits_ms)
        else:
            task.state = T.FAILED

    def release(self, session: Session, leases: list[LeaseName]) -> list[str]:
        """Leases that were not started are given back."""
        return [self._release(session, lease) for lease in leases]

    def _release(self, session: Session, lease: LeaseName) -> str:
        task = self.tasks.get(lease.task_id)
        if task is None:
            return "gone"
        mine = task.is_newest(lease, session.agent)
        if mine and task.state.is_leased:
            if task.state is not T.LEASED:
                return "started"
            self.requeue(task)
            return "released"
        if mine and task.state in WAITING:
            task.lease = task.session = None  # it cannot be taken up again
            return "released"
        if mine and task.state.is_terminal:
            return "finished"
        given_back = task.state in WAITING and task.lease is None
        return "released" if given_back and task.attempt == lease.attempt else "superseded"

    # ------------------------------------------------------------------ what time does

    def sweep(self, limit: int) -> None:
        """Sessions that were silent for too long; at most `limit` leases."""
        silent = [s for s in self.sessions.values() if s.silent and s.ended in (None, "stopped")]
        for session in sorted(silent, key=lambda session: session.silent):
            if limit > 0 and not self.grace:
                limit -= self.expire(session, limit)

    def expire(self, session: Session, limit: int) -> int:
        """A session was silent for too long; how many of its leases ended."""
        held = sorted(
            (t for t in self.tasks.values() if t.state.is_leased and t.session == session.id),
            key=lambda task: task.id,
        )[:limit]
        if len(held) < limit:
            session.ended = "expired"
        for task in held:
            self._end_unreported(task, "EXPIRED")
            self.lose(task, session.agent, keeps_lease=True)
        return len(held)

    def _end_unreported(self, task: Task, outcome: str) -> None:
        assert task.lease is not None and task.lease not in task.ended
        task.ended[task.lease] = Ended(agent=str(task.agent), outcome=outcome)

    def lapse(self) -> None:
        """Offers that were not taken up in time."""
        for task in [] if self.grace else self.tasks.values():
            session = self.sessions.get(task.session or "")
            late = task.state is T.LEASED and task.closed and not task.passed and not task.young
            if late and session is not None and session.ended is None:
                self.requeue(task, keeps_lease=True)

    # ------------------------------------------------------------------ what the user does

    def cancel_task(self, task: Task) -> None:
        """One task shall end."""
        if task.state.is_leased:
            task.cancelled = True
        elif not task.state.is_terminal:
            task.state = T.CANCELLED

    def cancel(self, experiment: str) -> None:
        """All tasks of an experiment shall end."""
        if self.is_open(experiment):
            self.cancelled.add(experiment)
        for task in self.of(experiment):
            self.cancel_task(task)

    def of(self, experiment: str) -> list[Task]:
        """The tasks of one experiment."""
        return [task for task in self.tasks.values() if task.experiment == experiment]

    def is_open(self, experiment: str) -> bool:
        """Whether any of its tasks is still to end."""
        return any(not task.state.is_terminal for task in self.of(experiment))

    def pause(self, experiment: str) -> None:
        """Nothing new of it is claimed."""
        self.paused.add(experiment)
        for task in self.of(experiment):
            if task.state is T.QUEUED:
                task.state = T.PENDING

    def resume(self, experiment: str) -> None:
        """It is claimed again."""
        self.paused.discard(experiment)
        for task in self.of(experiment):
            if task.state is T.PENDING:
                task.state = T.QUEUED
