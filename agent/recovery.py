"""After a start: from the journal's open entries back to running payloads.

Same boot: wrappers and workers are found by their folders (pid, start time, boot id) and followed
again; what was journalled as launching but never started is launched, and `started` or the ledger
fences a second start. New boot: nothing that may have started is ever started again.

Where the journal may be older than what happened (`DOUBTED`), only what is here counts: an end, or
a payload that runs in this very folder. All else is dropped, and nothing of it is started: the
session's list leaves it out, and the server gives it out anew under another lease.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.folder_marks import mark_of
from airavata_scheduler.agent.framing import connect_socket
from airavata_scheduler.agent.journal_state import DOUBTED, Entry
from airavata_scheduler.agent.lease_book import LAUNCHING, READY, REPORTING, WAITING, Held
from airavata_scheduler.agent.payload_files import read_exit, read_payload
from airavata_scheduler.agent.places import KEEP_FENCED_S
from airavata_scheduler.agent.pool_worker import read_ledger
from airavata_scheduler.agent.warm_worker import WarmWorker
from airavata_scheduler.agent.wrapper import take_start

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]


class Recovery:
    """Runs once, before the loops."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._workers: dict[str, WarmWorker] = {}
        self.adopted = 0
        self.dropped = 0  # in doubt, and neither ended nor running here

    def run(self) -> None:
        """Bring every open entry back into the book and to whoever follows it."""
        state = self._runtime.journal.state
        for lease, entry in list(state.entries.items()):
            spec = state.specs.get(entry.offer["spec"])
            if spec is None:
                # Only a corrupt journal loses a spec; the server will offer the task again.
                self._drop(lease)
                continue
            if entry.state == DOUBTED and not self._is_here(lease, entry):
                self._drop(lease)
                continue
            self._bring_back(Held(lease, entry.offer, spec, inputs=entry.inputs), entry)
        for worker in self._workers.values():
            self._runtime.pool.adopt(worker)

    def _drop(self, lease: str) -> None:
        self.dropped += 1
        self._runtime.journal.append({"t": "dropped", "leases": [lease]})
        self._runtime.places.keep(lease, KEEP_FENCED_S)

    def _is_here(self, lease: str, entry: Entry) -> bool:
        """Whether a lease in doubt ended or runs here; where it does not, it never will."""
        if entry.worker is not None:
            return self._is_call_here(lease, entry.worker)
        folder = self._runtime.places.of(lease)
        if not folder.is_dir():
            return False
        if read_exit(folder) is not None:
            return True
        # Takes the start itself: a shepherd may have been told of it and not come to it yet.
        if take_start(folder):
            return False
        payload = read_payload(folder)
        if payload is None:
            return True  # it begins at this moment; the watch loop looks on
        is_ours = payload["boot_id"] == self._runtime.boot_id and payload.get("place") in (
            None,  # a wrapper of before, which did not say it
            mark_of(folder),
        )
        return is_ours and processes.is_alive(payload["wrapper"], payload["wrapper_ticks"])

    def _is_call_here(self, lease: str, name: str) -> bool:
        folder = self._runtime.folder.path / "pool" / name
        if _call_end(folder, lease) is not None:
            return True
        # A copy of its folder has its socket's name, and nobody listens there.
        line = connect_socket(folder / "sock")
        if line is not None:
            line.close()
        return line is not None

    def _bring_back(self, held: Held, entry: Entry) -> None:
        runtime = self._runtime
        if entry.report is not None:
            held.phase, held.report = REPORTING, entry.report
            runtime.book.add(held)
            runtime.reports.restore(entry.report)
        elif entry.state in ("granted", "confirmed"):
            # A closed gate is asked again: URLs of inputs are short-lived.
            held.phase = WAITING if held.offer.get("gate") == "closed" else READY
            runtime.book.add(held)
        elif entry.worker is not None:
            self._bring_back_call(held, entry)
        else:
            self._bring_back_script(held, entry)

    def _bring_back_script(self, held: Held, entry: Entry) -> None:
        runtime = self._runtime
        folder = runtime.places.of(held.lease)
        ended = read_exit(folder)
        same_boot = entry.boot == runtime.boot_id
        if entry.state == DOUBTED:
            same_boot = True  # it runs here, whatever the journal knows of its start
        if ended is None and same_boot and not (folder / "started").exists():
            held.phase = READY
            runtime.book.add(held)
            return
        held.phase = LAUNCHING
        runtime.book.add(held)
        if ended is not None or not same_boot:
            if ended is None:
                held.reason = "lost_host"
            runtime.finisher.script_ended(held, ended)
            return
        payload = read_payload(folder) or {}
        held.started_at = payload.get("started_at", processes.uptime_s())
        runtime.book.adopt_share(held, tuple(payload.get("gpus") or ()))
        runtime.watch.expect([held])
        self.adopted += 1

    def _bring_back_call(self, held: Held, entry: Entry) -> None:
        runtime = self._runtime
        held.phase, held.worker = LAUNCHING, entry.worker
        folder = runtime.folder.path / "pool" / str(entry.worker)
        end = _call_end(folder, held.lease)
        if entry.boot == runtime.boot_id and (entry.state != DOUBTED or end is None):
            worker = self._workers.get(str(entry.worker))
            if worker is None:
                worker = WarmWorker(str(entry.worker), held.offer["spec"], folder, held.spec)
                self._workers[worker.id] = worker
            worker.calls[held.lease] = held
            runtime.book.add(held)
            self.adopted += 1
            return
        runtime.book.add(held)
        if end is not None:
            runtime.finisher.call_ended(held, end)
            return
        held.reason = "lost_host"
        runtime.finisher.script_ended(held, None)


def _call_end(folder: Path, lease: str) -> Json | None:
    """How a call ended, as its worker wrote it; None where it did not."""
    try:
        lines, _ = read_ledger((folder / "ledger").read_bytes())
    except OSError:
        return None
    return next((line for line in lines if line["k"] == "E" and line["l"] == lease), None)
