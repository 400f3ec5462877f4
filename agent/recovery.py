"""After a start: from the journal's open entries back to running payloads.

Same boot: wrappers and workers are found by their folders (pid, start time, boot id) and followed
again; what was journalled as launching but never started is launched, and `started` or the ledger
fences a second start. New boot: nothing that may have started is ever started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.journal_state import Entry
from airavata_scheduler.agent.lease_book import LAUNCHING, READY, REPORTING, WAITING, Held
from airavata_scheduler.agent.payload_files import read_exit, read_payload
from airavata_scheduler.agent.pool_worker import read_ledger
from airavata_scheduler.agent.warm_worker import WarmWorker

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]


class Recovery:
    """Runs once, before the loops."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._workers: dict[str, WarmWorker] = {}
        self.adopted = 0

    def run(self) -> None:
        """Bring every open entry back into the book and to whoever follows it."""
        state = self._runtime.journal.state
        for lease, entry in list(state.entries.items()):
            spec = state.specs.get(entry.offer["spec"])
            if spec is None:
                # Only a corrupt journal loses a spec; the server will offer the task again.
                self._runtime.journal.append({"t": "dropped", "leases": [lease]})
                continue
            self._bring_back(Held(lease, entry.offer, spec, inputs=entry.inputs), entry)
        for worker in self._workers.values():
            self._runtime.pool.adopt(worker)

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
        if entry.boot == runtime.boot_id:
            worker = self._workers.get(str(entry.worker))
            if worker is None:
                worker = WarmWorker(str(entry.worker), held.offer["spec"], folder, held.spec)
                self._workers[worker.id] = worker
            worker.calls[held.lease] = held
            runtime.book.add(held)
            self.adopted += 1
            return
        runtime.book.add(held)
        try:
            entries, _ = read_ledger((folder / "ledger").read_bytes())
        except OSError:
            entries = []
        for line in entries:
            if line["k"] == "E" and line["l"] == held.lease:
                runtime.finisher.call_ended(held, line)
                return
        held.reason = "lost_host"
        runtime.finisher.script_ended(held, None)
