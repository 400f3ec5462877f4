"""Outputs of a payload that builds strange folders."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from airavata_scheduler.agent import outputs
from airavata_scheduler.agent.outputs import OutputProblem, find_outputs


def test_folders_that_never_end_are_refused(tmp_path: Path) -> None:
    """A task that digs too deep for a `**` fails with a sentence; the upload loop goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)

    try:
        with pytest.raises(OutputProblem, match="deeper than 100 folders"):
            find_outputs(tmp_path, {"all": "**/*.txt"})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        _remove(tmp_path)


@pytest.mark.parametrize("pattern", ["*.csv", "**/*", "d/*"])
def test_more_outputs_than_may_be_are_refused_before_any_is_read(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk ends at the limit; no file is hashed first."""
    monkeypatch.setattr(outputs, "MOST_FILES", 20)
    monkeypatch.setattr(outputs, "_measure", lambda *_: pytest.fail("a file was read"))
    (tmp_path / "d").mkdir()
    for number in range(30):
        (tmp_path / f"{number}.csv").touch()
        (tmp_path / "d" / f"{number}.csv").touch()

    with pytest.raises(OutputProblem, match=r"more than 20 files, with those of ALL .*pack them"):
        find_outputs(tmp_path, {"ALL": pattern})


@pytest.mark.parametrize("pattern", ["*.csv", "**/**/**/nothing", "?????/x"])
def test_a_glob_looks_at_so_many_names_and_no_more(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that do not match, and folders that `**` visits again and again, count too."""
    monkeypatch.setattr(outputs, "MOST_LOOKED_AT", 200)
    here = tmp_path
    for number in range(40):
        here = here / f"{number}"
        here.mkdir()
    for number in range(201):
        (tmp_path / f"{number}.txt").touch()

    with pytest.raises(
        OutputProblem, match=r"R \(.*\) looks at more than 200 .*folder of their own"
    ):
        find_outputs(tmp_path, {"R": pattern})


def _remove(root: Path) -> None:
    """From the top: each folder's child takes its place, so that no path grows too long."""
    while (root / "d").exists():
        below = root / "below"
        if (root / "d" / "d").exists():
            (root / "d" / "d").rename(below)
        (root / "d").rmdir()
        if below.exists():
            below.rename(root / "d")
