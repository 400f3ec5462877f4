"""A progress bar with rate and time left, on standard error and only on a terminal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Self

from airavata_scheduler.client.output import Output, size, span
from airavata_scheduler.client.watch_views import bar

_EVERY_S = 0.1


class ProgressBar:
    """Shows bytes of `total` (0: not known yet). Outside a terminal it shows nothing."""

    def __init__(
        self, output: Output, label: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = 0
        self._output = output
        self._label = label
        self._clock = clock
        self._done = 0
        self._started = clock()
        self._drawn = float("-inf")
        self._is_shown = output.is_live and not output.quiet and not output.as_json

    def advance(self, count: int) -> None:
        """So many bytes more are there."""
        self._done += count
        if self._is_shown and self._clock() - self._drawn >= _EVERY_S:
            self._drawn = self._clock()
            self._output.err.write(f"\r\x1b[2K{self.line()}")
            self._output.err.flush()

    def line(self) -> str:
        """The bar as it is now."""
        seconds = max(self._clock() - self._started, 1e-6)
        rate = self._done / seconds
        share = self._done / self.total if self.total else 0.0
        left = span((self.total - self._done) / rate) if rate and self.total else "?"
        tail = f"{size(self._done)} of {size(self.total)}  {size(rate)}/s  {left} left"
        width = shutil.get_terminal_size().columns - len(self._label) - len(tail) - 4
        return f"{self._label} {bar(share, max(5, min(40, width)))} {tail}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._output.err.write("\r\x1b[2K")
            self._output.err.flush()
