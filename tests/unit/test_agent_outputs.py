"""Outputs of a payload that builds strange folders."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

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


def _remove(root: Path) -> None:
    """From the top: each folder's child takes its place, so that no path grows too long."""
    while (root / "d").exists():
        below = root / "below"
        if (root / "d" / "d").exists():
            (root / "d" / "d").rename(below)
        (root / "d").rmdir()
        if below.exists():
            below.rename(root / "d")
