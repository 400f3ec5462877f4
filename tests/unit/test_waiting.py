"""The tests' own way to wait."""

from __future__ import annotations

import pytest

from tests.waiting import wait_until


def test_it_returns_what_the_predicate_found() -> None:
    """The first true value ends the waiting and is handed over."""
    values = iter([None, 0, "found", "later"])

    assert wait_until(lambda: next(values)) == "found"


def test_it_says_what_it_waited_for() -> None:
    """After the time-out the message names the condition and the last value."""
    with pytest.raises(AssertionError, match=r"0\.05 s in vain for the moon; last: \[\]"):
        wait_until(list, timeout_s=0.05, message="the moon")
