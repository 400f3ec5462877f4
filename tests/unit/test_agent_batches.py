"""Few calls for many tasks: claimed ahead, confirmed and reported together, and never twice."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

from airavata_scheduler.agent.claims import Claims
from airavata_scheduler.agent.lease_book import FINISHING, READY, RUNNING, WAITING, Held, LeaseBook
from airavata_scheduler.agent.machine import Capacity
from airavata_scheduler.agent.reports import Reports
from airavata_scheduler.agent.runtime import Runtime


def _held(number: int, phase: str = READY, **spec: Any) -> Held:
    lease = f"task-{number}.1.{number:032x}"
    offer = {"lease": lease, "task_id": f"task-{number}", "attempt": 1, "name": "n[3]", "spec": "s"}
    return Held(lease, offer, {"kind": "script", "cpu": 1, "ram_mb": 0, "gpu": 0, **spec}, phase)


def _runtime(**parts: Any) -> Runtime:
    modes = SimpleNamespace(takes_work=lambda: True)
    return cast("Runtime", SimpleNamespace(modes=modes, stop=threading.Event(), **parts))


def _book_of_short_tasks() -> LeaseBook:
    """Two cores; payloads take 100 ms, so that ten leases are worth holding ahead."""
    book = LeaseBook(Capacity(cpu=2, ram_mb=4096, gpus=()))
    for _ in range(64):
        book.durations.saw("s", 0.1)
    return book


def test_claims_come_in_batches() -> None:
    """Nothing is asked for until half of what was claimed ahead is used up, then all of it."""
    book = _book_of_short_tasks()
    claims = Claims(_runtime(book=book))
    leases = [_held(number) for number in range(12)]

    wants = [claims.want()]
    for held in leases:
        book.add(held)
        wants.append(claims.want())
    for held in leases:
        book.set_phase(held, RUNNING)
        book.set_phase(held, FINISHING)
        wants.append(claims.want())

    assert wants[:13] == [12, 11, 10, 9, 8, 7, 6, 0, 0, 0, 0, 0, 0]
    assert wants[13:] == [0, 0, 0, 0, 0, 6, 7, 8, 9, 10, 11, 12]


def test_long_tasks_are_not_claimed_ahead() -> None:
    """Where a payload takes longer than the horizon, an agent holds what it runs."""
    book = LeaseBook(Capacity(cpu=2, ram_mb=4096, gpus=()))
    book.durations.saw("s", 60.0)
    claims = Claims(_runtime(book=book))
    book.add(_held(1, RUNNING))

    assert claims.want() == 1


def test_the_tally_follows_every_move() -> None:
    """Cores, idlers and unreported results are counted right whatever happens to a lease."""
    book = _book_of_short_tasks()
    wide, idler, closed = _held(1, cpu=2), _held(2, cpu=0), _held(3, WAITING)
    for held in (wide, idler, closed):
        book.add(held)

    book.set_phase(wide, RUNNING)
    book.set_phase(idler, FINISHING)
    book.make_ready(closed)
    running = book.tally
    for held in (wide, idler, closed):
        book.drop(held.lease)
    book.set_phase(wide, FINISHING)

    assert (running.active, running.idlers, running.unreported) == (3, 0, 1)
    nothing = book.tally
    assert (nothing.active, nothing.idlers, nothing.unreported) == (0, 0, 0)


def test_the_gate_takes_leases_in_the_order_in_which_they_came() -> None:
    """A lease leaves the gate with its answer, or when it is withdrawn or forgotten."""
    book = _book_of_short_tasks()
    leases = [_held(number, WAITING) for number in range(4)]
    for held in leases:
        book.add(held)

    book.pass_gate(leases[0])
    book.withdraw(leases[1], FINISHING)
    book.drop(leases[2].lease)

    assert book.at_the_gate(10) == [leases[3]]
    assert book.waiting


class _Journal:
    """What `Reports` looks at in the journal."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self.state = self


def test_a_question_that_crosses_the_answer_repeats_nothing() -> None:
    """`report_again` for a result that is under way, or acknowledged by now, sends nothing."""
    journal = _Journal()
    runtime = _runtime(book=_book_of_short_tasks(), journal=journal, boot_id="boot")
    reports = Reports(runtime)
    held = _held(1)
    item = {"lease": held.lease}
    journal.entries[held.lease] = SimpleNamespace(report=item)

    reports.add(held, item)
    reports.again(held.lease)
    sent = reports.take()
    reports.again(held.lease)
    while_sent = len(reports)
    reports.answered([held.lease])
    del journal.entries[held.lease]
    reports.again(held.lease)

    assert [one for one, _ in sent] == [item]
    assert while_sent == 0
    assert len(reports) == 0


def test_a_result_whose_answer_got_lost_is_sent_again() -> None:
    """An answered result that the journal still has open is reported once more."""
    journal = _Journal()
    runtime = _runtime(book=_book_of_short_tasks(), journal=journal, boot_id="boot")
    reports = Reports(runtime)
    held = _held(1)
    journal.entries[held.lease] = SimpleNamespace(report={"lease": held.lease})

    reports.again(held.lease)

    assert reports.take() == [({"lease": held.lease}, True)]
