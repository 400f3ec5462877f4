"""The agent as one file."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from airavata_scheduler.commands.agent_file import build, cached_agent_file


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Whoever builds the same sources gets the same hash, whatever the clock says."""
    first = build(tmp_path / "one.pyz")
    os.utime(tmp_path / "one.pyz", (0, 0))

    second = build(tmp_path / "two.pyz")

    assert first == second
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes()


def test_it_runs_alone_without_any_package(tmp_path: Path) -> None:
    """`python3 -I -S` in an empty folder is enough, and the exit status is kept."""
    build(tmp_path / "agent.pyz")

    shown = subprocess.run(
        [sys.executable, "-I", "-S", "agent.pyz", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = subprocess.run(
        [sys.executable, "-I", "-S", "agent.pyz", "no-such-verb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    assert "enroll" in shown.stdout
    assert wrong.returncode == 2


def test_it_holds_the_agent_and_nothing_else(tmp_path: Path) -> None:
    """No other room, no cache, no test travels to a site."""
    build(tmp_path / "agent.pyz")

    names = zipfile.ZipFile(tmp_path / "agent.pyz").namelist()

    assert all(name == "__main__.py" or name.startswith("airavata_scheduler/") for name in names)
    assert not [name for name in names if name.endswith(".pyc") or "/models/" in name]


def test_the_cache_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts again finds the file of its version."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = cached_agent_file()
    stamp = first.stat().st_mtime_ns

    again = cached_agent_file()

    assert again == first
    assert again.stat().st_mtime_ns == stamp
