"""The judge: does a record keep the protocol's invariants I1 to I8?

Each rule is one function that yields the faults it finds; `check` runs all. A rule may miss a fault
that the record does not show (a process was killed before it noted what it committed), but what it
names is one: where two commits may have come in either order, the lawful order is assumed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from tests.campaign.record import Event, Record

STORED = frozenset({"accepted", "duplicate"})
TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})
OURS = frozenset(
    {"api", "agents-api", "daemon", "redis", "database", "spicedb", "openbao", "local"}
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One broken promise: its name, the invariant, and what the record shows."""

    name: str
    invariant: str
    said: str

    def __str__(self) -> str:
        return f"{self.name} ({self.invariant}): {self.said}"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A result that the API accepted: committed between `began` and `t`."""

    lease: str
    agent: str
    outcome: str
    began: float
    t: float


class Facts:
    """The record, indexed by lease and task."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.claims: dict[str, Event] = {}  # by lease; the first commit that granted it
        self.leases: dict[str, list[str]] = defaultdict(list)  # by task, in order of their grant
        for event in record.of("claimed"):
            for lease in event["leases"]:
                if lease not in self.claims:
                    self.claims[lease] = event
                    self.leases[task_of(lease)].append(lease)
        self.accepted: dict[str, list[Judged]] = defaultdict(list)  # by task, in order
        for event in record.of("judged"):
            for lease, verdict, outcome in event["items"]:
                if verdict == "accepted":
                    self.accepted[task_of(lease)].append(
                        Judged(
                            lease=lease,
                            agent=event["agent"],
                            outcome=outcome,
                            began=event["began"],
                            t=event["t"],
                        )
                    )
        self.finals: dict[str, Event] = {event["task"]: event for event in record.of("final")}
        self.experiments = Counter(final.get("experiment") for final in self.finals.values())
        self.cancelled = {event.get("experiment") for event in record.of("cancelled")}
        self.failovers = [event["t"] for event in record.of("failover") if event["lost"]]

    def forgot(self, since: float, until: float) -> bool:
        """Whether a database lost its newest commits between the two times."""
        return any(since <= t <= until for t in self.failovers)


def task_of(lease: str) -> str:
    """The task that a lease is for."""
    return lease.split(".", 1)[0]


def attempt_of(lease: str) -> int:
    """The number of a lease's attempt."""
    return int(lease.split(".")[1])


Rule = Callable[[Facts], Iterator[Fault]]
RULES: list[tuple[str, str, str]] = []  # name, invariant, what it rejects
_FIND: list[Rule] = []


def rule(invariant: str) -> Callable[[Callable[[Facts], Iterator[str]]], Rule]:
    """Make a rule of a function that yields sentences; the rule is called like the function."""

    def register(find: Callable[[Facts], Iterator[str]]) -> Rule:
        name = find.__name__

        def found(facts: Facts) -> Iterator[Fault]:
            for said in find(facts):
                yield Fault(name=name, invariant=invariant, said=said)

        RULES.append((name, invariant, (find.__doc__ or "").strip()))
        _FIND.append(found)
        return found

    return register


def check(record: Record) -> list[Fault]:
    """Every fault that the record shows; empty for one that keeps all promises."""
    facts = Facts(record)
    return [fault for find in _FIND for fault in find(facts)]


def reruns(record: Record) -> int:
    """How often a payload was started again although the one before had not failed by itself."""
    failures = {final["task"]: final.get("failures", 0) for final in record.of("final")}
    starts = Counter(task_of(lease) for lease in record.starts)
    return sum(max(0, n - max(1, failures.get(task, 0))) for task, n in starts.items())


@rule("I1")
def two_results(facts: Facts) -> Iterator[str]:
    """Two leases of one task had their results accepted, and no failover forgot the first."""
    for task, accepted in facts.accepted.items():
        ends = [one for one in accepted if one.outcome in ("completed", "failed")]
        for first, second in combinations(ends, 2):
            if first.lease == second.lease or facts.forgot(first.began, second.t):
                continue
            if first.outcome == "completed":
                yield f"task {task}: {first.lease} and {second.lease}"


