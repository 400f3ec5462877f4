"""The work of a campaign: tasks of mixed kinds, some of which are cancelled on the way.

Every payload appends `start LEASE` and `end LEASE` to the ledger, so that what ran is known without
asking us.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from airavata_scheduler.client.api import Client
from tests.campaign.notes import Notes, now
from tests.campaign.site import PROJECT, Site
from tests.waiting import wait_until

# Shares of a campaign's tasks, in per cent.
KINDS = {"shell": 24, "output": 12, "failing": 8, "long": 6, "cancelled": 10, "call": 40}
CALLS_A_BATCH = 200
TASKS_AN_EXPERIMENT = 100
LEDGER_LINES = """
    #!/bin/sh
    echo "start $AIRAVATA_LEASE" >> "$LEDGER"
    {deed}
    echo "end $AIRAVATA_LEASE" >> "$LEDGER"
    {end}
"""
DEEDS = {
    "shell": ("true", ""),
    "output": ('echo "$NUMBER" > number.txt', ""),
    "failing": ("true", "exit 3"),
    "long": ("sleep 8", ""),
    "cancelled": ("sleep 3", ""),
}
EXPERIMENT = """
name: {name}
parameters:
  NUMBER: {{type: int}}
  LEDGER: {{type: string, default: "{ledger}"}}
scripts:
  DO: |{script}
tasks:
  do:
    script: DO
    task_inputs: {{NUMBER: 1..{tasks}}}
    {outputs}
    retries: 1
    resources: {{compute: {{cpu: 1}}}}
on_failure: continue
"""
SQUARE = """
import os

def square(number, ledger):
    lease = os.environ["AIRAVATA_LEASE"]
    for word in ("start", "end"):
        with open(ledger, "a") as file:
            file.write(f"{word} {lease}\\n")
    return number * number
"""


_CANCEL_BEHIND = 1  # so many experiments wait for their cancel while others are submitted
_BEGINS_WITHIN_S = 600.0


@dataclass(kw_only=True)
class Submitted:
    """What was accepted: experiments by their id, calls by theirs with the number to square."""

    experiments: dict[str, tuple[str, int]] = field(default_factory=dict)  # (kind, tasks)
    calls: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)  # experiments

    @property
    def with_outputs(self) -> set[str]:
        """The experiments whose tasks publish artifacts."""
        return {made for made, (kind, _) in self.experiments.items() if kind == "output"}


class Work:
    """Submits everything from one thread and cancels from another, while faults strike."""

    def __init__(self, site: Site, tasks: int, seed: int, kinds: Mapping[str, int] = KINDS) -> None:
        """`kinds` are the shares of the tasks, in per cent."""
        self._site, self._kinds = site, kinds
        self._dice = random.Random(seed)
        self._note = Notes(site.histories, "work")
        self.submitted = Submitted()
        self.failures: list[str] = []
        self._to_cancel: deque[str] = deque()
        self._orders = self._plan(tasks)

    def run(self) -> None:
        """Submit all of it; returns when everything is accepted and what is to be is cancelled."""
        with self._site.client() as client:
            client.functions.register(
                project=PROJECT,
                name="square",
                spec={
                    "kind": "python",
                    "python": {"entry": "square", "source": SQUARE, "codec": "json"},
                    "parameters": {"number": {"type": "int"}, "ledger": {"type": "string"}},
                },
            )
            for order in self._orders:
                order(client)
                if len(self._to_cancel) > _CANCEL_BEHIND:
                    self._cancel(client, self._to_cancel.popleft())
            while self._to_cancel:
                self._cancel(client, self._to_cancel.popleft())

    def _plan(self, tasks: int) -> list[Callable[[Client], None]]:
        orders: list[Callable[[Client], None]] = []
        for kind, share in self._kinds.items():
            left = tasks * share // 100
            size = CALLS_A_BATCH if kind == "call" else TASKS_AN_EXPERIMENT
            for number, start in enumerate(range(0, left, size)):
                count = min(size, left - start)
                if kind == "call":
                    orders.append(partial(self._call, first=start, count=count))
                else:
                    orders.append(partial(self._experiment, kind=kind, number=number, count=count))
        self._dice.shuffle(orders)
        return orders

    def _call(self, client: Client, *, first: int, count: int) -> None:
        numbers = range(first, first + count)
        bodies = [
            {"arguments": {"number": number, "ledger": str(self._site.ledger)}}
            for number in numbers
        ]
        ids = client.calls.create_batch("square", bodies, project=PROJECT)
        self._note("submitted", tasks=ids)
        self.submitted.calls.update(zip(ids, numbers, strict=True))

    def _experiment(self, client: Client, *, kind: str, number: int, count: int) -> None:
        name = f"{kind}-{number}"
        made = client.experiments.submit_file(self._file(kind, name, count), project=PROJECT)
        self._note("submitted", tasks=[], experiment=made.id, count=count)
        self.submitted.experiments[made.id] = (kind, count)
        if kind == "cancelled":
            self._to_cancel.append(made.id)

    def _file(self, kind: str, name: str, count: int) -> Path:
        deed, end = DEEDS[kind]
        outputs = "task_outputs: {FOUND: number.txt}" if kind == "output" else ""
        text = EXPERIMENT.format(
            name=name,
            ledger=self._site.ledger,
            script=LEDGER_LINES.format(deed=deed, end=end),
            tasks=count,
            outputs=outputs,
        )
        path = self._site.folder / f"{name}.yml"
        path.write_text(text)
        return path

    def _cancel(self, client: Client, experiment: str) -> None:
        """Cancel single tasks, then the rest, once some of them run."""
        wait_until(
            lambda: _has_begun(client, experiment),
            timeout_s=_BEGINS_WITHIN_S,
            message=f"a task of {experiment} to begin",
        )
        tasks = [str(task.id) for task in client.experiments.tasks(experiment, limit=20)]
        for task in self._dice.sample(tasks, min(3, len(tasks))):
            began = now()
            client.tasks.cancel(task)
            self._note("cancelled", tasks=[task], began=began)
        began = now()
        client.experiments.act(experiment, "cancel")
        known = [str(task.id) for task in client.experiments.tasks(experiment)]
        self._note("cancelled", tasks=known, experiment=experiment, began=began)
        self.submitted.cancelled.add(experiment)


def _has_begun(client: Client, experiment: str) -> bool:
    counts = client.experiments.progress(experiment).counts
    return any(counts.get(name) for name in ("running", "finalizing", "completed", "failed"))
