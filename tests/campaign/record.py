"""The record of one campaign: every process's history, the payloads' ledger, and how it all ended.

A line of a history is one JSON object with `t` (seconds since boot), `by` (who wrote it) and
`event`. What follows a commit also has `began`: the commit lies between the two. The ledger is
written by the payloads themselves, outside our stores: `start LEASE` and `end LEASE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]

# Who writes what. The campaign itself writes the last group.
EVENTS: Mapping[str, str] = {
    "claimed": "API: leases were granted to an agent; `closed` are those that must pass the gate",
    "gate": "API: the verdicts on leases whose agent asked to start them",
    "judged": "API: the verdicts on reports, each with the lease and the outcome",
    "released": "API: leases that an agent gave back unstarted",
    "session": "API: an agent's session began; the verdicts on what it says it holds",
    "heartbeat": "API: a session was extended; the verdicts on its full list, where it sent one",
    "reached": "API: an agent read or wrote an object of a lease",
    "lapsed": "queue: offers that were not started in time went back",
    "expired": "queue: a session was silent for too long; its leases went back",
    "agent": "agent: it started",
    "granted": "agent: leases are in its journal",
    "launched": "agent: payloads were handed to their wrappers or workers",
    "exited": "agent: it saw payloads end",
    "reported": "agent: it sends results",
    "answered": "agent: the verdicts on its results arrived",
    "submitted": "campaign: these tasks were accepted",
    "cancelled": "campaign: a cancel of these tasks was answered with success",
    "fault": "campaign: a fault of `what` began, and ended at `until`",
    "failover": "campaign: another database took over; `lost`: the newest commits are gone",
    "untimed": "campaign: tasks that are not terminal and that nothing would ever look at again",
    "final": "campaign: how a task ended, as the database has it",
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one campaign; events in the order of their time."""

    events: list[Event]
    starts: list[str] = field(default_factory=list)  # leases, in the order of the ledger
    ends: list[str] = field(default_factory=list)

    def of(self, name: str) -> Iterator[Event]:
        """The events of one name, in order."""
        return (event for event in self.events if event["event"] == name)


def read(histories: Path, ledger: Path) -> Record:
    """The record in a folder of histories and a ledger. A last line that was torn is left out."""
    events = [event for path in sorted(histories.glob("*.jsonl")) for event in _events(path)]
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    words = [line.split() for line in lines]
    return Record(
        events=in_order(events),
        starts=[word[1] for word in words if word[0] == "start"],
        ends=[word[1] for word in words if word[0] == "end"],
    )


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events by their time; unknown names are a fault of whoever wrote them."""
    found = sorted(events, key=lambda event: event["t"])
    unknown = {event["event"] for event in found} - set(EVENTS)
    if unknown:
        raise ValueError(f"unknown events in a history: {sorted(unknown)}")
    return found


def _events(path: Path) -> Iterator[Event]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)
