"""The report loop: batches of results, journalled before they are sent; answers bring new work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.faults import Refused
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.outcomes import failure
from airavata_scheduler.agent.places import KEEP_FAILED_S, KEEP_FENCED_S
from airavata_scheduler.agent.reports import on_the_wire

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
Batch = list[tuple[Json, bool]]
_GATHER_ITEMS = 64
_GATHER_S = 0.2
# What the server says of the body; any other refusal is about the call, and no result's fault.
_ABOUT_THE_ITEMS = (400, 413, 422)


class ReportLoop(Loop):
    """One report call at a time: while it is under way, the next batch gathers."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "report")
        self._sent_at = 0.0  # monotonic second of the latest call

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.modes.listening.set()
        self.runtime.reports.release()

    def turn(self) -> None:
        """One batch."""
        runtime = self.runtime
        runtime.reports.wait(runtime.stop)
        if runtime.book.has_backlog:
            # Nobody waits for one result while others are in hand: one call tells of many. The last
            # ones, and those of an agent that is not busy, are told at once.
            runtime.reports.gather(_GATHER_ITEMS, self._sent_at + _GATHER_S)
        batch = runtime.reports.take()
        if not batch:
            return
        fresh = [item for item, journalled in batch if not journalled]
        if fresh:
            runtime.crash_point("report.before")
            runtime.journal.commit({"t": "report", "items": fresh})
            runtime.crash_point("report.journalled")
        batch = [(item, True) for item, _ in batch]
        runtime.modes.listening.wait()
        try:
            self._send(batch)
        except BaseException:
            runtime.reports.put_back(batch)
            raise

    def _send(self, batch: Batch) -> None:
        runtime = self.runtime
        claim = runtime.claims.take(blocking=False)
        items = [on_the_wire(item, runtime.boot_id) for item, _ in batch]
        runtime.history.note("reported", items=[[i["lease"], i["outcome"]] for i in items])
        self._sent_at = time.monotonic()
        try:
            if claim is not None:
                runtime.journal.sync()
            answer = runtime.api.post("/reports", {"items": items, "claim": claim}, timeout_s=60.0)
        except Refused as problem:
            if claim is not None:
                runtime.claims.give_up()
            if problem.status not in _ABOUT_THE_ITEMS:
                raise
            self._narrow_down(batch, problem)
            return
        except BaseException:
            if claim is not None:
                runtime.claims.give_up()
            raise
        runtime.crash_point("report.answered")
        by_lease = {item["lease"]: item for item, _ in batch}
        self._take_verdicts(by_lease, answer)
        granted = runtime.claims.settle(claim, answer.get("claim")) if claim is not None else 0
        runtime.attend(answer)
        runtime.attend(answer.get("claim") or {})
        if not granted:
            runtime.claim_loop.make_room_known()
        told = {str(line.get("lease")) for line in answer.get("items") or ()}
        left = [one for one in batch if one[0]["lease"] not in told]
        if left:
            runtime.reports.later(left)
            runtime.stop.wait(1.0)  # left unanswered: told again, but not at once

    def _narrow_down(self, batch: Batch, problem: Refused) -> None:
        """The whole call was refused: one item must not hold the others up."""
        if len(batch) > 1:
            half = len(batch) // 2
            self._send(batch[:half])
            self._send(batch[half:])
        elif batch:
            self._invalid(batch[0][0], str(problem))

    def _take_verdicts(self, items: dict[str, Json], answer: Json) -> None:
        runtime = self.runtime
        told = [[line.get("lease"), line.get("verdict")] for line in answer.get("items") or ()]
        runtime.history.note("answered", items=told, epoch=answer.get("epoch"))
        ended = []
        for line in answer.get("items") or ():
            item = items.get(str(line.get("lease")))
            if item is None:
                continue
            verdict = str(line.get("verdict"))
            if verdict == "invalid":
                self._invalid(item, str(line.get("message") or "no reason given"))
                continue
            if verdict != "accepted":
                runtime.log.info(f"report: {verdict}", lease=item["lease"])
            ended.append(item["lease"])
            self._forget(item, verdict)
        if ended:
            runtime.reports.answered(ended)
            epoch = answer.get("epoch") or runtime.epoch
            runtime.journal.append({"t": "acked", "leases": ended, "epoch": epoch})

    def _forget(self, item: Json, verdict: str) -> None:
        lease = item["lease"]
        places = self.runtime.places
        self.runtime.book.drop(lease)
        if verdict in ("accepted", "duplicate"):
            if item["outcome"] == "completed":
                self.runtime.tidy.remove_soon(lease)
            else:
                places.keep(lease, KEEP_FAILED_S)
        else:
            places.keep(lease, KEEP_FENCED_S)

    def _invalid(self, item: Json, reason: str) -> None:
        """The server cannot store this result; say so instead, once."""
        held = self.runtime.book.get(item["lease"])
        self.runtime.log.error(f"the report was refused: {reason}", lease=item["lease"])
        if held is None or item.get("_replaced"):
            if held is not None:
                self.runtime.stopper.forget(held)
            return
        text = f"The result cannot be stored: {reason}"
        replaced = {
            **item,
            "_replaced": True,
            "outcome": "failed",
            "failure": failure("user", "result_invalid", text[:2000]),
            "result": None,
            "logs": {},
            "artifacts": [],
        }
        held.report = replaced
        self.runtime.journal.commit({"t": "report", "items": [replaced]})
        self.runtime.reports.restore(replaced)
