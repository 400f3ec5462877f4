"""Asking for work: how much, one claim at a time, each journalled before it is sent."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from airavata_scheduler.agent.lease_book import MOST_IDLERS, READY, WAITING, Held
from airavata_scheduler.agent.places import is_lease_name

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
_MOST = 500
_UNREPORTED_BOUND = 2000  # results that wait for the API; more work would only pile up behind them


class Claims:
    """One claim is under way at a time: the server takes their numbers in order."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._turn = threading.Lock()
        self._seq = 0
        self._journalled: set[str] = set()

    def new_session(self) -> None:
        """Numbers begin again; what an older session asked for has been settled with the server."""
        with self._turn:
            self._seq = 0
            open_intents = list(self._runtime.journal.state.intents)
            if open_intents:
                self._runtime.journal.append({"t": "nothing", "claims": open_intents})

    def unresolved(self) -> list[str]:
        """Claims whose answers never came."""
        return list(self._runtime.journal.state.intents)

    def want(self) -> int:
        """How many more leases that need a core this agent should ask for now."""
        return self._count()[0]

    def _count(self) -> tuple[int, int, int]:
        """(wanted leases with cores, wanted leases without, how many without are held)."""
        if not self._runtime.modes.takes_work():
            return 0, 0, 0
        book = self._runtime.book
        held = book.tally
        if held.unreported > _UNREPORTED_BOUND:
            return 0, 0, 0
        ahead = book.durations.ahead(book.capacity.cpu)
        # What was claimed ahead is used up to the half before more is asked for: one claim, and one
        # call at the gate, for many leases instead of one after each end.
        enough = held.active >= book.capacity.cpu + (ahead + 1) // 2
        wanted = 0 if enough else book.capacity.cpu + ahead - held.active
        return min(_MOST, wanted), max(0, MOST_IDLERS - held.idlers), held.idlers

    def take(self, *, blocking: bool = True, coreless: bool = False) -> Json | None:
        """The body of a new claim, its intent in the journal (not synced); None when none is due.

        `coreless`: where all cores are taken, ask for tasks that need none. The caller must `sync`
        the journal, send the body, and call `settle` or `give_up`.
        """
        if not self._turn.acquire(blocking=blocking):
            return None
        wanted, without, idlers = self._count()
        free = self._free()
        if wanted:
            # Where tasks without a core are about, more of them are likely to follow.
            wanted = min(_MOST, wanted + min(idlers, without, 32))
        elif without and (idlers or coreless):
            wanted = without
            free.update(cpu=0, gpu=0)
        if not wanted:
            self._turn.release()
            return None
        self._seq += 1
        claim_id = secrets.token_hex(16)
        self._runtime.journal.append({"t": "intent", "claim": claim_id, "seq": self._seq})
        return {
            "claim_id": claim_id,
            "seq": self._seq,
            "max": wanted,
            "free": free,
            "wait_s": 0,
        }

    def listening(self, wait_s: float) -> Json:
        """The body of a call that only waits for attention."""
        body = {"claim_id": secrets.token_hex(16), "seq": self._seq, "max": 0}
        return {**body, "free": {"cpu": 0, "ram_mb": 0, "gpu": 0, "disk_mb": 0}, "wait_s": wait_s}

    def settle(self, body: Json, answer: Json | None) -> int:
        """Take the answer in: journal, then book. How many leases are new."""
        try:
            return self._take_in(body, answer or {})
        finally:
            self._turn.release()

    def give_up(self) -> None:
        """The call ended without an answer; its intent stays in the journal."""
        self._turn.release()

    def _free(self) -> Json:
        book = self._runtime.book
        free = book.free()
        if book.durations.ahead(book.capacity.cpu):
            # Short tasks are claimed ahead: what counts is what fits once the present ones ended.
            free.update(cpu=book.capacity.cpu, ram_mb=book.capacity.ram_mb)
        free["disk_mb"] = self._runtime.modes.task_disk_mb
        return free

    def _take_in(self, body: Json, answer: Json) -> int:
        runtime = self._runtime
        specs: Json = answer.get("specs") or {}
        dead = set(answer.get("dead") or ())
        offers = [o for o in answer.get("leases") or () if _is_usable(o, specs)]
        offers = [o for o in offers if o["lease"] not in dead]
        if not offers:
            runtime.journal.append({"t": "nothing", "claims": [body["claim_id"]]})
            return 0
        known = runtime.journal.state.specs
        fresh = {o["spec"]: specs[o["spec"]] for o in offers if o["spec"] not in known}
        ticket = runtime.journal.append(
            {"t": "granted", "claim": body["claim_id"], "leases": offers, "specs": fresh}
        )
        count = sum(self._add(offer, specs[offer["spec"]]) for offer in offers)
        # Launching commits too, and shares this fsync.
        runtime.journal.sync(ticket)
        granted = [offer["lease"] for offer in offers]
        runtime.history.note("granted", claim=body["claim_id"], leases=granted)
        return count

    def _add(self, offer: Json, spec: Json) -> int:
        phase = WAITING if offer.get("gate") == "closed" else READY
        held = Held(offer["lease"], offer, spec, phase)
        added = self._runtime.book.add(held)
        return int(added)


def _is_usable(offer: Json, specs: Json) -> bool:
    return is_lease_name(offer.get("lease")) and isinstance(specs.get(str(offer.get("spec"))), dict)
