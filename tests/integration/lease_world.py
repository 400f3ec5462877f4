"""What the lease machine works in: two experiments, four agents, the reference and the witness.

Every request goes to the real queries and to the reference (`ask`); after each step rows, counters
and invariants are compared (`both_agree`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from itertools import count
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from airavata_scheduler.models import claiming, epoch
from airavata_scheduler.models.database import execute, now_ms
from airavata_scheduler.models.errors import AiravataError
from airavata_scheduler.models.ids import new_id, new_lease_id
from airavata_scheduler.models.lease_records import LeaseName, Phase, Report
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.wakeups import Wakeups
from tests.conftest import empty_tables
from tests.integration import lease_bench as bench
from tests.integration.lease_reference import Reference
from tests.integration.lease_rules import Refused, Session, Task
from tests.integration.lease_witness import Witness
from tests.integration.world import Agent, World, experiment_state, node, work

Real = TypeVar("Real")
Wanted = TypeVar("Wanted")
Draw = st.DataObject

_NEW_TASKS = (
    "SELECT t.id, n.name, t.gate_open FROM tasks t JOIN nodes n ON n.id = t.node_id "
    "WHERE t.experiment_id = %s ORDER BY t.id"
)
STAGED = [{"storage": "s", "source": "/x", "destination": "x"}]
RETRIES = {"simulate": 1, "staged": 0, "plot": 2, "late": 0}


class LeaseWorld(RuleBasedStateMachine):
    """Two experiments, three agents where they run, and a stranger of another resource."""

    told: ClassVar[Counter[str]] = Counter()  # every answer of every run: a test sees what was met

    def __init__(self) -> None:
        super().__init__()
        empty_tables()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(claiming, "SESSIONS_KEPT_S", 0.0)
        self.numbers = count(1)
        self.servers = count(1)
        self.patch.setattr(epoch, "_incarnation", lambda: "server 0")
        epoch.tick()
        self.epochs = {epoch.current()}
        self.since_ms = now_ms()
        self.queue = bench.Queue()
        self.world = world = World()
        self.reference = Reference(compute=world.compute_id)
        self.submit(node("simulate", 2, retries=1), node("staged", stage_in=STAGED))
        self.submit(node("plot", retries=2, stage_in=STAGED))
        self.agents = [world.agent() for _ in range(3)]
        self.agents.append(world.agent(world.compute("elsewhere")))
        self.computes = {agent.id: world.compute_id for agent in self.agents[:3]}
        self.owners: dict[str, str] = {}  # session → agent
        for agent in self.agents:
            compute = self.computes.setdefault(agent.id, "elsewhere")
            self.reference.open(agent.id, agent.session_id, compute, [], [])
            self.owners[agent.session_id] = agent.id
        self.witness = Witness()
        self.known: list[LeaseName] = []  # every lease that was ever given out
        self.unknown = LeaseName(new_id(), 1, new_lease_id())  # of a task that there never was
        self.claims: list[tuple[str, int]] = []
        self.reports: list[Report] = []
        self.sound = True
        self.after(Wakeups())
        self.take_snapshot()

    def submit(self, *nodes: NodeSpec) -> None:
        """A new experiment, whose tasks are queued."""
        experiment_id = self.world.run(*nodes, compute=[self.world.compute_id])
        self.reference.experiments.append(experiment_id)
        for task_id, name, gate_open in execute(_NEW_TASKS, [experiment_id]):
            self.reference.tasks[task_id] = Task(
                id=task_id,
                experiment=experiment_id,
                retries=RETRIES[name],
                closed=not gate_open,
                place=self.reference.next_place(),
                made_in=self.reference.epoch,
            )

    # ------------------------------------------------------------------ asking both sides

    def ask(
        self, session_id: str, real: Callable[[], Real], wanted: Callable[[Session], Wanted]
    ) -> tuple[Real, Wanted] | None:
        """Ask the queries, then the reference: both answers, or None where both refuse."""
        self.sound = False
        try:
            session = self.reference.session(session_id)
        except Refused as refused:
            with pytest.raises(AiravataError) as caught:
                real()
            assert caught.value.code == str(refused), f"{caught.value.code}, not {refused}"
            self.told[str(refused)] += 1
            return None
        answer = real()
        return answer, wanted(session)

    def told_alike(self, real: list[Any], wanted: list[str]) -> None:
        """The verdicts are the reference's."""
        assert real == wanted, f"{real}, not {wanted}"
        self.told.update(wanted)

    def after(self, wakeups: Wakeups) -> None:
        """Do the jobs that follow, and give what was queued again its place."""
        work(wakeups)
        self.queue.keep_order(self.reference, self.since_ms)
        self.since_ms = now_ms()

    @invariant()
    def both_agree(self) -> None:
        """After each step: rows, counters, invariants."""
        bench.compare(self.reference)
        self.witness.look()
        for experiment_id in self.reference.experiments:
            is_open = experiment_state(experiment_id) in ("RUNNING", "PAUSED")
            wanted = self.reference.is_open(experiment_id)
            assert is_open == wanted, f"experiment {experiment_id} is open: {is_open}"
        self.sound = True

    def open_session(
        self,
        agent: Agent,
        listed: list[tuple[LeaseName, Phase | None]],
        unresolved: list[str],
        *,
        is_new: bool = False,
    ) -> None:
        """An agent starts anew at both; one that `is_new` was never acknowledged anything."""
        self.sound = False
        settled = "" if is_new else None
        opened = agent.open(leases=listed, unresolved_claims=unresolved, settled=settled)
        session_id, compute = opened.session_id, self.computes[agent.id]
        self.owners[session_id] = agent.id
        wanted = self.reference.open(
            agent.id, session_id, compute, listed, unresolved, is_new=is_new
        )
        self.told_alike(opened.verdicts, wanted)
        self.may_run([lease for lease, _ in listed], wanted)
        self.after(opened.wakeups)

    def may_run(self, names: list[LeaseName], verdicts: list[str]) -> None:
        """The witness sees which leases may run, or go on."""
        for lease, verdict in zip(names, verdicts, strict=True):
            if verdict in ("ok", "keep", "cancel"):
                self.witness.passed(lease)

    # ------------------------------------------------------------------ time

    def pass_time(self) -> None:
        """Minutes pass, in which the sweeper lives: nobody is waited for any more."""
        bench.minutes_pass()
        self.reference.grace = self.reference.holds = False
        for task in self.reference.tasks.values():
            task.young = False

    def end_delays(self) -> None:
        """Tasks that waited may be claimed, in the order in which they began to wait."""
        for task in self.reference.tasks.values():
            task.waits_ms = 0
            self.queue.let(task)

    def silence(self, session: Session) -> None:
        """The session is heard of no more."""
        session.silent = next(self.numbers)
        bench.fall_silent(session.id, session.silent)

    # ------------------------------------------------------------------ failovers

    def take_snapshot(self) -> None:
        """What the next failover will put back."""
        told = deepcopy((self.reference, self.queue, self.witness))
        self.snapshot = bench.save(), told

    def fail_over(self, kind: str) -> None:
        """The newest commits are lost, and it shows: by the server's identity, or by a command."""
        rows, (reference, queue, witness) = self.snapshot[0], deepcopy(self.snapshot[1])
        bench.put_back(rows)
        reference.epoch = self.reference.epoch
        self.reference, self.queue = reference, queue
        self.witness.failed_over(witness)
        self.begin_epoch(kind)

    def begin_epoch(self, kind: str) -> None:
        """Begin an epoch that never was before."""
        self.pass_time()
        if kind == "promoted":
            identity = f"server {next(self.servers)}"
            self.patch.setattr(epoch, "_incarnation", lambda: identity)
            self.patch.setattr(epoch, "_seen", None)  # as with every new connection
        else:
            epoch.bump(kind)
        assert epoch.current() not in self.epochs
        self.epochs.add(epoch.current())
        self.reference.epoch += 1
        self.reference.grace = self.reference.holds = True