@rule("I1")
def changed_result(facts: Facts) -> Iterator[str]:
    """A result that completed its task is not how the task ended, though no cancel came first."""
    asked: dict[str, float] = {}
    for event in facts.record.of("cancelled"):
        for task in event["tasks"]:
            asked[task] = min(event.get("began", event["t"]), asked.get(task, event["t"]))
    for task, accepted in facts.accepted.items():
        final = facts.finals.get(task)
        for one in accepted:
            lost = facts.forgot(one.began, float("inf"))
            if final is None or one.outcome != "completed" or lost:
                continue
            late = one.t > asked.get(task, float("inf")) and final["state"] == "CANCELLED"
            wanted = ("CANCELLED" if late else "COMPLETED", one.lease)
            if (final["state"], final["lease"]) != wanted:
                yield f"{one.lease} was accepted; the task is {final['state']} {final['lease']}"


@rule("I1")
def foreign_artifact(facts: Facts) -> Iterator[str]:
    """An artifact is published by another lease than the one whose result was accepted."""
    for final in facts.finals.values():
        for lease in final.get("published", ()):
            if final["state"] != "COMPLETED" or lease != final["lease"]:
                yield f"task {final['task']}: {lease}, and the result is {final['lease']}'s"


@rule("I1")
def missing_artifact(facts: Facts) -> Iterator[str]:
    """A task with outputs completed without publishing one."""
    for final in facts.finals.values():
        if final["state"] == "COMPLETED" and final.get("outputs") and not final.get("published"):
            yield f"task {final['task']}"


@rule("I2")
def stale_result(facts: Facts) -> Iterator[str]:
    """A result was accepted although a newer lease had been granted by then."""
    for task, accepted in facts.accepted.items():
        for one in accepted:
            for newer in facts.leases[task]:
                claim = facts.claims[newer]
                is_newer = attempt_of(newer) > attempt_of(one.lease)
                forgotten = facts.forgot(claim["began"], one.t)
                if is_newer and claim["t"] < one.began and not forgotten:
                    yield f"{one.lease} was accepted after {newer} had been granted"


@rule("I2")
def foreign_result(facts: Facts) -> Iterator[str]:
    """A result was accepted from an agent that was never given the lease."""
    for accepted in facts.accepted.values():
        for one in accepted:
            claim = facts.claims.get(one.lease)
            if claim is not None and claim["agent"] != one.agent:
                yield f"{one.lease} of {claim['agent']} was reported by {one.agent}"


@rule("I2")
def attempt_reused(facts: Facts) -> Iterator[str]:
    """Two leases of one task have the same number, and no failover forgot the first."""
    for task, leases in facts.leases.items():
        for first, second in combinations(leases, 2):
            since, until = facts.claims[first]["began"], facts.claims[second]["t"]
            if attempt_of(first) == attempt_of(second) and not facts.forgot(since, until):
                yield f"task {task}: {first} and {second}"


@rule("I3")
def lost_acknowledgement(facts: Facts) -> Iterator[str]:
    """An agent was told that its result is stored, and the task ended otherwise."""
    completed = {
        lease
        for event in facts.record.of("reported")
        for lease, outcome in event["items"]
        if outcome == "completed"
    }
    for event in facts.record.of("answered"):
        for lease, verdict in event["items"]:
            final = facts.finals.get(task_of(lease))
            if verdict not in STORED or lease not in completed or final is None:
                continue
            if final["lease"] != lease:
                yield f"{lease} was {verdict}; the task is {final['state']} {final['lease']}"


@rule("I4")
def double_start(facts: Facts) -> Iterator[str]:
    """One lease started its payload more than once."""
    for lease, count in Counter(facts.record.starts).items():
        if count > 1:
            yield f"{lease} {count} times"


@rule("I4")
def phantom_lease(facts: Facts) -> Iterator[str]:
    """A payload ran for a lease that nobody was ever granted."""
    for lease in facts.record.starts:
        if lease not in facts.claims:
            yield lease


@rule("I4")
def ungated_start(facts: Facts) -> Iterator[str]:
    """A payload ran for a lease that had to pass the gate, and never did."""
    passed = {
        lease
        for event in facts.record.of("gate")
        for lease, verdict in event["verdicts"].items()
        if verdict == "ok"
    }
    for lease in facts.record.starts:
        claim = facts.claims.get(lease)
        if claim is not None and lease in claim["closed"] and lease not in passed:
            yield lease


