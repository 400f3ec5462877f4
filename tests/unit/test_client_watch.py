"""Watching: events, broken streams, and the reason when nothing moves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from airavata_scheduler.client.api import Client
from airavata_scheduler.client.event_stream import Event, events_of
from airavata_scheduler.client.output import Output
from airavata_scheduler.client.records import Progress
from airavata_scheduler.client.watch import _Stillness, follow, reasons_of
from airavata_scheduler.client.watch_views import LineView, LiveView, bar, block, headline


def progress(state: str, **counts: int) -> dict[str, Any]:
    """Progress as JSON, of one task of the file."""
    total = sum(counts.values())
    node = {"name": "simulate", "state": "OPEN", "total": total, "counts": counts}
    return {
        "state": state,
        "total": total,
        "counts": counts,
        "nodes": [node],
        "rate_per_s": 2.0,
        "eta_s": 5.0,
    }


def event(kind: str, data: object, identity: str = "") -> str:
    """One event as the server writes it."""
    name = f"id: {identity}\n" if identity else ""
    return f"event: {kind}\n{name}data: {json.dumps(data)}\n\n"


def test_lines_become_events() -> None:
    """Names, ids, several data lines; comments and an unfinished event are dropped."""
    lines = [": hello", "", "event: a", "id: 7", "data: 1", "data: 2", "", "data: x", "", "data: y"]

    assert list(events_of(lines)) == [
        Event(kind="a", data="1\n2", id="7"),
        Event(kind="message", data="x", id="7"),
    ]


class Twin:
    """A server whose event stream breaks as often as `streams` has parts."""

    def __init__(self, *streams: str) -> None:
        self.streams = list(streams)
        self.last_ids: list[str | None] = []

    def client(self, folder: Path) -> Client:
        """A client of this server."""
        return Client(
            "http://twin", environ={"HOME": str(folder)}, http=httpx.MockTransport(self.answer)
        )

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Events part by part; the experiment runs for ever by the other answers."""
        if request.url.path.endswith("/events"):
            self.last_ids.append(request.headers.get("Last-Event-ID"))
            return httpx.Response(200, text=self.streams.pop(0))
        if request.url.path.endswith("/progress"):
            return httpx.Response(200, json=progress("RUNNING", running=3))
        return httpx.Response(200, json={"id": "e1", "name": "e", "state": "RUNNING"})


def test_a_broken_stream_is_taken_up_where_it_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection names the last event; the end is seen."""
    monkeypatch.setattr("airavata_scheduler.client.watch._RECONNECT_S", 0.0)
    done = progress("COMPLETED", completed=3)
    twin = Twin(
        event("progress", progress("RUNNING", running=2, completed=1), "ev1"),
        event("progress", done, "ev2") + event("end", done),
    )
    shown: list[Progress] = []

    ended = follow(
        twin.client(tmp_path).experiments, "e", timeout_s=20, show=lambda p, _: shown.append(p)
    )

    assert ended
    assert shown[-1].state == "COMPLETED"
    assert twin.last_ids == [None, "ev1"]


def clock_of(times: list[float]) -> Callable[[], float]:
    """A clock that reads the last of `times`."""
    return lambda: times[-1]


class Explaining:
    """Experiments that say why."""

    def __init__(self) -> None:
        self.asked = 0

    def explain(self, _name: str) -> dict[str, Any]:
        """The server's reasons."""
        self.asked += 1
        reason = {"code": "no_agent", "detail": "No agent is online on box.", "hint": "start one"}
        return {"state": "RUNNING", "reasons": [], "nodes": [{"name": "s", "reasons": [reason]}]}


def test_stillness_asks_for_the_reason_after_five_seconds() -> None:
    """Not before, not while something runs, and it is taken back when something moves."""
    times = [0.0]
    experiments = Explaining()
    still = _Stillness(experiments, "e", clock_of(times))  # type: ignore[arg-type]
    waiting = Progress.from_json(progress("RUNNING", queued=3))
    still.saw(waiting)
    times.append(4.9)
    still.saw(waiting)
    early = still.why
    times.append(5.1)
    still.saw(waiting)
    late = still.why
    still.saw(Progress.from_json(progress("RUNNING", queued=2, running=1)))
    times.append(60.0)
    still.saw(Progress.from_json(progress("RUNNING", queued=2, running=1)))

    assert early is None
    assert late == "s: No agent is online on box. → start one"
    assert (still.why, experiments.asked) == (None, 1)


def test_line_view_says_what_changed_and_no_more() -> None:
    """A line for a new state or after five seconds; the same reason only once."""
    times = [0.0]
    err = io.StringIO()
    view = LineView(output=Output(out=err, err=err), name="e", clock=clock_of(times))

    for at, state, done, why in (
        (0.0, "RUNNING", 0, None),
        (1.0, "RUNNING", 1, None),
        (6.0, "RUNNING", 2, "no agent"),
        (6.5, "RUNNING", 2, "no agent"),
        (7.0, "COMPLETED", 3, None),
    ):
        times.append(at)
        view(Progress.from_json(progress(state, completed=done, queued=3 - done)), why)

    lines = err.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "e: RUNNING", "e: RUNNING", "  no agent", "e: COMPLETED",
    ]  # fmt: skip
    assert "2 of 3 ended" in lines[1]
    assert "2/s, 5.0 s left" in lines[1]


def test_live_view_draws_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second drawing goes up as many lines as the first one had."""
    monkeypatch.setenv("COLUMNS", "70")
    err = io.StringIO()
    view = LiveView(output=Output(out=err, err=err), name="e")

    view(Progress.from_json(progress("RUNNING", running=3)), "why\nand why")
    view(Progress.from_json(progress("RUNNING", running=3)), None)

    assert "\x1b[4A" in err.getvalue()


@pytest.mark.parametrize("columns", [30, 50, 120])
def test_the_block_is_no_wider_than_the_terminal(columns: int) -> None:
    """A line that wrapped would spoil the drawing."""
    lines = block("e", Progress.from_json(progress("RUNNING", running=3)), "x" * 200, columns)

    assert all(len(line) <= columns for line in lines)
    assert len(lines) == 3


def test_bars_and_headlines() -> None:
    """Shares beyond 0 and 1 are clipped; an ended experiment has no rate."""
    assert (bar(-1, 4), bar(0.5, 4), bar(2, 4)) == ("░░░░", "██░░", "████")
    assert headline("e", Progress.from_json(progress("FAILED", completed=1, failed=2))) == (
        "e: FAILED, 3 of 3 ended, 2 failed"
    )
    assert reasons_of(None) == []


def test_iteration_of_events_ends_with_the_stream() -> None:
    """An empty stream has no events."""
    empty: Iterator[str] = iter(())

    assert list(events_of(empty)) == []
