"""Fixtures of the faults: the application on a fresh database."""

from tests.api import make_api

__all__ = ["make_api"]
