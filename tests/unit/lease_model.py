"""The lease protocol as an explicit-state model, searched exhaustively.

One task, two agents, a batch system that starts jobs whenever it likes, a user who cancels, an
unreliable network, and a database that may lose its newest commits once. Messages are never
consumed, so loss, duplication, reordering and any delay are all covered. A failover empties the
network of all but acknowledgements, and what an agent resends then stands for its retries.

`Rules` names each mechanism of the protocol. With all of them `lease_search` finds nothing; taking
one away must be found: a check that cannot fail proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Lease = tuple[int, int, int]  # agent, claim, attempt
Result = tuple[Lease | None, str]  # whose, and its kind
Message = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The mechanisms of the protocol, and how much may go wrong."""

    fence: Literal["lease", "attempt", "none"] = "lease"  # what a result must match
    replays_claims: bool = True  # the same claim again gets the same lease
    start_gate: bool = True  # a payload runs only after the server's OK
    exclusive_lock: bool = True  # `mkdir started`: the second starter exits
    journal: bool = True  # survives a crash of the agent
    # An unclaimed task goes back to its newest lease, and after a failover to a forgotten one.
    reattach: Literal["newest or forgotten", "newest", "never"] = "newest or forgotten"
    rereport: bool = True  # what was acknowledged is sent again in a new epoch
    epoch_changes: bool = True  # a failover that loses commits begins a new epoch
    answers_name_epoch: bool = True  # an acknowledgement says in which epoch it was committed
    claims_outrank_forgotten: bool = True  # a lease given out since shuts forgotten ones out
    lists: bool = True  # an agent's full list ends a lease that it does not hold
    waits_for_the_told: bool = True  # until each agent has reported again, nothing is decided anew
    cancel_stops_requeue: bool = True  # a cancelled task is never queued again
    cancel_spares_results: bool = True  # a cancel after the result changes nothing
    cancel_is_told: bool = True  # heartbeats and the gate tell the lease's agent to stop
    sees_pending: bool = False  # a restarted agent finds jobs that have not begun
    payloads_end: bool = True  # by themselves; else only when they are stopped
    expiries: int = 1
    crashes: int = 0
    host_crashes: int = 0
    failovers: int = 0
    agents: int = 2
    claims: int = 1  # by each agent
    spare_claims: int = 0  # more, in place of those that came to nothing
    attempts: int = 2
    cancel: bool = False


class Entry(NamedTuple):
    """One claim in an agent's journal, with the jobs that it submitted.

    Phases: I intent, G granted, S starting, R running, F finished, K acknowledged, X dropped. Jobs:
    p pending, r running, e ended well, x died, k killed, d exited as a duplicate.
    """

    claim: int
    phase: str = "I"
    attempt: int = 0
    jobs: str = ""
    lock: bool = False
    runs: int = 0
    outcome: str = ""
    acked_epoch: int = -1


class Server(NamedTuple):
    """The task's row; this is what a failover puts back."""

    state: str = "Q"  # Queued, Leased, Done
    attempt: int = 0
    lease: Lease | None = None
    started: bool = False
    accepted: Result | None = None
    accepts: int = 0
    cancelled: bool = False
    granted: tuple[Lease, ...] = ()
    newest: Lease | None = None  # stays on the row when a lease expires
    leased_epoch: int = -1  # when a lease was given out for the last time


class Agent(NamedTuple):
    """One agent: whether its process lives, and its journal."""

    alive: bool = True
    entries: tuple[Entry, ...] = ()


class State(NamedTuple):
    """Everything there is at one moment."""

    server: Server = Server()
    agents: tuple[Agent, ...] = ()
    network: frozenset[Message] = frozenset()
    epoch: int = 0
    expired: int = 0
    crashed: int = 0
    hosts_crashed: int = 0
    failed_over: int = 0
    snapshot: Server | None = None
    claimed: Lease | None = None  # the last lease that a claim got in this epoch: a witness's note


Step = tuple[str, State]


def send(state: State, *messages: Message) -> State:
    """Put messages on the network, where they stay."""
    return state._replace(network=state.network | set(messages))


def with_entry(state: State, agent: int, position: int, **changes: Any) -> State:
    """Change one journal entry."""
    one = state.agents[agent]
    changed = one.entries[position]._replace(**changes)
    entries = (*one.entries[:position], changed, *one.entries[position + 1 :])
    return with_agent(state, agent, one._replace(entries=entries))


def with_agent(state: State, agent: int, changed: Agent) -> State:
    """Replace one agent."""
    agents = (*state.agents[:agent], changed, *state.agents[agent + 1 :])
    return state._replace(agents=agents)


