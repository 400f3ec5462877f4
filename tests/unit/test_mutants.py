"""The mutants: each still takes its mechanism out of the tree, and names tests that exist.

That they are killed is shown by `make mutants`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.copies import WrongCode, copy_tree, python_of, see_that_it_runs
from tests.mutants.mutant import ROOT, Mutant, MutantMalformed, mutants, read_mutant

MUTANTS = mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_applies(mutant: Mutant) -> None:
    """The code that it changes is still there."""
    assert mutant.applies(ROOT, check=True) is None


def test_their_tests_exist() -> None:
    """Each named test is collected under exactly this name."""
    named = {test for mutant in MUTANTS for test in mutant.tests}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", *named],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_invariant_has_its_mutants() -> None:
    """I1 to I8: a promise that no test would miss is none."""
    taken_out = {mutant.invariant for mutant in MUTANTS}

    assert {f"I{number}" for number in range(1, 9)} <= taken_out


def test_they_change_the_program_and_no_test() -> None:
    """A mutant of a test proves nothing."""
    assert {file.split("/", 1)[0] for mutant in MUTANTS for file in mutant.files} <= {
        *("agent", "backends", "functions", "models", "queue")
    }


@pytest.mark.parametrize("line", ["mechanism", "invariant", "tests"])
def test_a_header_is_complete(line: str, tmp_path: Path) -> None:
    """What is missing is named."""
    whole = MUTANTS[0].path.read_text()
    broken = [text for text in whole.splitlines() if not text.startswith(f"{line}:")]
    path = tmp_path / "broken.patch"
    path.write_text("\n".join(broken))

    with pytest.raises(MutantMalformed, match=f"broken.patch lacks: {line}"):
        read_mutant(path)


def test_a_copy_runs_its_own_code(tmp_path: Path) -> None:
    """Also in a process that hears of no environment; and it is seen where it would not."""
    copy = tmp_path / "copy"
    copy_tree(copy)
    code = "import airavata_scheduler.agent.wrapper as it; print(it.__file__)"
    command = [str(python_of(copy)), "-I", "-c", code]

    found = subprocess.run(command, cwd="/", check=True, capture_output=True, text=True).stdout

    assert found.strip() == str(copy / "agent" / "wrapper.py")
    see_that_it_runs(copy, ["agent/wrapper.py", "models/claiming.py"])
    for finder in (copy / ".venv").glob("lib/*/site-packages/__editable__*.py"):
        finder.write_text(finder.read_text().replace(str(copy), str(ROOT)))
    with pytest.raises(WrongCode, match="would be"):
        see_that_it_runs(copy, ["agent/wrapper.py"])
