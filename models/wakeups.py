"""What has to be told to whom after a transaction committed.

The models never publish: they return these sets, and the rooms above (functions, queue) send the
wake-ups and enqueue the jobs. A wake-up that is lost costs time only, for the reconciler derives
the same work from SQL.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Wakeups:
    """Ids by what should happen to them."""

    computes: set[str] = field(default_factory=set)  # compute resources with new work to claim
    tasks: set[str] = field(default_factory=set)  # tasks that ended
    experiments: set[str] = field(default_factory=set)  # experiments whose progress changed
    sessions: set[str] = field(default_factory=set)  # agent sessions that should heartbeat at once
    expand: set[str] = field(default_factory=set)  # nodes with room in their window
    finish: set[str] = field(default_factory=set)  # experiments in which a node may have ended

    def merge(self, other: Wakeups) -> None:
        """Add the ids of `other` to these."""
        self.computes |= other.computes
        self.tasks |= other.tasks
        self.experiments |= other.experiments
        self.sessions |= other.sessions
        self.expand |= other.expand
        self.finish |= other.finish

    def __or__(self, other: Wakeups) -> Wakeups:
        """Both together, as new sets."""
        both = Wakeups()
        both.merge(self)
        both.merge(other)
        return both

    def __bool__(self) -> bool:
        """Whether anything has to be told at all."""
        return any(vars(self).values())