# ------------------------------------------------------------------------------ the server


def ended(server: Server, lease: Lease | None, kind: str) -> Server:
    """The task has its result."""
    return server._replace(state="D", accepted=(lease, kind), accepts=server.accepts + 1)


def requeued(server: Server, lease: Lease | None, rules: Rules) -> Server:
    """A lease ended without a result: queued again while the budget lasts and nobody cancelled.

    `lease` is the one whose agent said so, None where nobody did.
    """
    stops = server.cancelled and rules.cancel_stops_requeue
    if server.attempt < rules.attempts and not stops:
        return server._replace(state="Q", lease=None, started=False)
    kind = "cancelled" if stops else "failed"
    return ended(server._replace(lease=None, started=False), lease, kind)


def may_reattach(state: State, lease: Lease, rules: Rules) -> bool:
    """Whether a task that nobody holds may go back to a lease.

    As `report_rules.may_reattach`: to the newest lease; and to one that the row does not know only
    if the database lost commits, and gave out no other lease since. That one may also be later than
    the lease that the row names.
    """
    server = state.server
    if server.state == "D" or rules.reattach == "never":
        return False
    if server.state == "Q" and server.newest == lease:
        return True
    forgotten = state.epoch > 0 and server.attempt < lease[2]
    since = rules.claims_outrank_forgotten and server.leased_epoch == state.epoch
    return rules.reattach == "newest or forgotten" and forgotten and not since


def matches(mine: Lease | None, theirs: Lease, rules: Rules) -> bool:
    """The fence between two leases."""
    if mine is None:
        return False
    return mine[2] == theirs[2] if rules.fence == "attempt" else mine == theirs


def is_settled(state: State, rules: Rules) -> bool:
    """Whether every agent has told in this epoch what was acknowledged to it in another one.

    An acknowledgement that is still under way counts: an agent sends one report after the other, so
    it has that answer before it says that it is through.
    """
    if not rules.waits_for_the_told:
        return True
    return not any(
        is_untold(state, (number, entry.claim, entry.attempt), entry)
        for number, agent in enumerate(state.agents)
        for entry in agent.entries
    )


def is_untold(state: State, lease: Lease, entry: Entry) -> bool:
    """Whether a result was acknowledged, but not yet in the present epoch."""
    if entry.phase == "F" and entry.acked_epoch == -1:
        return any(("ok", lease, epoch) in state.network for epoch in range(state.epoch))
    return entry.phase in "FK" and entry.acked_epoch not in (-1, state.epoch)


def was_told_before(state: State, lease: Lease) -> bool:
    """Whether the agent says of a report that it was acknowledged before."""
    return state.agents[lease[0]].entries[lease[1]].acked_epoch != -1


def on_claim(state: State, message: Message, rules: Rules) -> State:
    """A claim arrives, perhaps not for the first time."""
    _, agent, claim = message
    server = state.server
    if rules.replays_claims:
        if server.state == "L" and server.lease and server.lease[:2] == (agent, claim):
            return send(state, ("grant", server.lease))
        if any(lease[:2] == (agent, claim) for lease in server.granted):
            return send(state, ("dead", agent, claim))
    if server.state != "Q" or server.attempt >= rules.attempts or not is_settled(state, rules):
        return state
    lease = (agent, claim, server.attempt + 1)
    granted = server._replace(
        state="L",
        attempt=server.attempt + 1,
        lease=lease,
        started=False,
        granted=(*server.granted, lease),
        newest=lease,
        leased_epoch=state.epoch,
    )
    return send(state._replace(server=granted, claimed=lease), ("grant", lease))


def on_start(state: State, message: Message, rules: Rules) -> State:
    """A lease asks to pass the gate."""
    lease: Lease = message[1]
    server = state.server
    if server.state == "D" and server.accepted and server.accepted[0] == lease:
        return state  # "finished": the agent does not stop for it
    if server.state == "L" and server.lease == lease:
        if server.cancelled and rules.cancel_is_told:
            return send(state, ("cancel", lease))
        return send(state._replace(server=server._replace(started=True)), ("startok", lease))
    if may_reattach(state, lease, rules):
        if not is_settled(state, rules):
            return state  # no answer: an acknowledged result of another lease may be on its way
        known = server.granted if lease in server.granted else (*server.granted, lease)
        # One that the row does not know was given out before the commits were lost.
        since = server.leased_epoch if server.newest == lease else state.epoch - 1
        held = server._replace(
            state="L",
            attempt=lease[2],
            lease=lease,
            started=True,
            granted=known,
            newest=lease,
            leased_epoch=since,
        )
        return send(state._replace(server=held), ("startok", lease))
    return send(state, ("stale", lease))


