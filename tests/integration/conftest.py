"""Fixtures of the integration tests: the application on a fresh database."""

import pytest

from airavata_scheduler.functions import login_backoff
from tests.api import api, make_api
from tests.integration.agent_fixtures import agent, twin

__all__ = ["agent", "api", "make_api", "twin"]


@pytest.fixture(autouse=True)
def no_failures_are_remembered() -> None:
    """The wrong passwords that earlier tests typed in this process hold up nobody."""
    login_backoff._failures.clear()
