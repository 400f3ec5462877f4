"""What agents ask, as steps of the lease machine.

A request may be repeated, late, reordered, or of a session that is over: it names any lease and any
session that there ever was. An answer that gets lost is one upon which nothing follows.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from airavata_scheduler.models import epoch, leases, sessions
from airavata_scheduler.models.ids import new_lease_id
from airavata_scheduler.models.lease_records import LeaseName, Mark, Phase, Report
from tests.integration.lease_choices import Draw, LeaseChoices, Named
from tests.integration.lease_rules import Session
from tests.integration.world import PLENTY

MARKED: tuple[Phase, ...] = ("running", "finalizing")
OUTCOMES: dict[str, dict[str, Any]] = {
    "completed": {"outcome": "completed"},
    "completed otherwise": {"outcome": "completed", "exit_code": 7},
    "failed": {"outcome": "failed", "failure_kind": "user", "exit_code": 3},
    "failed by its host": {"outcome": "failed", "failure_kind": "infrastructure"},
    "lost": {"outcome": "lost", "failure_kind": "infrastructure"},
    "refused": {"outcome": "refused", "failure_kind": "policy"},
    "cancelled": {"outcome": "cancelled"},
}


class LeaseRequests(LeaseChoices):
    """The requests of agents, and how they fall silent."""

    # ------------------------------------------------------------------ claims

    @rule(data=st.data(), most=st.integers(1, 3))
    def claim(self, data: Draw, most: int) -> None:
        """A new claim."""
        session_id = self.some_session(data)
        session = self.reference.sessions.get(session_id)
        number = next(self.numbers)
        self.send_claim(session_id, f"claim-{number}", (session.seq if session else 0) + 1, most)

    @rule(data=st.data(), most=st.integers(1, 3))
    def claim_more(self, data: Draw, most: int) -> None:
        """The same: without claims nothing happens."""
        self.claim(data, most)

    @precondition(lambda self: bool(self.claims))
    @rule(data=st.data(), most=st.integers(1, 3))
    def claim_again(self, data: Draw, most: int) -> None:
        """A claim that was sent before arrives again: it is late, or its answer was lost."""
        claim_id, seq = self._one(data, (Named(claim[0], claim) for claim in self.claims))
        self.send_claim(self.some_session(data), claim_id, seq, most)

    def send_claim(self, session_id: str, claim_id: str, seq: int, most: int) -> None:
        """A claim arrives at both."""
        if (claim_id, seq) not in self.claims:
            self.claims.append((claim_id, seq))
        answers = self.ask(
            session_id,
            lambda: leases.claim(
                session_id=session_id, claim_id=claim_id, seq=seq, max_tasks=most, free=PLENTY
            ),
            lambda session: session,
        )
        if answers is None:
            return
        answer, session = answers
        names = [grant.lease for grant in answer.grants]
        if claim_id in self.reference.claims:
            found, wanted = (
                (set(names), set(answer.dead)),
                self.reference.replayed(session, claim_id),
            )
            assert found == wanted, f"{found}, not {wanted}"
            self.told["replayed"] += len(names)
            self.told["dead"] += len(answer.dead)
        else:
            self.granted(session, claim_id, seq, most, names)
        self.after(answer.wakeups)

    def granted(
        self, session: Session, claim_id: str, seq: int, most: int, names: list[LeaseName]
    ) -> None:
        """A new claim got these leases."""
        wanted = self.reference.wanted(session, most) if seq >= session.seq else []
        session.seq = max(seq, session.seq)
        found, should = [lease.task_id for lease in names], [task.id for task in wanted]
        assert found == should, f"{found} were granted, not {should}"
        for task, lease in zip(wanted, names, strict=True):
            self.reference.granted(task, session, claim_id, lease)
            self.witness.granted(lease)
            self.known.append(lease)
        self.told["granted"] += len(names)

    # ------------------------------------------------------------------ the life of a lease

    @precondition(lambda self: bool(self.known))
    @rule(data=st.data())
    def start(self, data: Draw) -> None:
        """Leases ask to pass the gate."""
        session_id = self.some_holder(data)
        self.send_start(session_id, self.some_leases(data, session_id))

    def send_start(self, session_id: str, names: list[LeaseName]) -> None:
        """A request to start leases arrives at both."""
        answers = self.ask(
            session_id,
            lambda: leases.start(session_id, names),
            lambda session: self.reference.start(session, names),
        )
        if answers is not None:
            self.told_alike(answers[0].verdicts, answers[1])
            self.may_run(names, answers[1])
            self.after(answers[0].wakeups)

    @precondition(lambda self: bool(self.known))
    @rule(data=st.data(), ago_ms=st.integers(0, 100))
    def mark(self, data: Draw, ago_ms: int) -> None:
        """Payloads have reached a phase."""
        session_id = self.some_holder(data)
        marks = [
            (lease, data.draw(st.sampled_from(MARKED), "phase"))
            for lease in self.some_leases(data, session_id)
            for _ in range(data.draw(st.integers(1, 2), "times"))
        ]
        answers = self.ask(
            session_id,
            lambda: leases.mark(
                session_id,
                [Mark(lease=lease, phase=phase, started_ms_ago=ago_ms) for lease, phase in marks],
            ),
            lambda session: self.reference.mark(session, marks),
        )
        if answers is not None:
            self.after(answers[0])

    @precondition(lambda self: bool(self.known))
    @rule(data=st.data())
    def report(self, data: Draw) -> None:
        """Attempts have ended."""
        session_id = self.some_holder(data)
        outcomes = st.sampled_from(["completed", *OUTCOMES])
        self.send_reports(
            session_id,
            [
                Report(lease=lease, **OUTCOMES[data.draw(outcomes, "outcome")])
                for lease in self.some_leases(data, session_id)
            ],
        )

    @precondition(lambda self: bool(self.known))
    @rule(data=st.data())
    def report_more(self, data: Draw) -> None:
        """The same: reports are what most depends on."""
        self.report(data)

    @precondition(lambda self: bool(self.reports))
    @rule(data=st.data())
    def report_again(self, data: Draw) -> None:
        """Reports arrive once more, late, or beside others."""
        named = (Named(f"report {n}", report) for n, report in enumerate(self.reports))
        self.send_reports(self.some_session(data), self._some(data, named, least=1))

    def send_reports(self, session_id: str, reports: list[Report]) -> None:
        """Reports arrive at both."""
        self.reports += [report for report in reports if report not in self.reports]
        answers = self.ask(
            session_id,
            lambda: leases.report(session_id, reports),
            lambda session: self.reference.report(session, reports),
        )
        if answers is None:
            return
        self.told_alike([verdict.verdict for verdict in answers[0].verdicts], answers[1])
        for report, verdict in zip(reports, answers[1], strict=True):
            self.witness.judged(self.owners[session_id], report, verdict)
        self.after(answers[0].wakeups)

    @precondition(lambda self: bool(self.known))
    @rule(data=st.data())
    def release(self, data: Draw) -> None:
        """Unstarted leases are given back."""
        session_id = self.some_holder(data)
        names = self.some_leases(data, session_id)
        answers = self.ask(
            session_id,
            lambda: leases.release(session_id, names, "draining"),
            lambda session: self.reference.release(session, names),
        )
        if answers is not None:
            self.told_alike(answers[0].verdicts, answers[1])
            self.after(answers[0].wakeups)

    @precondition(lambda self: bool(self.known))
    @rule(data=st.data(), how=st.sampled_from(["truth", "start", "report"]))
    def probe(self, data: Draw, how: str) -> None:
        """Somebody asks for the truth about a lease, or guesses the id of one that is held."""
        session_id = self.some_session(data)
        lease = self.some_leases(data, session_id)[0]
        if how == "truth":
            self.ask_for_the_truth(session_id, lease)
            return
        held = [t.held for t in self.reference.tasks.values() if t.held is not None]
        guessed = [LeaseName(h.task_id, h.attempt, new_lease_id()) for h in held]
        if not guessed:
            return
        if how == "report":
            self.send_reports(session_id, [Report(lease=g, outcome="completed") for g in guessed])
        else:
            self.send_start(session_id, guessed)

    def ask_for_the_truth(self, session_id: str, lease: LeaseName) -> None:
        """What holds for one lease; nothing changes."""
        answers = self.ask(
            session_id,
            lambda: leases.truth(session_id, lease),
            lambda session: self.reference.truth(session, lease),
        )
        if answers is not None:
            truth, wanted = answers
            found = truth.verdict, truth.state, truth.cancel_requested
            assert found == wanted, f"{found}, not {wanted}"

    # ------------------------------------------------------------------ sessions

    @rule(data=st.data(), number=st.integers(0, 3), is_new=st.booleans())
    def open(self, data: Draw, number: int, is_new: bool) -> None:
        """An agent starts again."""
        agent = self.agents[number]
        listed, unresolved = self.some_list(data, agent.id), self.some_claims(data)
        self.open_session(agent, listed, unresolved, is_new=is_new)

    @precondition(lambda self: self.reference.is_left())
    @rule(data=st.data())
    def come_back(self, data: Draw) -> None:
        """An agent without a session starts again."""
        agent = next(a for a in self.agents if self.reference.is_left(a.id))
        self.open_session(agent, self.some_list(data, agent.id), self.some_claims(data))

    @rule(data=st.data(), digest=st.booleans(), settled=st.booleans())
    def beat(self, data: Draw, digest: bool, settled: bool) -> None:
        """A heartbeat, perhaps with what the agent believes to hold."""
        session_id = self.some_session(data)
        names = self.some_leases(data, session_id) if digest else []
        number = 0
        for lease in names:
            number ^= int(lease.lease_id, 16)
        said = (len(names), f"{number:x}") if digest else None
        self.send_beat(session_id, settled=settled, digest=said)

    @rule(data=st.data())
    def beat_with_list(self, data: Draw) -> None:
        """A heartbeat with the full list."""
        session_id = self.some_session(data)
        listed = self.some_list(data, self.owners[session_id])
        self.send_beat(session_id, full=listed, unresolved_claims=self.some_claims(data))

    def send_beat(self, session_id: str, *, settled: bool = True, **said: Any) -> None:
        """A heartbeat arrives at both; `settled`: the agent has reported all of it again."""
        session = self.reference.sessions.get(session_id)
        seq, told = (session.beats if session else 0) + 1, epoch.current() if settled else None
        answers = self.ask(
            session_id,
            lambda: sessions.heartbeat(session_id=session_id, seq=seq, settled=told, **said),
            lambda session: self.reference.beat(session, settled=settled, **said),
        )
        if answers is None:
            return
        beat, wanted = answers
        found = beat.want_full, sorted(beat.verdicts)
        assert found == wanted, f"{found}, not {wanted}"
        self.told.update(verdict for _, verdict in beat.verdicts)
        self.after(beat.wakeups)

    @rule(data=st.data(), sure=st.integers(0, 2))
    def end_session(self, data: Draw, sure: int) -> None:
        """An agent stops, once in a while; its payloads may go on."""
        session_id = self.some_session(data)
        if sure != 2:
            return
        sessions.end_session(session_id)
        session = self.reference.sessions.get(session_id)
        if session is not None and session.ended is None:
            session.ended = "stopped"
