"""^C that cannot get lost.

Python drops a KeyboardInterrupt that comes while a finalizer or a weak reference's callback runs
("Exception ignored in …"), and the command would go on as if nobody had pressed the keys.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

AGAIN_AFTER_S = 1.0


@contextlib.contextmanager
def insisting() -> Iterator[None]:
    """In this block ^C raises KeyboardInterrupt once a second until the block ends."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield  # signals are the main thread's; a script's background jobs ignore ^C
        return
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER_S)
    raise KeyboardInterrupt
