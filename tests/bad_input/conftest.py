"""Fixtures of the bad inputs: one world for a whole corpus, the agent's twin, the command line."""

from __future__ import annotations

import pytest

from tests.api import Api, api, make_api
from tests.bad_input.world import World
from tests.client_server import command, served
from tests.integration.agent_fixtures import agent, twin
from tests.integration.conftest import no_failures_are_remembered

__all__ = [
    "agent",
    "api",
    "command",
    "make_api",
    "no_failures_are_remembered",
    "served",
    "twin",
    "world",
]


@pytest.fixture
def world(api: Api) -> World:
    """An object of every kind that a bad input can be about, on each database."""
    return World.made(api)
