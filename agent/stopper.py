"""Stopping payloads, and forgetting leases that are not ours any more.

Cancel is a user's will and ends in a report; fenced (superseded, gone, finished) means that nobody
waits for our result: the payload is stopped, its folder is kept for 7 days, nothing is reported.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.lease_book import LAUNCHING, READY, REPORTING, RUNNING, WAITING, Held
from airavata_scheduler.agent.outcomes import cancelled
from airavata_scheduler.agent.payload_files import read_payload
from airavata_scheduler.agent.places import KEEP_FENCED_S

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

_FENCED = frozenset({"superseded", "gone", "finished"})


class Stopper:
    """Acts on the verdicts of heartbeats, sessions and starts."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def obey(self, lease: str, verdict: str) -> None:
        """Act on one verdict; `keep`, `ok` and unknown words change nothing."""
        held = self._runtime.book.get(lease)
        if verdict == "report_again":
            self._runtime.reports.again(lease)
        elif held is None:
            return
        elif verdict == "cancel":
            self.cancel(held)
        elif verdict in _FENCED:
            self.fence(held, verdict)

    def cancel(self, held: Held) -> None:
        """Stop it and report it as cancelled; a result that exists already is reported instead."""
        with self._runtime.book.changed:
            if held.reason is not None or held.phase not in (WAITING, READY, LAUNCHING, RUNNING):
                return
            held.reason = "cancel"
            unstarted = held.phase in (WAITING, READY)
            if unstarted:
                self._runtime.book.withdraw(held, REPORTING)
        self._runtime.log.info("cancelled", lease=held.lease)
        if unstarted:
            self._runtime.reports.add(held, cancelled(held))
        else:
            self.stop_payload(held)

    def fence(self, held: Held, reason: str) -> None:
        """Stop it and forget it."""
        with self._runtime.book.changed:
            if held.reason in _FENCED:
                return
            held.reason = reason
            runs = held.phase in (LAUNCHING, RUNNING)
        self._runtime.log.warning(f"the lease is not ours any more: {reason}", lease=held.lease)
        if runs:
            self.stop_payload(held)
        else:
            self.forget(held)

    def forget(self, held: Held) -> None:
        """Nothing of the lease is left to do."""
        self._runtime.journal.append({"t": "dropped", "leases": [held.lease]})
        self._runtime.places.keep(held.lease, KEEP_FENCED_S)
        self._runtime.book.drop(held.lease)

    def is_fenced(self, held: Held) -> bool:
        """Whether nobody waits for its result."""
        return held.reason in _FENCED

    def stop_payload(self, held: Held) -> None:
        """Tell the wrapper or the worker to end the payload."""
        if held.is_python:
            self._runtime.pool.stop_call(held)
            return
        folder = self._runtime.places.of(held.lease)
        try:
            # First the file, then the signal: a wrapper that is just starting looks for the file
            # after it can hear the signal. The launch loop may not have made the folder yet.
            self._runtime.places.make(held.lease)
            fd = os.open(folder / "cancel", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            os.close(fd)
        except OSError:
            self._runtime.log.warning("no mark to stop it can be set", lease=held.lease)
        payload = read_payload(folder)
        if payload is not None and payload.get("wrapper_ticks") is not None:
            processes.send(payload["wrapper"], payload["wrapper_ticks"], signal.SIGTERM)
