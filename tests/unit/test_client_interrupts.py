"""^C ends a command, at whatever instant it comes."""

from __future__ import annotations

import signal
import threading

import pytest

from airavata_scheduler.client import interrupts
from airavata_scheduler.client.interrupts import insisting


class Finalised:
    """The keys are pressed while it is taken away."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_dropped_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is lost in the finalizer; the command hears the second."""
    monkeypatch.setattr(interrupts, "AGAIN_AFTER_S", 0.05)

    with pytest.raises(KeyboardInterrupt), insisting():
        Finalised()
        threading.Event().wait(20)
        pytest.fail("nobody heard it")


def test_a_command_that_has_ended_is_left_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before is there again, and no alarm is left behind."""
    monkeypatch.setattr(interrupts, "AGAIN_AFTER_S", 0.05)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)

    with pytest.raises(KeyboardInterrupt), insisting():
        signal.raise_signal(signal.SIGINT)

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
