"""What the lease machine chooses from: sessions and leases of now, and all that there ever were.

Choices have short names in the traces of runs that failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from hypothesis import strategies as st

from airavata_scheduler.models.lease_records import LeaseName, Phase
from tests.integration.lease_world import LeaseWorld

Draw = st.DataObject
Any_ = TypeVar("Any_")

PHASES: tuple[Phase | None, ...] = (None, "running", "finalizing")


class Named(Generic[Any_]):
    """Something with a name for people."""

    def __init__(self, name: str, what: Any_) -> None:
        self.name, self.what = name, what

    def __repr__(self) -> str:
        return self.name


class LeaseChoices(LeaseWorld):
    """Mostly what makes sense; sometimes what is over, forgotten, or somebody else's."""

    def some_session(self, data: Draw) -> str:
        """Mostly the newest of an agent."""
        names = {session_id: f"session {n}" for n, session_id in enumerate(self.owners)}
        newest = [self.reference.newest[agent.id] for agent in self.agents]
        pool = newest[:3] * 4 + newest[3:] + list(self.owners)
        return self._one(data, (Named(names[session_id], session_id) for session_id in pool))

    def some_holder(self, data: Draw) -> str:
        """Mostly a session that holds leases."""
        holders = [t.session for t in self.reference.tasks.values() if t.held is not None]
        if not holders or data.draw(st.integers(0, 3), "anybody") == 3:
            return self.some_session(data)
        names = {session_id: f"session {n}" for n, session_id in enumerate(self.owners)}
        return self._one(data, (Named(names[str(h)], str(h)) for h in holders))

    def some_leases(self, data: Draw, session_id: str) -> list[LeaseName]:
        """Mostly leases that the session's agent holds."""
        pool = self._held(self.owners[session_id]) * 6 + self.known + [self.unknown]
        return self._some(data, map(self._named, pool), least=1)

    def some_list(self, data: Draw, agent: str) -> list[tuple[LeaseName, Phase | None]]:
        """What an agent might say that it holds."""
        is_whole = data.draw(st.booleans(), "all that it holds")
        chosen = self._held(agent)
        if chosen and not is_whole:
            chosen = self._some(data, map(self._named, chosen))
        if bool(self.known) and data.draw(st.booleans(), "and others"):
            more = self._some(data, map(self._named, self.known))
            chosen += [lease for lease in more if lease not in chosen]
        return [(lease, data.draw(st.sampled_from(PHASES), "phase")) for lease in chosen]

    def some_claims(self, data: Draw) -> list[str]:
        """Claims whose answer an agent has not seen."""
        if not self.claims or data.draw(st.booleans(), "has seen all answers"):
            return []
        return self._some(data, (Named(claim_id, claim_id) for claim_id, _ in self.claims))

    def _held(self, agent: str) -> list[LeaseName]:
        tasks = self.reference.tasks.values()
        return [t.held for t in tasks if t.held is not None and t.agent == agent]

    def _named(self, lease: LeaseName) -> Named[LeaseName]:
        known = lease in self.known
        return Named(f"lease {self.known.index(lease)}" if known else "an unknown lease", lease)

    def _one(self, data: Draw, pool: Iterable[Named[Any_]]) -> Any_:
        return data.draw(st.sampled_from(list(pool)), "chosen").what

    def _some(self, data: Draw, pool: Iterable[Named[Any_]], *, least: int = 0) -> list[Any_]:
        one = st.sampled_from(list(pool))
        many = st.lists(one, min_size=least, max_size=3, unique_by=lambda named: named.name)
        return [named.what for named in data.draw(many, "chosen")]
