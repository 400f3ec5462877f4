"""What commands print: tables for people, JSON for programs, ids for pipes.

Results go to standard output; progress, hints and questions to standard error, so that a pipe
never sees them. Colours and live lines appear on a terminal only, and `NO_COLOR` is obeyed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from airavata_scheduler.client.errors import ClientError

# Text from files, logs and other users may hold escape sequences that would drive the terminal.
# What drives a terminal, turns the direction of a text or breaks its line; halves of pairs.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOURS = {
    "COMPLETED": "32",
    "active": "32",
    "online": "32",
    "FAILED": "31",
    "revoked": "31",
    "offline": "31",
    "unreachable": "31",
    "CANCELLED": "33",
    "SKIPPED": "33",
    "PAUSED": "33",
    "draining": "33",
    "pending": "33",
    "RUNNING": "36",
    "LEASED": "36",
    "FINALIZING": "36",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A table's column: `read` takes a row's JSON and gives the cell."""

    title: str
    read: Callable[[Mapping[str, Any]], Any]
    is_number: bool = False


def column(title: str, key: str | None = None, *, is_number: bool = False) -> Column:
    """The column of one key of the row."""
    wanted = key or title.lower()
    return Column(title=title, read=lambda row: row.get(wanted), is_number=is_number)


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where and how to print."""

    as_json: bool = False
    quiet: bool = False
    out: TextIO
    err: TextIO

    @classmethod
    def standard(cls, *, as_json: bool = False, quiet: bool = False) -> Output:
        """The process's own streams."""
        return cls(as_json=as_json, quiet=quiet, out=sys.stdout, err=sys.stderr)

    @property
    def is_live(self) -> bool:
        """Whether a person watches standard error, so that lines may be redrawn."""
        return self.err.isatty() and os.environ.get("TERM") != "dumb"

    def rows(
        self, items: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, empty: str
    ) -> None:
        """A list: a table, `{"items": […]}` with `--json`, ids with `--quiet`."""
        found = list(items)
        if self.as_json:
            self._json({"items": found})
        elif self.quiet:
            for item in found:
                self.line(str(item.get("id") or item.get("name") or ""))
        elif not found:
            self.note(empty)
        else:
            width = shutil.get_terminal_size().columns if self.out.isatty() else 0
            for line in table(found, columns, width=width, coloured=is_coloured(self.out)):
                self.line(line, clean=False)

    def record(self, item: Mapping[str, Any], columns: Sequence[Column] | None = None) -> None:
        """One object: `key  value` lines, its JSON with `--json`, its id with `--quiet`."""
        if self.as_json:
            self._json(item)
        elif self.quiet:
            self.line(str(item.get("id") or item.get("name") or ""))
        else:
            shown = (
                [(entry.title.lower(), entry.read(item)) for entry in columns]
                if columns
                else [(name.replace("_", " "), value) for name, value in item.items()]
            )
            pairs = [(name, cell(value)) for name, value in shown if value not in (None, "", [])]
            width = max((len(name) for name, _ in pairs), default=0)
            coloured = is_coloured(self.out)
            for name, value in pairs:
                self.line(f"{name:<{width}}  {paint(value, coloured)}", clean=False)

    def done(self, sentence: str, item: Mapping[str, Any]) -> None:
        """What an action did: a sentence; the object with `--json`; its id with `--quiet`."""
        if self.as_json or self.quiet:
            self.record(item)
        else:
            self.line(sentence)

    def line(self, text: str, *, clean: bool = True) -> None:
        """A line of the result."""
        print(printable(text) if clean else text, file=self.out, flush=True)

    def note(self, text: str) -> None:
        """A line for the person, not for the pipe; nothing with `--json` or `--quiet`."""
        if not self.as_json and not self.quiet:
            print(printable(text), file=self.err, flush=True)

    def error(self, error: ClientError) -> None:
        """At most three lines: what failed, why, what to type next."""
        if self.as_json:
            print(json.dumps({"error": error.to_json()}), file=self.err, flush=True)
            return
        coloured = is_coloured(self.err)
        start = "\x1b[31merror:\x1b[0m" if coloured else "error:"
        print(f"{start} {one_line(error.message)}", file=self.err)
        for text in (error.reason, error.hint):
            if text:
                print(f"  {one_line(text)}", file=self.err)
        self.err.flush()

    def _json(self, value: Any) -> None:
        indent = 2 if self.out.isatty() else None
        print(json.dumps(value, indent=indent, ensure_ascii=False), file=self.out, flush=True)


def is_coloured(stream: TextIO) -> bool:
    """Whether colours may be written to `stream`."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """The text without control characters, tabs and newlines kept."""
    return _CONTROL.sub("�", text)


def one_line(text: str) -> str:
    """The text as one printable line."""
    return printable(" ".join(text.split()))


def counted(number: int | None, noun: str) -> str:
    """`1 task`, `2 tasks`; nothing counts as none."""
    number = number or 0
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def paint(text: str, coloured: bool) -> str:
    """A state's word in its colour, other text as it is."""
    code = _COLOURS.get(text.strip()) if coloured else None
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def cell(value: Any) -> str:
    """A value as one line of text."""
    if value is None:
        text = "-"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, str):
        text = local_time_or_text(value)
    elif isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, Mapping):
        text = ", ".join(f"{name}={cell(part)}" for name, part in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(cell(part) for part in value)
    else:
        text = str(value)
    return one_line(text)


_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")


def local_time_or_text(text: str) -> str:
    """An RFC 3339 time in the user's own time zone; any other text as it is."""
    if not _TIME.fullmatch(text):
        return text
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(text: str | None, *, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was, such as "3 min ago"; "never" for None."""
    if text is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds()
    return "now" if seconds < 2 else f"{span(seconds)} ago"


def span(seconds: float | None) -> str:
    """A duration for people: "45 s", "3 min", "2 h 05 min", "4 d"; "?" for None."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d"


def size(count: float | None) -> str:
    """Bytes for people: "512 B", "1.4 MB"; "?" for None."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, width: int, coloured: bool
) -> list[str]:
    """The lines of a table. With `width` > 0 the widest columns are cut so that it fits."""
    cells = [[cell(entry.read(row)) for entry in columns] for row in rows]
    titles = [entry.title.upper() for entry in columns]
    widths = [
        max([display_width(title), *(display_width(row[n]) for row in cells)])
        for n, title in enumerate(titles)
    ]
    if width:
        widths = fitted(widths, [display_width(title) for title in titles], width)
    lines = [_joined(titles, widths, columns, coloured=False)]
    lines += [_joined(row, widths, columns, coloured=coloured) for row in cells]
    return lines


def fitted(widths: Sequence[int], least: Sequence[int], total: int) -> list[int]:
    """`widths` made smaller, the widest first, until the row fits; never below `least`."""
    result = list(widths)
    room = total - 2 * (len(result) - 1)
    while sum(result) > room:
        able = [n for n, wide in enumerate(result) if wide > max(least[n], 4)]
        if not able:
            break
        result[max(able, key=lambda n: result[n])] -= 1
    return result


def display_width(text: str) -> int:
    """The columns that the text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def _joined(
    cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column], *, coloured: bool
) -> str:
    parts = []
    for text, wide, entry in zip(cells, widths, columns, strict=True):
        shown = _cut(text, wide)
        gap = " " * (wide - display_width(shown))
        painted = paint(shown, coloured)
        parts.append(gap + painted if entry.is_number else painted + gap)
    return "  ".join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    if display_width(text) <= width:
        return text
    kept = ""
    for sign in text:
        if display_width(kept + sign) > width - 1:
            break
        kept += sign
    return kept + "…"
