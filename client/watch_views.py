"""How a watched experiment is shown: a live block on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from airavata_scheduler.client.output import Output, display_width, one_line, span
from airavata_scheduler.client.records import TERMINAL_STATES, Progress

_LINE_EVERY_S = 5.0


@dataclass(kw_only=True)
class LineView:
    """For logs and pipes: a line when something changed, at most one every five seconds."""

    output: Output
    name: str
    clock: Callable[[], float] = time.monotonic
    _shown: str = ""
    _why: str | None = None
    _at: float = field(default=float("-inf"))

    def __call__(self, progress: Progress, why: str | None) -> None:
        """Show, where there is something new to say."""
        line = headline(self.name, progress)
        is_new_state = progress.state not in self._shown
        if line != self._shown and (is_new_state or self.clock() - self._at >= _LINE_EVERY_S):
            self._shown, self._at = line, self.clock()
            self.output.note(line)
        if why and why != self._why:
            for line in why.splitlines():
                self.output.note(f"  {line}")
        self._why = why

    def close(self) -> None:
        """Nothing to put back."""


@dataclass(kw_only=True)
class LiveView:
    """For a terminal: a block of lines that is drawn again in place."""

    output: Output
    name: str
    _drawn: int = 0

    def __call__(self, progress: Progress, why: str | None) -> None:
        """Draw the block over the last one."""
        columns = shutil.get_terminal_size().columns
        lines = block(self.name, progress, why, columns)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        erased = "".join(f"\x1b[2K{line}\n" for line in lines)
        # Lines that were there before and are not now are cleared too.
        self.output.err.write(f"{up}\r{erased}\x1b[J")
        self.output.err.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        """Leave the last block standing."""
        self._drawn = 0


def view_for(output: Output, name: str) -> LineView | LiveView:
    """The view that fits standard error."""
    return (
        LiveView(output=output, name=name)
        if output.is_live and not output.as_json and not output.quiet
        else LineView(output=output, name=name)
    )


def headline(name: str, progress: Progress) -> str:
    """One line: name, state, how many of how many, rate and time left."""
    counts = progress.counts
    parts = [f"{name}: {progress.state}", f"{progress.ended} of {progress.total} ended"]
    for key in ("running", "leased", "queued", "failed", "skipped", "cancelled"):
        if counts.get(key):
            parts.append(f"{counts[key]} {key}")
    if progress.rate_per_s and progress.state not in TERMINAL_STATES:
        parts.append(f"{progress.rate_per_s:.3g}/s")
        if progress.eta_s is not None:
            parts.append(f"{span(progress.eta_s)} left")
    return ", ".join(parts)


def block(name: str, progress: Progress, why: str | None, columns: int) -> list[str]:
    """The live view's lines, each no wider than `columns`."""
    lines = [_cut(headline(name, progress), columns)]
    width = max((display_width(node.name) for node in progress.nodes), default=0)
    for node in progress.nodes:
        ended = sum(
            node.counts.get(key, 0) for key in ("completed", "failed", "cancelled", "skipped")
        )
        share = ended / node.total if node.total else 0.0
        tail = f"{ended}/{node.total}" + "".join(
            f"  {node.counts[key]} {key}"
            for key in ("running", "failed", "skipped")
            if node.counts.get(key)
        )
        bar_width = max(10, min(40, columns - width - display_width(tail) - 6))
        lines.append(_cut(f"  {node.name:<{width}} {bar(share, bar_width)} {tail}", columns))
    lines += [_cut(f"  {one_line(line)}", columns) for line in (why or "").splitlines()]
    return lines


def bar(share: float, width: int) -> str:
    """A bar of `width` signs, `share` (0 to 1) of it filled."""
    filled = int(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)


def _cut(text: str, columns: int) -> str:
    return text if display_width(text) < columns else text[: max(1, columns - 2)] + "…"
