"""The campaigns' judge is judged: an honest record passes, each forged one is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.checker import RULES, check, reruns
from tests.campaign.record import EVENTS, Event, Record, in_order, read

ROOT = Path(__file__).parents[2]
TASK = "01a21ab1-0000-7000-8000-00000000000{}"
AGENT, OTHER = "agent-a", "agent-b"
SESSION = "session-a"


def lease(task: int, attempt: int = 1, fill: str = "a") -> str:
    """The name of a lease."""
    return f"{TASK.format(task)}.{attempt}.{fill * 32}"


def event(t: float, name: str, **fields: Any) -> Event:
    """An event; what follows a commit began half a second before."""
    committed = name in ("claimed", "gate", "judged", "released", "session", "heartbeat")
    began = {"began": t - 0.5} if committed or name in ("lapsed", "expired") else {}
    whose = {"agent": AGENT, "session": SESSION} if committed else {}
    return {"t": t, "by": "forger-1", "event": name, **began, **whose, **fields}


def claimed(t: float, *leases: str, **fields: Any) -> Event:
    """Leases are granted; none has to pass the gate unless `closed` says so."""
    return event(t, "claimed", claim="c", leases=list(leases), **{"closed": [], **fields})


def judged(t: float, *items: tuple[str, str, str], **fields: Any) -> Event:
    """Results are judged."""
    return event(t, "judged", items=[list(item) for item in items], **fields)


def final(task: int, state: str, kept: str | None, **fields: Any) -> Event:
    """How a task ended."""
    return event(99.0, "final", task=TASK.format(task), state=state, lease=kept, **fields)


def honest() -> Record:
    """Three tasks: one as it should be, one that was lost once, one that was cancelled."""
    one, lost, again, gone = lease(1), lease(2), lease(2, 2, "b"), lease(3)
    events = [
        event(1.0, "submitted", tasks=[TASK.format(n) for n in (1, 2, 3)]),
        event(2.0, "session", verdicts={}),
        event(2.5, "agent", agent=AGENT, boot="b"),
        claimed(3.0, one, lost, closed=[one]),
        event(3.1, "granted", claim="c", leases=[one, lost]),
        event(3.5, "gate", verdicts={one: "ok"}),
        event(3.6, "launched", leases=[one, lost]),
        event(3.7, "reached", agent=AGENT, lease=one),
        event(4.0, "heartbeat", verdicts={}),
        event(5.0, "exited", leases=[one]),
        event(5.1, "reported", items=[[one, "completed"]]),
        judged(6.0, (one, "accepted", "completed")),
        event(6.1, "answered", items=[[one, "accepted"]], epoch="e"),
        judged(7.0, (one, "duplicate", "completed")),
        claimed(8.0, gone),
        event(8.1, "granted", claim="c", leases=[gone]),
        event(8.2, "cancelled", tasks=[TASK.format(3)]),
        judged(9.0, (gone, "accepted", "cancelled")),
        event(10.0, "fault", what=AGENT, kind="kill", until=40.0),
        event(40.0, "expired", session=SESSION, after_s=30.0, silent_s=36, leases=[lost]),
        claimed(41.0, again, agent=OTHER, session="session-b"),
        judged(43.0, (again, "accepted", "completed"), agent=OTHER, session="session-b"),
        judged(44.0, (lost, "superseded", "completed")),
        final(1, "COMPLETED", one, outputs=True, published=[one]),
        final(2, "COMPLETED", again),
        final(3, "CANCELLED", gone),
    ]
    starts = [one, lost, gone, again]
    return Record(events=in_order(events), starts=starts, ends=[one, again])


def with_events(*events: Event) -> Callable[[Record], Record]:
    """A forgery: events that were not there."""
    return lambda record: replace(record, events=in_order([*record.events, *events]))


def without(name: str, *events: Event) -> Callable[[Record], Record]:
    """A forgery: events of one name are gone, others are in their place."""
    return lambda record: replace(
        record,
        events=in_order([*(e for e in record.events if e["event"] != name), *events]),
    )


def with_starts(*leases: str) -> Callable[[Record], Record]:
    """A forgery: more starts in the ledger."""
    return lambda record: replace(record, starts=[*record.starts, *leases])


NEWER = lease(1, 2, "c")
CALL = lease(1, 1, "d")
ENDS = (final(2, "COMPLETED", lease(2, 2, "b")), final(3, "CANCELLED", lease(3)))
FORGERIES: list[tuple[str, Callable[[Record], Record]]] = [
    (
        "two_results",
        with_events(
            claimed(6.7, NEWER, agent=OTHER),
            judged(8.0, (NEWER, "accepted", "completed"), agent=OTHER),
        ),
    ),
    ("changed_result", without("final", final(1, "FAILED", lease(1)), *ENDS)),
    (
        "foreign_artifact",
        without("final", final(1, "COMPLETED", lease(1), published=[lease(1), NEWER]), *ENDS),
    ),
    ("missing_artifact", without("final", final(1, "COMPLETED", lease(1), outputs=True), *ENDS)),
    ("stale_result", with_events(claimed(5.0, NEWER, agent=OTHER))),
    ("foreign_result", with_events(judged(43.2, (lease(3), "accepted", "cancelled"), agent=OTHER))),
    ("attempt_reused", with_events(claimed(4.0, CALL))),
    ("lost_acknowledgement", without("final", final(1, "COMPLETED", NEWER), *ENDS)),
    ("double_start", with_starts(lease(1))),
    ("phantom_lease", with_starts(lease(1, 7, "f"))),
    ("ungated_start", without("gate", event(3.5, "gate", verdicts={lease(1): "cancel"}))),
    ("lost_task", without("final", final(1, "COMPLETED", lease(1)), ENDS[0])),
    ("stuck_task", without("final", final(1, "RUNNING", lease(1)), *ENDS)),
    ("no_next_timer", with_events(event(20.0, "untimed", tasks=[TASK.format(2)]))),
    (
        "cancel_ignored",
        without("cancelled", event(4.0, "cancelled", tasks=[TASK.format(1), TASK.format(3)])),
    ),
    ("claimed_after_end", with_events(claimed(12.0, lease(3, 2, "c")))),
    ("expired_while_heard", with_events(event(30.0, "heartbeat", verdicts={}))),
    (
        "expired_by_outage",
        without("fault", event(10.0, "fault", what="database", kind="stop", until=39.0)),
    ),
    ("foreign_reach", with_events(event(3.8, "reached", agent=OTHER, lease=lease(1)))),
]


def test_an_honest_record_passes() -> None:
    """What happened is lawful; one payload ran again."""
    record = honest()

    assert check(record) == []
    assert reruns(record) == 1


@pytest.mark.parametrize(("name", "forge"), FORGERIES, ids=[name for name, _ in FORGERIES])
def test_a_forged_record_is_rejected_by_name(name: str, forge: Callable[[Record], Record]) -> None:
    """Each lie is found by the rule that is for it."""
    assert name in {fault.name for fault in check(forge(honest()))}


def test_every_rule_has_its_forgery() -> None:
    """A rule that nothing can break would prove nothing."""
    assert {name for name, _, _ in RULES} == {name for name, _ in FORGERIES}
    assert {invariant for _, invariant, _ in RULES} == {f"I{n}" for n in range(1, 9)}


@pytest.mark.parametrize(("cancelled_at", "faults"), [(2.5, set()), (3.5, {"changed_result"})])
def test_a_result_counts_unless_a_cancel_came_first(cancelled_at: float, faults: set[str]) -> None:
    """A later cancel takes no result away."""
    held, task = lease(1, 1, "a"), TASK.format(1)
    events = [
        event(1.0, "submitted", tasks=[task]),
        claimed(2.0, held),
        event(cancelled_at, "cancelled", tasks=[task]),
        judged(3.0, (held, "accepted", "completed")),
        final(1, "CANCELLED", held),
    ]

    found = check(Record(events=in_order(events), starts=[held], ends=[held]))

    assert {fault.name for fault in found} == faults


def test_a_failover_that_forgot_explains_what_else_would_be_a_fault() -> None:
    """The same attempt twice, and a second result, where the first was never acknowledged."""
    first, second = lease(1, 1, "a"), lease(1, 1, "b")
    record = Record(
        events=in_order(
            [
                event(1.0, "submitted", tasks=[TASK.format(1)]),
                claimed(2.0, first),
                judged(3.0, (first, "accepted", "completed")),
                event(4.0, "failover", lost=True),
                claimed(5.0, second, agent=OTHER),
                judged(6.0, (second, "accepted", "completed"), agent=OTHER),
                final(1, "COMPLETED", second),
            ]
        ),
        starts=[first, second],
    )

    assert check(record) == []
    told = [*record.events, event(3.1, "reported", items=[[first, "completed"]])]
    told.append(event(3.5, "answered", items=[[first, "accepted"]], epoch="e"))
    assert [f.name for f in check(replace(record, events=in_order(told)))] == [
        "lost_acknowledgement"
    ]


def test_what_a_killed_process_wrote_last_may_be_torn(tmp_path: Path) -> None:
    """Half a line is no event."""
    (tmp_path / "api-1.jsonl").write_text('{"t":2,"by":"api-1","event":"lapsed"}\n{"t":3,"by')
    (tmp_path / "agent-2.jsonl").write_text('{"t":1,"by":"agent-2","event":"agent"}\n')
    (tmp_path / "ledger").write_text(f"start {lease(1)}\nend {lease(1)}\n")

    record = read(tmp_path, tmp_path / "ledger")

    assert [e["event"] for e in record.events] == ["agent", "lapsed"]
    assert (record.starts, record.ends) == ([lease(1)], [lease(1)])
    with pytest.raises(ValueError, match="surprise"):
        in_order([{"t": 1.0, "event": "surprise"}])


def test_every_event_that_a_process_notes_is_explained() -> None:
    """Those of the API, the queue and the agent, each with who writes it."""
    noted = {
        name
        for room in ("functions", "models", "queue", "agent")
        for path in (ROOT / room).glob("*.py")
        for name in re.findall(r'\bnote\(\s*"(\w+)"', path.read_text())
    }

    ours = {name for name, said in EVENTS.items() if not said.startswith("campaign:")}
    assert noted == ours
