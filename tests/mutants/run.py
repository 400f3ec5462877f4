"""Take each mechanism out and see which test notices: `python -m tests.mutants.run [NAME…]`.

First the named tests run on a copy of the tree as it is, and must pass. Then each mutant's patch is
applied to a copy of its own, and its tests run there until one fails: that one kills it. Exits with
1 where a mutant survives, or where one could not be tried: its patch does not apply, or its tests
broke down instead of failing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import click

from tests.mutants.copies import (
    WrongCode,
    copy_again,
    copy_tree,
    forget_compiled,
    python_of,
    see_that_it_runs,
)
from tests.mutants.mutant import Mutant, mutants

_TEST_S = 90  # a mutant may make a test wait for ever
_RUN_S = 900.0
Fate = Literal["killed", "SURVIVED", "BROKEN"]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of one mutant; `by` is the test that killed it, or why it could not be tried."""

    mutant: Mutant
    fate: Fate
    by: str
    said: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of tests ended: its failures (test, message), and pytest's words where it broke."""

    failures: list[tuple[str, str]]
    passed: int
    broke: str | None


def run_tests(copy: Path, tests: Sequence[str], *options: str) -> Outcome:
    """Run tests in a copy, with the copy's code."""
    # Beside the copy, not in it: it may be copied on.
    report, folder = copy.with_name(f"{copy.name}.xml"), copy.with_name(f"{copy.name}.files")
    command = [str(python_of(copy)), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}", f"--basetemp={folder}", f"--timeout={_TEST_S}"]
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [*command, *options, *dict.fromkeys(tests)],
        cwd=copy,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_RUN_S,
        check=False,
    )
    _end_leftovers(copy, folder)
    shutil.rmtree(folder, ignore_errors=True)
    failures, passed, errors = _read(report)
    # 1 says that tests failed; anything else but 0 that they could not be run.
    broke = done.stdout[-4000:] if errors or done.returncode not in (0, 1) else None
    return Outcome(failures=failures, passed=passed, broke=broke)


def _end_leftovers(*folders: Path) -> None:
    """Kill what a mutant left running: processes that were started in these folders or from them.

    A payload that is deaf to TERM, say, where the mutant is that nobody kills it.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = [str(process.joinpath("cwd").readlink()), *_words(process)]
            if any(Path(word).is_relative_to(folder) for word in words for folder in folders):
                os.kill(int(process.name), signal.SIGKILL)


def _words(process: Path) -> list[str]:
    return [
        word.decode(errors="replace")
        for word in process.joinpath("cmdline").read_bytes().split(b"\0")
    ]


def _read(report: Path) -> tuple[list[tuple[str, str]], int, int]:
    """Failures of tests, how many passed, and how many broke outside their own lines."""
    failures: list[tuple[str, str]] = []
    passed = errors = 0
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            failure = case.find("failure")
            if failure is not None:
                name = f"{case.get('classname', '')}::{case.get('name')}"
                failures.append((name, (failure.get("message") or "").split("\n")[0]))
            elif case.find("error") is not None:
                errors += 1
            elif case.find("skipped") is None:
                passed += 1
    return failures, passed, errors


def try_mutant(mutant: Mutant, base: Path, folder: Path) -> Tried:
    """Apply one mutant to a copy of its own and run its tests until one fails."""
    began = time.monotonic()

    def tried(fate: Fate, by: str, said: str = "") -> Tried:
        seconds = time.monotonic() - began
        return Tried(mutant=mutant, fate=fate, by=by, said=said, seconds=seconds)

    copy = folder / mutant.name
    copy_again(base, copy)
    try:
        return _tried_in(mutant, copy, tried)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _tried_in(mutant: Mutant, copy: Path, tried: Callable[..., Tried]) -> Tried:
    refused = mutant.applies(copy)
    if refused is not None:
        return tried("BROKEN", "the patch does not apply", refused)
    forget_compiled(copy, mutant.files)
    try:
        see_that_it_runs(copy, mutant.files)
    except WrongCode as error:
        return tried("BROKEN", "the copy would run other code", str(error))
    try:
        outcome = run_tests(copy, mutant.tests, "--exitfirst")
    except subprocess.TimeoutExpired:
        return tried("BROKEN", f"the tests did not end within {_RUN_S:.0f} s")
    if outcome.failures:
        return tried("killed", *outcome.failures[0])
    if outcome.broke is not None or not outcome.passed:
        return tried("BROKEN", "the tests broke down", outcome.broke or "all were skipped")
    return tried("SURVIVED", f"{outcome.passed} tests passed")


def _pass_unmutated(chosen: Sequence[Mutant], base: Path, processes: int) -> bool:
    tests = [test for mutant in chosen for test in mutant.tests]
    click.echo(f"{len(chosen)} mutants; first their {len(set(tests))} tests without any of them …")
    began = time.monotonic()
    see_that_it_runs(base, {file for mutant in chosen for file in mutant.files})
    outcome = run_tests(base, tests, f"--numprocesses={processes}", "--dist=loadfile")
    for name, said in outcome.failures:
        click.echo(f"  fails without a mutant: {name}: {said}")
    if outcome.broke is not None:
        click.echo(outcome.broke)
    good = not outcome.failures and outcome.broke is None and outcome.passed > 0
    if good:
        click.echo(f"{outcome.passed} passed in {time.monotonic() - began:.0f} s")
    return good


def _show(tried: Tried, width: int) -> None:
    seconds = f"{tried.seconds:5.1f} s"
    if tried.fate == "killed":
        test = tried.by.removeprefix("tests.").replace(".test_", "/test_", 1)
        click.echo(f"{tried.mutant.name:{width}} {seconds}  killed by {test}")
    else:
        click.echo(f"{tried.mutant.name:{width}} {seconds}  {tried.fate}: {tried.by}")
        click.echo(f"    {tried.mutant.mechanism}", nl=bool(tried.said))
        click.echo(f"\n    {tried.said}" if tried.said else "")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, type=int)
@click.option("--explain", is_flag=True, help="Say what each killing test said.")
@click.pass_context
def main(context: click.Context, names: tuple[str, ...], processes: int, explain: bool) -> None:
    """Try the mutants called NAMES, or all."""
    chosen = [mutant for mutant in mutants() if not names or mutant.name in names]
    unknown = set(names) - {mutant.name for mutant in chosen}
    if unknown:
        raise click.UsageError(f"there is no mutant called {', '.join(sorted(unknown))}")
    width = max(len(mutant.name) for mutant in chosen)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as where:
        folder = Path(where)
        base = folder / "tree"
        copy_tree(base)
        if not _pass_unmutated(chosen, base, processes):
            context.exit(1)
        fates = []
        with ThreadPoolExecutor(processes) as pool:
            deed = partial(try_mutant, base=base, folder=folder)
            for tried in pool.map(deed, chosen):
                _show(tried, width)
                if explain and tried.fate == "killed":
                    click.echo(f"    {tried.said}")
                fates.append(tried.fate)
    killed = fates.count("killed")
    click.echo(
        f"{len(fates)} mutants: {killed} killed, {fates.count('SURVIVED')} survived, "
        f"{fates.count('BROKEN')} not tried; {time.monotonic() - began:.0f} s"
    )
    context.exit(0 if killed == len(fates) else 1)


if __name__ == "__main__":
    main()
