"""The kill campaign: `python -m tests.campaign.main --database sqlite --tasks 2000 --faults 200`.

Runs mixed work on three agents while faults strike from a seed; then lets everything come to rest,
reads how it ended, and has the judge look at all of it. Exits with 1 where a promise was broken;
the folder with histories, ledger and logs is kept then.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import click
import psutil

from tests.campaign import outcome
from tests.campaign.chaos import Chaos, plan
from tests.campaign.checker import check, reruns
from tests.campaign.notes import Notes, now
from tests.campaign.record import read
from tests.campaign.site import Database, Keeper, Site, site
from tests.campaign.work import Work

_UNTIMED_FOR_S = 120.0  # longer than any look of the reconciler
_LOOK_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run."""

    database: Database
    tasks: int
    faults: int
    seed: int
    pause_s: float  # between two faults, on average
    rest_s: float  # how long everything may take to end once the faults are over


@dataclass(kw_only=True)
class Result:
    """What a campaign showed, as it is kept."""

    database: str
    seed: int
    tasks: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    reruns: int = 0
    wrong_results: int = 0
    broken: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    machine: str = ""

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken and not self.wrong_results


def run(options: Options, folder: Path) -> Result:
    """One campaign in `folder`."""
    result = Result(database=options.database, seed=options.seed, machine=_machine())
    began = time.monotonic()
    with Keeper() as keeper, site(folder, options.database) as made:
        outcome.look_at(made.database_url)
        work = Work(made, options.tasks, options.seed)
        strikes = plan(options.seed, options.faults, set(made.parts), options.pause_s)
        chaos = Chaos(made, strikes, options.seed)
        keeper.keep(made.parts)
        watch = _Watch(Notes(made.histories, "watch"))
        chaos.start()
        work.run()
        watch.until(lambda: chaos.is_over, timeout_s=options.faults * options.pause_s * 4 + 600)
        chaos.end()
        stuck = watch.until(lambda: outcome.open_tasks() == 0, timeout_s=options.rest_s)
        result.remarks += [] if stuck is None else [stuck]
        result.wrong_results = wrong_results(made, work)
        keeper.rest()
        ended = outcome.note_all(Notes(made.histories, "outcome"), work.submitted.with_outputs)
        record = read(made.histories, made.ledger)
    result.tasks = sum(ended.states.values())
    result.states, result.reasons = dict(ended.states), dict(ended.reasons)
    result.faults = dict(sorted(chaos.struck.items()))
    result.starts, result.reruns = len(record.starts), reruns(record)
    result.broken = [str(fault) for fault in check(record)]
    result.remarks += [f"{chaos.missed} strikes found nothing to strike"] if chaos.missed else []
    result.remarks += chaos.failures + keeper.failures
    result.seconds = round(time.monotonic() - began, 1)
    return result


class _Watch:
    """Looks at the database while it waits: a task that nothing will look at again is noted."""

    def __init__(self, note: Notes) -> None:
        self._note = note
        self._since: dict[str, float] = {}

    def until(self, is_over: Callable[[], bool], *, timeout_s: float) -> str | None:
        """Wait until `is_over`; a sentence where it did not come about in time."""
        deadline = time.monotonic() + timeout_s
        while not is_over():
            if time.monotonic() > deadline:
                return f"gave up waiting after {timeout_s:.0f} s"
            self._look()
            time.sleep(_LOOK_S)
        return None

    def _look(self) -> None:
        try:
            found = outcome.untimed()
        except Exception:  # noqa: BLE001 - the database is one of the parts that are killed
            return
        self._since = {task: self._since.get(task, now()) for task in found}
        late = [task for task, since in self._since.items() if now() - since > _UNTIMED_FOR_S]
        if late:
            self._note("untimed", tasks=late)


def wrong_results(made: Site, work: Work) -> int:
    """How many completed calls did not give the square of their number."""
    wrong = 0
    ids = list(work.submitted.calls)
    with made.client() as client:
        for start in range(0, len(ids), 1000):
            for call in client.calls.results(ids[start : start + 1000], wait_s=10.0):
                right = work.submitted.calls[call.id] ** 2
                wrong += call.state == "COMPLETED" and (call.result or {}).get("data") != right
    return wrong


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A folder that other users may enter (the databases refuse to run as root)."""
    path = keep or Path(tempfile.mkdtemp(prefix="airavata-campaign-"))
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    yield path


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument("--database", choices=get_args(Database), default="sqlite")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two faults")
    parser.add_argument("--rest", type=float, default=300.0, help="seconds to come to rest in")
    parser.add_argument("--folder", type=Path, help="where everything is written; kept")
    parser.add_argument("--result", type=Path, help="append the result to this file, as JSON")
    given = parser.parse_args(arguments)
    options = Options(
        database=given.database,
        tasks=given.tasks,
        faults=given.faults,
        seed=given.seed,
        pause_s=given.pause,
        rest_s=given.rest,
    )
    with _folder(given.folder) as folder:
        result = run(options, folder)
        click.echo(json.dumps(asdict(result), indent=2))
        if given.result is not None:
            with given.result.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
        if result.is_good and given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            click.echo(f"kept: {folder}", err=True)
    return 0 if result.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
