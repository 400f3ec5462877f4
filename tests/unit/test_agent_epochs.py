"""A new epoch of the server: everything acknowledged is told again, to its end, whatever dies."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from airavata_scheduler.agent import epochs
from airavata_scheduler.agent.journal import Journal
from airavata_scheduler.agent.loop_heartbeat import Beat
from airavata_scheduler.agent.reports import MOST_ITEMS, Reports
from airavata_scheduler.agent.runtime import Runtime

MANY = MOST_ITEMS + 100  # more than one call can tell


def start(folder: Path, epoch: str) -> Runtime:
    """As much of an agent as this needs, on the journal in `folder`, and a server of this epoch."""
    silent = SimpleNamespace(info=lambda *_: None, warning=lambda *_: None)
    agent: Any = SimpleNamespace(journal=Journal(folder), epoch="", beat=Beat(), log=silent)
    agent.reports = Reports(agent)
    epochs.enter(agent, epoch)
    return cast("Runtime", agent)


def told(agent: Runtime) -> list[str]:
    """The leases of the next call to the server, which acknowledges all of them."""
    leases = [item["lease"] for item, _ in agent.reports.take()]
    agent.journal.commit({"t": "acked", "leases": leases, "epoch": agent.epoch})
    return leases


def worked(folder: Path) -> None:
    """An agent had many results acknowledged in the epoch e1, and ended."""
    agent = start(folder, "e1")
    items = [{"lease": f"task-{n}.1.{n:032x}", "outcome": "completed"} for n in range(MANY)]
    agent.journal.append({"t": "report", "items": items})
    leases = [item["lease"] for item in items]
    agent.journal.commit({"t": "acked", "leases": leases, "epoch": "e1"})
    agent.journal.close()


def test_everything_is_told_again_before_the_epoch_is_settled(tmp_path: Path) -> None:
    """The server hears of it only when the last acknowledgement has come."""
    worked(tmp_path)
    agent = start(tmp_path, "e2")
    counts = [len(told(agent))]
    halfway = agent.journal.state.settled
    counts.append(len(told(agent)))
    before_the_end = agent.journal.state.settled

    assert told(agent) == []
    assert counts == [MOST_ITEMS, MANY - MOST_ITEMS]
    assert (halfway, before_the_end, agent.journal.state.settled) == ("e1", "e1", "e2")


def test_an_agent_that_dies_on_the_way_begins_again(tmp_path: Path) -> None:
    """Results that were acknowledged in the new epoch do not end the telling (I3)."""
    worked(tmp_path)
    first = start(tmp_path, "e2")
    assert len(told(first)) == MOST_ITEMS
    first.journal.close()

    again = start(tmp_path, "e2")

    assert len(told(again)) + len(told(again)) == MANY
    assert told(again) == []
    assert Journal(tmp_path).state.settled == again.journal.state.settled == "e2"


def test_the_same_epoch_is_told_nothing(tmp_path: Path) -> None:
    """Neither after a restart nor to a new agent; both are settled at once."""
    worked(tmp_path / "old")

    for folder in ("old", "new"):
        agent = start(tmp_path / folder, "e1")
        assert agent.journal.state.settled == "e1"
        agent.reports.release()
        assert told(agent) == []


def test_an_epoch_that_changes_on_the_way_is_told_from_the_beginning(tmp_path: Path) -> None:
    """Only the newest one counts as settled."""
    worked(tmp_path)
    agent = start(tmp_path, "e2")
    assert len(told(agent)) == MOST_ITEMS

    epochs.enter(agent, "e3")
    counts = [len(told(agent)), len(told(agent))]

    assert agent.journal.state.settled == "e1"
    assert told(agent) == []
    assert sum(counts) == MANY
    assert agent.journal.state.settled == "e3"


def test_old_and_new_results_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Each call has room for both; what the server left unanswered is told again, before the end.

    The server may leave new results unanswered until the old ones are told.
    """
    worked(tmp_path)
    agent = start(tmp_path, "e2")
    new = [({"lease": f"new-{n}", "outcome": "completed"}, True) for n in range(MOST_ITEMS)]
    agent.reports.later(new)
    settled = []

    for _ in range(4):
        batch = agent.reports.take()
        old = [one for one in batch if one[0].get("again")]
        agent.reports.later([one for one in batch if one not in old] + old[:1])
        settled.append(agent.journal.state.settled)
        assert len(batch) <= MOST_ITEMS

    assert len(agent.reports) == len(new) + 2  # the one that is never answered, and the mark
    assert set(settled) == {"e1"}
    last = [one for one in agent.reports.take() if one[0].get("again")]
    assert len(last) == 1
    agent.reports.take()
    assert agent.journal.state.settled == "e2"
