"""Fixtures of the integration tests: the application on a fresh database."""

from tests.api import api, make_api

__all__ = ["api", "make_api"]
