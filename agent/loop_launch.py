"""The launch loop: takes what fits, journals it, hands it to the shepherd or to warm workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airavata_scheduler.agent.lease_book import REPORTING, Held
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.outcomes import cancelled, lost, refused
from airavata_scheduler.agent.payload_order import environment_refusal, wrapper_order
from airavata_scheduler.agent.python_function import python_mismatch

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime


_AHEAD = 64


class LaunchLoop(Loop):
    """Nothing is started before its `launching` record is on the disk."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "launch")

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.book.nudge()

    def turn(self) -> None:
        """Launch whatever is ready and fits."""
        book = self.runtime.book
        with book.changed:
            book.changed.wait_for(lambda: self.runtime.stop.is_set() or book.may_launch())
            if self.runtime.stop.is_set():
                return
            taken = book.take_ready()
        if not taken:
            # Something is ready but does not fit: the next end of a payload changes the book.
            with book.changed:
                book.changed.wait(1.0)
            return
        allowed = [held for held in taken if self._is_allowed(held)]
        calls = [held for held in allowed if held.is_python]
        if calls:
            self.runtime.pool.submit(calls)
        self._launch([held for held in allowed if not held.is_python])

    def _is_allowed(self, held: Held) -> bool:
        if held.reason is not None:
            self._withdraw(held)
            return False
        problem = self._problem(held)
        if problem is None:
            return True
        code, text = problem
        self.runtime.log.warning(f"refused: {text}", lease=held.lease)
        self._report(held, refused(held, code, f"Refused by the agent: {text}."))
        return False

    def _problem(self, held: Held) -> tuple[str, str] | None:
        policy = self.runtime.policy
        reason = (
            policy.refusal(held.spec, held.offer.get("timeout_s"))
            or self.runtime.book.fits_ever(held.spec)
            or environment_refusal(held, policy)
        )
        if reason is not None:
            return "policy_refused", reason
        python = held.spec.get("python") or {}
        mismatch = python_mismatch(python.get("requires_python")) if held.is_python else None
        return None if mismatch is None else ("python_mismatch", mismatch.rstrip("."))

    def _withdraw(self, held: Held) -> None:
        if self.runtime.stopper.is_fenced(held):
            self.runtime.stopper.forget(held)
        else:
            self._report(held, cancelled(held))

    def _report(self, held: Held, item: dict[str, object]) -> None:
        self.runtime.book.free_share(held)
        self.runtime.book.set_phase(held, REPORTING)
        self.runtime.reports.add(held, item)

    def _journal(self, fresh: list[Held]) -> None:
        """`launching` says that a payload may have started: for those that come next it may be
        said ahead, so that short tasks do not wait for the disk one by one."""
        if not fresh:
            return
        fresh = fresh + self.runtime.book.next_scripts(_AHEAD)
        self.runtime.journal.commit({"t": "launching", "leases": [held.lease for held in fresh]})
        for held in fresh:
            held.journalled = True

    def _launch(self, scripts: list[Held]) -> None:
        if not scripts:
            return
        runtime = self.runtime
        runtime.crash_point("launch.before")
        self._journal([held for held in scripts if not held.journalled])
        runtime.crash_point("launch.journalled")
        orders = {held: order for held in scripts if (order := self._order(held)) is not None}
        # Before the shepherd hears of them: one that dies with the orders is replaced by the watch
        # loop, which gives the new one the orders of all that it watches.
        runtime.watch.expect(list(orders))
        told = list(orders.values())
        for start in range(0, len(told), 16):
            runtime.shepherd.send({"launch": told[start : start + 16]})
        runtime.history.note("launched", leases=[held.lease for held in orders])
        runtime.crash_point("launch.sent")

    def _order(self, held: Held) -> dict[str, object] | None:
        """The wrapper's order, with the lease's folder made; None where the disk refuses that."""
        runtime = self.runtime
        try:
            folder = runtime.places.make(held.lease)
        except OSError as problem:
            runtime.log.error(f"cannot be launched: {problem}", lease=held.lease)
            text = f"The payload could not be started: {problem}."
            self._report(held, lost(held, "wrapper_lost", text))
            return None
        return wrapper_order(
            held,
            folder,
            base=runtime.base_environment,
            policy=runtime.policy,
            boot_id=runtime.boot_id,
        )
