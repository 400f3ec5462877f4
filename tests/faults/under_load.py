"""Work on a whole deployment while something happens to its database, and the judge at the end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.campaign import outcome
from tests.campaign.checker import check
from tests.campaign.notes import Notes, now
from tests.campaign.record import Record, read
from tests.campaign.site import Site, send
from tests.campaign.work import Work
from tests.faults.visitor import Visitor
from tests.waiting import wait_until

AGENT = "worker"
KINDS = {"shell": 28, "output": 20, "failing": 10, "long": 2, "call": 40}
ENDS_WITHIN_S = 240.0


@dataclass(kw_only=True)
class UnderLoad:
    """Tasks run on a site, a visitor asks; `with` it the work has begun, after it all has ended.

    What the block leaves must be a record without a broken promise, every task ended as it should
    be, and no answer that a user should not get.
    """

    site: Site
    tasks: int
    seed: int = 1
    kinds: Mapping[str, int] = field(default_factory=lambda: KINDS)
    writes: bool = False  # whether the visitor submits, too
    waits: bool = False  # whether the agent stands still until `let_go`

    def __enter__(self) -> Self:
        """Submit everything; every task has a row."""
        if self.waits:
            send(self.site.parts[AGENT].pid, signal.SIGSTOP)
        self.note = Notes(self.site.histories, "test")
        self.work = Work(self.site, self.tasks, seed=self.seed, kinds=self.kinds)
        outcome.look_at(self.site.database_url)
        before = outcome.all_tasks()
        self.work.run()
        wait_until(lambda: outcome.all_tasks() - before == self.tasks, message="a row for each")
        self.began = now()
        self.visitor = Visitor(site=self.site, writes=self.writes)
        self._stack = ExitStack()
        self._stack.enter_context(self.visitor)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the end of everything and have it judged."""
        self.let_go()
        with self._stack:
            if error is None:
                wait_until(_all_ended, timeout_s=ENDS_WITHIN_S, message="every task to end")
        if error is None:
            wait_until(_all_ended, timeout_s=ENDS_WITHIN_S, message="the visitor's tasks to end")
            self._judge()

    def let_go(self) -> None:
        """Let the agent go on."""
        send(self.site.parts[AGENT].pid, signal.SIGCONT)

    def record(self) -> Record:
        """What everybody has noted so far."""
        return read(self.site.histories, self.site.ledger)

    def acknowledged(self, since: float) -> set[str]:
        """The leases whose results were acknowledged to the agent after that time."""
        return {
            lease
            for event in self.record().of("answered")
            if event["t"] > since
            for lease, verdict in event["items"]
            if verdict == "accepted"
        }

    def await_results(self, count: int, since: float | None = None) -> None:
        """Wait until so many results have been acknowledged since then, or from now on."""
        since = now() if since is None else since
        wait_until(
            lambda: len(self.acknowledged(since)) >= count,
            timeout_s=90.0,
            message=f"{count} results",
        )

    def during(self, what: str, deed: Callable[[], None]) -> None:
        """Do it, and note that it was a fault of the database's."""
        began = now()
        deed()
        self.note("fault", t=began, what="database", kind=what, until=now(), number=0)

    def _judge(self) -> None:
        ended = outcome.note_all(self.note, self.work.submitted.with_outputs)
        self.judged = self.record()
        assert [str(fault) for fault in check(self.judged)] == []
        assert set(ended.states) == {"COMPLETED", "FAILED"}
        assert set(ended.reasons) <= {"exit_nonzero: The script ended with exit code 3."}
        assert self.visitor.surprises == []


def _all_ended() -> bool:
    return outcome.open_tasks() == 0