@rule("I5")
def lost_task(facts: Facts) -> Iterator[str]:
    """A task that was accepted is nowhere."""
    for event in facts.record.of("submitted"):
        for task in event["tasks"]:
            if task not in facts.finals:
                yield task
        if "count" in event and event["experiment"] not in facts.cancelled:
            found = facts.experiments[event["experiment"]]
            if found != event["count"]:
                yield f"{event['count'] - found} of experiment {event['experiment']}"


@rule("I5")
def stuck_task(facts: Facts) -> Iterator[str]:
    """A task has not ended, with all the time that it could want."""
    for final in facts.finals.values():
        if final["state"] not in TERMINAL:
            yield f"{final['task']} is {final['state']}"


@rule("I5")
def no_next_timer(facts: Facts) -> Iterator[str]:
    """Nothing would ever have looked at a task again."""
    for event in facts.record.of("untimed"):
        for task in event["tasks"]:
            yield f"{task} at {event['t']:.1f}"


@rule("I6")
def cancel_ignored(facts: Facts) -> Iterator[str]:
    """A cancelled task went on to a result that came after the cancel's answer."""
    for event in facts.record.of("cancelled"):
        for task in event["tasks"]:
            final = facts.finals.get(task)
            if final is None or final["state"] in ("CANCELLED", "SKIPPED"):
                continue
            ends = [one for one in facts.accepted[task] if one.lease == final["lease"]]
            if ends and ends[0].began > event["t"] and not facts.failovers:
                yield f"{task} is {final['state']}"


@rule("I6")
def claimed_after_end(facts: Facts) -> Iterator[str]:
    """A task was given out although it had been cancelled, or had its result."""
    ended: dict[str, float] = {}
    for event in facts.record.of("cancelled"):
        ended.update((task, event["t"]) for task in event["tasks"])
    for task, accepted in facts.accepted.items():
        ends = [one.t for one in accepted if one.outcome == "completed"]
        ended.update((task, min(t, ended.get(task, t))) for t in ends)
    for lease, claim in facts.claims.items():
        t = ended.get(task_of(lease))
        if t is not None and claim["began"] > t and not facts.forgot(0.0, claim["t"]):
            yield lease


@rule("I7")
def expired_while_heard(facts: Facts) -> Iterator[str]:
    """A session expired although its agent had been heard within the time that it is given."""
    heard: dict[str, list[float]] = defaultdict(list)
    for event in facts.record.of("heartbeat"):
        heard[event["session"]].append(event["began"])
    for event in facts.record.of("expired"):
        since = event["began"] - event["after_s"]
        late = [t for t in heard[event["session"]] if since < t < event["began"]]
        if event["leases"] and late and not facts.forgot(since, event["t"]):
            yield f"session {event['session']}, heard {event['began'] - late[-1]:.1f} s before"


@rule("I7")
def expired_by_outage(facts: Facts) -> Iterator[str]:
    """A session expired while it was we who could not be reached."""
    faults = list(facts.record.of("fault"))
    agents = {event["session"]: event["agent"] for event in facts.record.of("session")}
    for event in facts.record.of("expired"):
        if not event["leases"]:
            continue
        until = event["began"]
        since = until - event["after_s"]
        agent = agents.get(event["session"])
        theirs = [f for f in faults if f["what"] == agent and _overlaps(f, since, until)]
        ours = sum(
            min(f["until"], until) - max(f["t"], since)
            for f in faults
            if f["what"] in OURS and _overlaps(f, since, until)
        )
        if ours > 0 and not theirs:
            yield f"session {event['session']}: {ours:.1f} s of its silence were ours"


@rule("I8")
def foreign_reach(facts: Facts) -> Iterator[str]:
    """An agent read or wrote an object of a lease of somebody else."""
    for event in facts.record.of("reached"):
        claim = facts.claims.get(event["lease"])
        if claim is not None and claim["agent"] != event["agent"]:
            yield f"{event['agent']} reached {event['lease']} of {claim['agent']}"


def _overlaps(fault: Event, since: float, until: float) -> bool:
    return bool(fault["t"] < until and fault["until"] > since)
