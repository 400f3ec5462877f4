"""Fixtures of the agent's tests: the in-memory API and a real agent process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess


@pytest.fixture
def twin() -> Iterator[AgentApi]:
    """The API's in-memory twin."""
    with AgentApi() as api:
        yield api


@pytest.fixture
def agent(twin: AgentApi, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that is not started yet; all its processes are gone afterwards."""
    process = AgentProcess(twin, tmp_path)
    yield process
    process.end()
