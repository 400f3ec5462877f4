"""The search through every state of the lease model: what is unsafe, and what is stuck.

Safety, checked in every state:
1. the task has at most one accepted result (I1);
2. a result comes from the newest lease: none that was given out before another one (I2);
3. a result that was acknowledged in the present epoch is the stored one, and one that was
   acknowledged in another is not refused in this one, but for a user's cancel since (I3);
4. one lease runs its payload at most once on its host (I4);
5. a cancelled task is not queued again, and ends CANCELLED or with a result (I6).
Liveness: from every state the task can still end; no state is *stuck* (I5).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.unit.lease_model import (
    Agent,
    Entry,
    Lease,
    Result,
    Rules,
    State,
    Step,
    agent_steps,
    server_steps,
)


def violation(state: State) -> str | None:
    """Which safety property a state breaks, or None."""
    server = state.server
    stored = server.accepted if server.state == "D" else None
    for number, agent in enumerate(state.agents):
        for entry in agent.entries:
            broken = _broken_by(entry, (number, entry.claim, entry.attempt), state, stored)
            if broken is not None:
                return broken
    if server.accepts > 1:
        return "two results were accepted"
    if server.cancelled and (server.state == "Q" or (stored and stored[1] == "failed")):
        return "a cancelled task went on"
    if stored and stored[1] == "ok" and state.claimed not in (None, stored[0]):
        return "a result was accepted from an older lease"
    return None


def _broken_by(entry: Entry, lease: Lease, state: State, stored: Result | None) -> str | None:
    if entry.runs > 1:
        return "a lease ran twice on its host"
    if entry.outcome != "ok" or entry.acked_epoch == -1:
        return None
    if entry.phase == "K" and entry.acked_epoch == state.epoch and stored != (lease, "ok"):
        return "an acknowledged result is not the stored one"
    if entry.phase == "X" and not state.server.cancelled:
        return "an acknowledged result was refused later"
    return None


def successors(state: State, rules: Rules) -> list[Step]:
    """Every state that one step leads to."""
    steps = list(server_steps(state, rules))
    for agent in range(len(state.agents)):
        steps += agent_steps(state, agent, rules)
    return [(label, after) for label, after in steps if after != state]


@dataclass(kw_only=True)
class Finding:
    """What a search found: a violation or stuck states, each with the steps that lead there."""

    states: int
    complete: bool
    broken: str | None = None
    stuck: int = 0
    wasted: int = 0  # stuck states in which a payload had ended well already
    path: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether every state was seen, and none was unsafe or stuck."""
        return self.complete and self.broken is None and not self.stuck


def search(rules: Rules, *, limit: int = 400_000) -> Finding:
    """Visit every reachable state, breadth first; at most `limit` of them."""
    start = State(agents=tuple(Agent() for _ in range(rules.agents)))
    numbers: dict[State, int] = {start: 0}
    came_from: list[tuple[int, str]] = [(-1, "")]
    after: list[list[int]] = []
    queue = deque([start])
    done: list[int] = []
    while queue:
        state = queue.popleft()
        here = numbers[state]
        broken = violation(state)
        if broken is not None:
            path = _path(came_from, here)
            return Finding(states=len(numbers), complete=False, broken=broken, path=path)
        if state.server.state == "D":
            done.append(here)
        following = []
        for label, reached in successors(state, rules):
            if reached not in numbers:
                numbers[reached] = len(numbers)
                came_from.append((here, label))
                queue.append(reached)
            following.append(numbers[reached])
        after.append(following)
        if len(numbers) > limit:
            return Finding(states=len(numbers), complete=False)
    stuck = _stuck(after, done)
    states = list(numbers)
    wasted = sum(_has_worked(states[number]) for number in stuck)
    path = _path(came_from, stuck[0]) if stuck else []
    return Finding(states=len(numbers), complete=True, stuck=len(stuck), wasted=wasted, path=path)


def _has_worked(state: State) -> bool:
    return any("e" in entry.jobs for agent in state.agents for entry in agent.entries)


def _path(came_from: list[tuple[int, str]], number: int) -> list[str]:
    steps: list[str] = []
    while number > 0:
        number, label = came_from[number]
        steps.append(label)
    return steps[::-1]


def _stuck(after: list[list[int]], done: list[int]) -> list[int]:
    """States from which the task cannot end any more."""
    before: list[list[int]] = [[] for _ in after]
    for number, following in enumerate(after):
        for reached in following:
            before[reached].append(number)
    good = bytearray(len(after))
    front = list(done)
    for number in front:
        good[number] = 1
    while front:
        for earlier in before[front.pop()]:
            if not good[earlier]:
                good[earlier] = 1
                front.append(earlier)
    return [number for number, fine in enumerate(good) if not fine]
