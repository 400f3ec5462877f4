"""Fixtures of the integration tests: the application on a fresh database."""

from tests.api import api, make_api
from tests.integration.agent_fixtures import agent, twin

__all__ = ["agent", "api", "make_api", "twin"]
