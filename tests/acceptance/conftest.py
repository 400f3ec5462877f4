"""One whole system for each module of acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.system import LocalSystem, end_processes_in


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """A single-machine system that runs; its agent notices changes quickly."""
    system = LocalSystem(folder=tmp_path_factory.mktemp("local"))
    system.start()
    try:
        yield system
    finally:
        system.stop()
        # Payloads and warm workers outlive an agent by design, but not the test's folder.
        end_processes_in(system.folder)


@pytest.fixture
def folder(local: LocalSystem, request: pytest.FixtureRequest) -> Path:
    """A new folder below the system's for the files of one test."""
    name = str(request.node.name).translate(str.maketrans("[]/:", "____"))
    made: Path = local.folder / name[:60]
    made.mkdir()
    return made
