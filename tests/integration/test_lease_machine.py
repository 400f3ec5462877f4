"""The real lease queries answer as the plain reference does, and keep the invariants."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.lease_machine import LeaseMachine

pytestmark = pytest.mark.usefixtures("fresh_database")


def run(examples: int, steps: int) -> None:
    """The same runs each time."""
    run_state_machine_as_test(
        LeaseMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_queries_answer_as_the_reference_does() -> None:
    """Verdicts, rows, counters and the invariants, step by step."""
    LeaseMachine.told.clear()

    run(examples=10, steps=40)

    assert {"granted", "accepted", "conflict", "superseded", "came back"} <= set(LeaseMachine.told)


@pytest.mark.nightly
def test_the_queries_answer_as_the_reference_does_for_long() -> None:
    """The same, 32,000 steps on each database."""
    run(examples=400, steps=80)
