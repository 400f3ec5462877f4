"""Watching an experiment: its progress as it comes, and why nothing moves.

A thread reads the server's events and reconnects when the stream breaks; the loop shows what came,
and asks the server for the reason when nothing moves. ^C ends the watching, never the work.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airavata_scheduler.client.errors import (
    ClientError,
    NotAllowedError,
    NotFoundError,
    UnreachableError,
)
from airavata_scheduler.client.records import TERMINAL_STATES, Progress

if TYPE_CHECKING:
    from airavata_scheduler.client.api_work import Experiments

# Still for this long with nothing running, and the user wants to know why.
STILL_AFTER_S = 5.0
_TICK_S = 0.5
_RECONNECT_S = 2.0
_LONGEST_RECONNECT_S = 15.0
# A restart or an upgrade of the server takes minutes; a watch outlives it, but not for ever.
_SERVER_AWAY_S = 600.0
# A stream that a proxy holds back shows nothing; this often the plain request is asked as well.
_ASK_EVERY_S = 10.0
Show = Callable[[Progress, str | None], None]


def follow(
    experiments: Experiments,
    name: str,
    *,
    timeout_s: float | None = None,
    show: Show | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Watch until the experiment ends (True) or `timeout_s` seconds are over (False).

    `show(progress, why)` is called on every tick; `why` says why nothing moves, None while it does.
    Raises the `ClientError` of a request that is refused (the experiment was deleted, the login
    ended), and `UnreachableError` when the server is away for longer than ten minutes.
    """
    experiment_id = experiments.get(name).id
    reader = _EventReader(experiments, experiment_id)
    still = _Stillness(experiments, experiment_id, clock)
    progress = experiments.progress(experiment_id)
    heard_at = asked_at = started_at = clock()
    reader.start()
    try:
        while True:
            still.saw(progress)
            if show is not None:
                show(progress, still.why)
            if progress.state in TERMINAL_STATES:
                return True
            if timeout_s is not None and clock() - started_at >= timeout_s:
                return False
            newer = reader.next(_TICK_S)
            if newer is None and (reader.has_ended or clock() - asked_at > _ASK_EVERY_S):
                newer = _asked(
                    experiments, experiment_id, may_fail=clock() - heard_at < _SERVER_AWAY_S
                )
                asked_at = clock()
                if newer is None or newer.state not in TERMINAL_STATES:
                    reader.restart_if_ended()
            if newer is not None:
                progress, heard_at = newer, clock()
    finally:
        reader.stop()


def _asked(experiments: Experiments, experiment_id: str, *, may_fail: bool) -> Progress | None:
    """The progress by a plain request; None while the server is away and `may_fail`."""
    try:
        return experiments.progress(experiment_id)
    except UnreachableError:
        if not may_fail:
            raise
        return None


class _EventReader:
    """Reads the event stream in a thread of its own."""

    def __init__(self, experiments: Experiments, experiment_id: str) -> None:
        self._experiments = experiments
        self._id = experiment_id
        self._progress: queue.Queue[Progress] = queue.Queue()
        self._stopped = threading.Event()
        self._last_event_id: str | None = None
        self.has_ended = False

    def start(self) -> None:
        """Begin to read."""
        self.has_ended = False
        threading.Thread(target=self._read, name="airavata-events", daemon=True).start()

    def restart_if_ended(self) -> None:
        """Read on after an `end` that another user's retry took back."""
        if self.has_ended:
            self.start()

    def stop(self) -> None:
        """Read no more. The thread ends with its next event, or with the process."""
        self._stopped.set()

    def next(self, timeout_s: float) -> Progress | None:
        """The newest progress that came within `timeout_s`, None without any."""
        try:
            newest = self._progress.get(timeout=timeout_s)
            while not self._progress.empty():
                newest = self._progress.get_nowait()
        except queue.Empty:
            return None
        return newest

    def _read(self) -> None:
        """Until the end of the experiment: connect, read, wait a little longer each time."""
        wait_s = _RECONNECT_S
        while not self._stopped.is_set():
            try:
                with self._experiments.events(self._id, self._last_event_id) as events:
                    for event in events:
                        wait_s = _RECONNECT_S
                        self._last_event_id = event.id or self._last_event_id
                        if self._stopped.is_set() or self._took(event.kind, event.json()):
                            self.has_ended = True
                            return
            except ClientError as error:
                if isinstance(error, NotFoundError | NotAllowedError):
                    self.has_ended = True
                    return
            self._stopped.wait(wait_s)
            wait_s = min(_LONGEST_RECONNECT_S, wait_s * 2)

    def _took(self, kind: str, data: Any) -> bool:
        """Keep a `progress`; True for the last event of the experiment."""
        if isinstance(data, dict) and "counts" in data and "state" in data:
            self._progress.put(Progress.from_json(data))
        return kind == "end"


class _Stillness:
    """Notices that nothing moves, and asks why."""

    def __init__(
        self, experiments: Experiments, experiment_id: str, clock: Callable[[], float]
    ) -> None:
        self._experiments = experiments
        self._id = experiment_id
        self._clock = clock
        self._counts: Any = None
        self._since = clock()
        self.why: str | None = None

    def saw(self, progress: Progress) -> None:
        """Compare with what was seen before."""
        now = self._clock()
        is_running = any(progress.counts.get(name) for name in ("running", "finalizing"))
        if dict(progress.counts) != self._counts or is_running:
            self._counts = dict(progress.counts)
            self._since = now
            self.why = None
        elif now - self._since >= STILL_AFTER_S and progress.state not in TERMINAL_STATES:
            self._since = now
            self.why = self._reason(progress)

    def _reason(self, progress: Progress) -> str | None:
        if progress.state == "PAUSED":
            return "It is paused; go on with: airavata experiment resume"
        try:
            return reason_of(self._experiments.explain(self._id))
        except ClientError as error:
            return str(error)


def reason_of(explanation: Any) -> str | None:
    """Why an experiment is where it is: the two first reasons, a line each; None without any.

    What holds for the whole comes first, then the first task of the file that waits for something.
    """
    return "\n".join(reasons_of(explanation)[:2]) or None


def reasons_of(explanation: Any) -> list[str]:
    """Every reason of an explanation, one line each with its next step."""
    if not isinstance(explanation, Mapping):
        return []
    lines = [_reason_line(entry) for entry in explanation.get("reasons") or []]
    for node in explanation.get("nodes") or []:
        lines += [f"{node['name']}: {_reason_line(entry)}" for entry in node.get("reasons") or []]
    return lines


def _reason_line(entry: Mapping[str, Any]) -> str:
    hint = entry.get("hint")
    return f"{entry.get('detail')} → {hint}" if hint else str(entry.get("detail"))