def on_done(state: State, message: Message, rules: Rules) -> State:
    """A report arrives."""
    _, lease, kind = message
    server = state.server
    if server.state == "D":
        first, said = server.accepted or (None, "")
        same = matches(first, lease, rules) and (said == "ok") == (kind == "ok")
        known = rules.fence == "none" or same
        return send(state, ("ok", lease, state.epoch) if known else ("stale", lease))
    if not (is_settled(state, rules) or was_told_before(state, lease)):
        return state  # no answer: an acknowledged result of another lease may be on its way
    current = server.state == "L" and matches(server.lease, lease, rules)
    if not (current or may_reattach(state, lease, rules) or rules.fence == "none"):
        return send(state, ("stale", lease))
    if kind == "ok":
        after = ended(server, lease, kind)._replace(lease=lease, started=True)
    else:
        after = requeued(server._replace(newest=None, attempt=lease[2]), lease, rules)
    return send(state._replace(server=after), ("ok", lease, state.epoch))


ANSWERS = {"claim": on_claim, "start": on_start, "done": on_done}


def server_steps(state: State, rules: Rules) -> Iterator[Step]:
    """What the server may do next."""
    server = state.server
    for message in state.network:
        if message[0] in ANSWERS:
            yield f"server {message[0]}", ANSWERS[message[0]](state, message, rules)
    if server.state == "L" and is_settled(state, rules):
        after = requeued(server, None, rules)
        if state.expired < rules.expiries:
            yield "expire", state._replace(server=after, expired=state.expired + 1)
        if rules.lists and server.lease and is_absent(state.agents, server.lease):
            yield "absent", state._replace(server=after)
    if rules.cancel:
        yield from cancels(state, rules)
    if state.failed_over < rules.failovers:
        yield from failovers(state, rules)


def is_absent(agents: tuple[Agent, ...], lease: Lease) -> bool:
    """Whether the lease's agent is there, and does not name it in its full list."""
    agent, claim, _ = lease
    one = agents[agent]
    held = claim < len(one.entries) and one.entries[claim].phase in "IGSRF"
    return one.alive and not held


def cancels(state: State, rules: Rules) -> Iterator[Step]:
    """A user cancels the task, and the lease's agent hears of it."""
    server = state.server
    open_to_it = server.state != "D" or not rules.cancel_spares_results
    if not server.cancelled and open_to_it:
        after = server._replace(cancelled=True)
        if server.state != "L":
            after = ended(after, None, "cancelled")
        yield "cancel", state._replace(server=after)
    if server.cancelled and server.state == "L" and rules.cancel_is_told:
        yield "tell the cancel", send(state, ("cancel", server.lease))


def failovers(state: State, rules: Rules) -> Iterator[Step]:
    """The database loses what was committed after the snapshot; answers may be under way still."""
    if state.snapshot is None:
        yield "snapshot", state._replace(snapshot=state.server)
        return
    after = state._replace(
        server=state.snapshot,
        epoch=state.epoch + rules.epoch_changes,
        failed_over=state.failed_over + 1,
        snapshot=None,
        network=frozenset(message for message in state.network if message[0] == "ok"),
        claimed=None,
    )
    yield "failover", after


# ------------------------------------------------------------------------------ the agents


def agent_steps(state: State, agent: int, rules: Rules) -> Iterator[Step]:
    """What one agent and its site may do next."""
    one = state.agents[agent]
    yield from crashes(state, agent, rules)
    for position, entry in enumerate(one.entries):
        yield from job_steps(state, agent, position, entry, rules)
    if not one.alive:
        return
    # A claim that came to nothing is made again, or the task would wait for the bound of the model.
    used = sum(e.phase != "X" or bool(e.jobs) for e in one.entries)
    claim = len(one.entries)
    most = rules.claims + rules.spare_claims
    if all(e.phase in "KX" for e in one.entries) and used < rules.claims and claim < most:
        begun = with_agent(state, agent, one._replace(entries=(*one.entries, Entry(claim))))
        yield "claim", send(begun, ("claim", agent, claim))
    for position, entry in enumerate(one.entries):
        yield from resends(state, agent, entry, rules)
        yield from entry_steps(state, agent, position, entry, rules)
        yield from deliveries(state, agent, position, entry, rules)


