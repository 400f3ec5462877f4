"""Families 13 and 14: what lies under an output's name, and is no file of ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from airavata_scheduler.agent.outputs import OutputProblem, find_outputs


def test_a_hard_link_to_a_foreign_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second name of somebody else's file is no output of ours, named or matched."""
    (tmp_path / "theirs").write_text("secret")
    work = tmp_path / "work"
    work.mkdir()
    os.link(tmp_path / "theirs", work / "out")
    monkeypatch.setattr(os, "geteuid", lambda: (work / "out").stat().st_uid + 1)

    for pattern in ("out", "o*"):
        with pytest.raises(OutputProblem, match="belongs to another user"):
            find_outputs(work, {"R": pattern})


def _socket(path: Path) -> None:
    # Its address is shorter than 108 bytes, whatever the folder is called.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, _socket, Path.mkdir])
@pytest.mark.parametrize("pattern", ["out", "o*", "**/out"])
def test_what_is_no_file_is_refused_at_once(
    pattern: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    """A FIFO without a writer holds nobody up; the failure names the path or what is there."""
    make(tmp_path / "out")

    with pytest.raises(OutputProblem, match="out"):
        find_outputs(tmp_path, {"R": pattern})
