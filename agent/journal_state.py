"""What the journal's records add up to: the leases that are not acknowledged yet.

One `apply` serves both the replay after a start and the running agent, so that a checkpoint is by
construction what a replay would find. States follow PROTOCOL.md section 5:

    claim intent → granted → confirmed → launching → running → reported → acked | dropped

A journal may be older than what happened: it is a copy, its end is torn, or the machine was taken
back with it. A lease without a report is `doubted` then: it may have been started meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]
DOUBTED = "doubted"


@dataclass
class Entry:
    """One lease as the journal knows it. `boot` and `worker` belong to its launching."""

    offer: Record
    state: str = "granted"
    worker: str | None = None
    boot: str | None = None
    report: Record | None = None
    inputs: Record | None = None


@dataclass
class JournalState:
    """Everything that is still open; small, whatever the number of leases that have passed."""

    boot: str = ""
    place: str = ""  # the host and the very folder that the records were written in
    epoch: str = ""  # of the latest acknowledgement
    settled: str = ""  # the epoch in which everything acknowledged before is reported again
    starts: list[float] = field(default_factory=list)
    intents: dict[str, int] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    specs: dict[str, Record] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        """Take one record in; an unknown kind (from a newer agent) is passed over."""
        deed = _DEEDS.get(record.get("t", ""))
        if deed is not None:
            deed(self, record)

    def boots(self, record: Record) -> None:
        """A start of the agent: its boot id, the wall-clock second, and where the folder is."""
        place = record.get("place", self.place)
        if self.place and place != self.place:
            self.doubts()
        elif self.boot and record["boot"] != self.boot:
            self.doubts("granted", "confirmed")
        self.boot, self.place = record["boot"], place
        self.starts = [*self.starts, record["at"]][-20:]

    def doubts(self, *states: str) -> None:
        """What was not reported (of `states`; default: all) may have gone on without this journal.

        The records say so, and not only the start that finds it out: it may die before it acts.
        """
        for entry in self.entries.values():
            if entry.report is None and (not states or entry.state in states):
                entry.state = DOUBTED

    def stops(self, _record: Record) -> None:
        """The present start ended as it was asked to: no crash."""
        self.starts = self.starts[:-1]

    def takes_intent(self, record: Record) -> None:
        """A claim is about to be sent."""
        self.intents[record["claim"]] = record["seq"]

    def drops_intents(self, record: Record) -> None:
        """Claims that are settled without a grant, or by a new session."""
        for claim in record["claims"]:
            self.intents.pop(claim, None)

    def grants(self, record: Record) -> None:
        """Leases are ours. A replayed grant never takes an entry back to its beginning."""
        self.intents.pop(record.get("claim", ""), None)
        self.specs.update(record["specs"])
        for offer in record["leases"]:
            self.entries.setdefault(offer["lease"], Entry(offer))

    def confirms(self, record: Record) -> None:
        """The API confirmed that a payload may start."""
        for lease, inputs in record["leases"].items():
            entry = self.entries.get(lease)
            if entry is not None and entry.state == "granted":
                entry.state, entry.inputs = "confirmed", inputs

    def launches(self, record: Record) -> None:
        """Payloads may have started from here on."""
        for lease in record["leases"]:
            entry = self.entries.get(lease)
            if entry is not None and entry.report is None:
                entry.state, entry.boot, entry.worker = "launching", self.boot, record.get("w")

    def runs(self, record: Record) -> None:
        """The wrapper's process is known."""
        entry = self.entries.get(record["lease"])
        if entry is not None and entry.state == "launching":
            entry.state = "running"

    def reports(self, record: Record) -> None:
        """Results are final on our side; from here on they are never lost."""
        for item in record["items"]:
            entry = self.entries.get(item["lease"])
            if entry is not None:
                entry.state, entry.report = "reported", item

    def ends(self, record: Record) -> None:
        """Leases that the API acknowledged, or that are not ours any more."""
        self.epoch = record.get("epoch") or self.epoch
        for lease in record["leases"]:
            self.entries.pop(lease, None)
        if len(self.specs) > 64 + 2 * len(self.entries):
            self.forget_unused_specs()

    def settles(self, record: Record) -> None:
        """All that was acknowledged in earlier epochs has been reported in this one."""
        self.settled = record["epoch"]

    def forget_unused_specs(self) -> None:
        """Drop specs that no open lease names."""
        used = {entry.offer["spec"] for entry in self.entries.values()}
        self.specs = {key: spec for key, spec in self.specs.items() if key in used}

    def restores(self, record: Record) -> None:
        """One entry of a checkpoint, exactly as it was."""
        self.entries[record["offer"]["lease"]] = Entry(
            record["offer"],
            record["state"],
            record["w"],
            record["boot"],
            record["report"],
            record["inputs"],
        )

    def restores_frame(self, record: Record) -> None:
        """The rest of a checkpoint."""
        self.boot, self.epoch, self.starts = record["boot"], record["epoch"], record["starts"]
        self.settled, self.place = record.get("settled", ""), record.get("place", "")
        self.intents, self.specs = dict(record["intents"]), dict(record["specs"])

    def dump(self) -> list[Record]:
        """The records that make a new, empty state equal to this one."""
        self.forget_unused_specs()
        records: list[Record] = [
            {
                "t": "frame",
                "boot": self.boot,
                "place": self.place,
                "epoch": self.epoch,
                "settled": self.settled,
                "starts": self.starts,
                "intents": self.intents,
                "specs": self.specs,
            }
        ]
        for entry in self.entries.values():
            records.append(
                {
                    "t": "entry",
                    "offer": entry.offer,
                    "state": entry.state,
                    "w": entry.worker,
                    "boot": entry.boot,
                    "report": entry.report,
                    "inputs": entry.inputs,
                }
            )
        return records


_DEEDS = {
    "boot": JournalState.boots,
    "stopped": JournalState.stops,
    "intent": JournalState.takes_intent,
    "nothing": JournalState.drops_intents,
    "granted": JournalState.grants,
    "confirmed": JournalState.confirms,
    "launching": JournalState.launches,
    "running": JournalState.runs,
    "report": JournalState.reports,
    "acked": JournalState.ends,
    "dropped": JournalState.ends,
    "settled": JournalState.settles,
    "entry": JournalState.restores,
    "frame": JournalState.restores_frame,
}