def crashes(state: State, agent: int, rules: Rules) -> Iterator[Step]:
    """Processes and hosts die and come back."""
    one = state.agents[agent]
    if one.alive and state.crashed < rules.crashes:
        entries = one.entries
        if not rules.journal:
            entries = tuple(e if e.phase in "KX" else e._replace(phase="X") for e in entries)
        after = with_agent(state, agent, Agent(alive=False, entries=entries))
        yield "crash", after._replace(crashed=state.crashed + 1)
    if not one.alive:
        yield "restart", with_agent(state, agent, one._replace(alive=True))
    if state.hosts_crashed < rules.host_crashes and any("r" in e.jobs for e in one.entries):
        died = tuple(e._replace(jobs=e.jobs.replace("r", "x")) for e in one.entries)
        after = with_agent(state, agent, Agent(alive=False, entries=died))
        yield "host crash", after._replace(hosts_crashed=state.hosts_crashed + 1)


def job_steps(
    state: State, agent: int, position: int, entry: Entry, rules: Rules
) -> Iterator[Step]:
    """The batch system starts jobs and they end, whatever the agent does."""
    for number, job in enumerate(entry.jobs):
        before, after = entry.jobs[:number], entry.jobs[number + 1 :]
        if job == "p" and entry.lock and rules.exclusive_lock:
            yield "duplicate", with_entry(state, agent, position, jobs=f"{before}d{after}")
        elif job == "p":
            jobs, runs = f"{before}r{after}", entry.runs + 1
            yield (
                "job starts",
                with_entry(state, agent, position, jobs=jobs, lock=True, runs=runs),
            )
        elif job == "r" and rules.payloads_end:
            yield "job ends", with_entry(state, agent, position, jobs=f"{before}e{after}")


def resends(state: State, agent: int, entry: Entry, rules: Rules) -> Iterator[Step]:
    """After a failover an agent's requests may be lost for good, so it sends them again."""
    if not rules.failovers:
        return
    lease = (agent, entry.claim, entry.attempt)
    message = {
        "I": ("claim", agent, entry.claim),
        "G": ("start", lease),
        "F": ("done", lease, entry.outcome),
    }.get(entry.phase)
    if message is not None and message not in state.network:
        yield "resend", send(state, message)


def entry_steps(
    state: State, agent: int, position: int, entry: Entry, rules: Rules
) -> Iterator[Step]:
    """What an agent does with one lease by itself."""
    lease = (agent, entry.claim, entry.attempt)
    if entry.phase == "G" and not rules.start_gate:
        yield "start ungated", with_entry(state, agent, position, phase="S")
    elif entry.phase == "S":
        seen = any(job != "p" or rules.sees_pending for job in entry.jobs)
        if seen or entry.lock:
            yield "adopt", with_entry(state, agent, position, phase="R")
        elif len(entry.jobs) < 2:
            yield "submit", with_entry(state, agent, position, jobs=f"{entry.jobs}p")
    elif entry.phase == "R":
        if "e" in entry.jobs:
            after = with_entry(state, agent, position, phase="F", outcome="ok")
            yield "report", send(after, ("done", lease, "ok"))
        elif "x" in entry.jobs and "r" not in entry.jobs:
            after = with_entry(state, agent, position, phase="F", outcome="lost")
            yield "report lost", send(after, ("done", lease, "lost"))
    elif rules.rereport and entry.phase == "K" and entry.acked_epoch != state.epoch:
        yield "report again", with_entry(state, agent, position, phase="F")


def deliveries(
    state: State, agent: int, position: int, entry: Entry, rules: Rules
) -> Iterator[Step]:
    """Answers arrive, perhaps late and perhaps again."""
    lease = (agent, entry.claim, entry.attempt)
    for message in state.network:
        kind = message[0]
        if kind == "grant" and entry.phase == "I" and message[1][:2] == lease[:2]:
            after = with_entry(state, agent, position, phase="G", attempt=message[1][2])
            yield "grant", send(after, ("start", message[1]))
        elif kind == "dead" and entry.phase == "I" and message[1:] == lease[:2]:
            yield "dead", with_entry(state, agent, position, phase="X")
        elif message == ("startok", lease) and entry.phase == "G":
            yield "start ok", with_entry(state, agent, position, phase="S")
        elif message == ("stale", lease) and entry.phase in "GSRF":
            jobs = entry.jobs.replace("p", "k").replace("r", "k")
            yield "stale", with_entry(state, agent, position, phase="X", jobs=jobs)
        elif message == ("cancel", lease) and entry.phase in "GSR":
            jobs = entry.jobs.replace("p", "k").replace("r", "k")
            after = with_entry(state, agent, position, phase="F", jobs=jobs, outcome="cancelled")
            yield "stop", send(after, ("done", lease, "cancelled"))
        elif kind == "ok" and message[1] == lease and entry.phase == "F":
            epoch = message[2] if rules.answers_name_epoch else state.epoch
            yield "ok", with_entry(state, agent, position, phase="K", acked_epoch=epoch)
