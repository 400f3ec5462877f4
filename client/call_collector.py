"""Collects the results of calls by long polls and settles their futures.

Two threads poll. One may wait long on the server; the other stays free for calls that are younger
than that wait. When a thread has taken calls and no other is idle, it waits briefly only, so that a
new call is never left alone for longer than `_SHORT_WAIT_S`.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeVar

from airavata_scheduler.client import bundles
from airavata_scheduler.client.api import Client
from airavata_scheduler.client.api_functions import BATCH_LIMIT
from airavata_scheduler.client.errors import (
    ClientError,
    ConflictError,
    NotFoundError,
    RemoteError,
    UnreachableError,
)
from airavata_scheduler.client.records import Call, traceback_of

T = TypeVar("T")
_log = logging.getLogger("airavata_scheduler.client")
_THREADS = 2
_LONG_WAIT_S = 20.0
_SHORT_WAIT_S = 0.5
# Results trickle in one by one; a breath between polls lets the next answer carry several.
_BREATH_S = 0.05
_BREATH_ABOVE_CALLS = 20
_WAIT_AFTER_OUTAGE_S = 5.0


class RemoteTraceback(Exception):
    """The cause of an exception that was raised on an agent: the traceback printed there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class CallFuture(concurrent.futures.Future[T]):
    """The future of one call. `call_id` is None until the call is sent.

    It can be cancelled until its result is here, also while it runs: the agent stops it.
    """

    def __init__(self, collector: CallCollector) -> None:
        super().__init__()
        self.call_id: str | None = None
        self._collector = collector

    def cancel(self) -> bool:
        """Stop the call, wherever it is; False once the result is here."""
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        if not was_cancelled:
            self._collector.wake_for_cancel(self)
        return True


class CallCollector:
    """The calls that are under way, id → future, and the threads that ask for their results."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._condition = threading.Condition()
        self._futures: dict[str, CallFuture[Any]] = {}
        self._unasked: deque[str] = deque()  # ids that no thread polls for at the moment
        self._to_cancel: deque[str] = deque()
        self._idle = 0
        self._settling = 0  # futures that left `_futures`, but whose waiters are not told yet
        self._threads: list[threading.Thread] = []

    def add(self, calls: Mapping[str, CallFuture[Any]]) -> None:
        """Collect these calls from now on."""
        with self._condition:
            for call_id, future in calls.items():
                future.call_id = call_id
                self._futures[call_id] = future
                self._unasked.append(call_id)
                if future.cancelled():
                    self._to_cancel.append(call_id)
            if not self._threads:
                self._threads = [
                    threading.Thread(
                        target=self._collect, name=f"airavata-collector-{n}", daemon=True
                    )
                    for n in range(_THREADS)
                ]
                for thread in self._threads:
                    thread.start()
            self._condition.notify_all()

    def futures(self) -> list[CallFuture[Any]]:
        """The futures whose results are still to come."""
        with self._condition:
            return list(self._futures.values())

    def dropped(self, future: CallFuture[Any]) -> bool:
        """Whether `future` was cancelled before its call was sent; its waiters are told then."""
        if not future.cancelled():
            return False
        future.set_running_or_notify_cancel()
        return True

    def wake_for_cancel(self, future: CallFuture[Any]) -> None:
        """Tell the server to stop a call; one that is not sent yet is dropped by the sender."""
        with self._condition:
            if future.call_id is not None and future.call_id in self._futures:
                self._to_cancel.append(future.call_id)
                self._condition.notify_all()

    def join(self) -> None:
        """Wait until every call has ended."""
        with self._condition:
            self._condition.wait_for(lambda: not self._futures and not self._settling)

    def _collect(self) -> None:
        """A thread's loop; daemon threads end with the process."""
        while True:
            cancelled, asked, wait_s = self._take()
            if cancelled is not None:
                self._cancel(cancelled)
                continue
            ended = self._poll(asked, wait_s)
            remaining = len(asked) - len(ended)
            with self._condition:
                done = {call.id for call in ended}
                self._unasked.extend(
                    call_id for call_id in asked if call_id not in done and call_id in self._futures
                )
                self._condition.notify_all()
            for call in ended:
                try:
                    self._settle(call)
                except Exception as error:  # noqa: BLE001 - the loop's edge: the waiter must hear
                    self._end(call.id, error)
            if ended and remaining > _BREATH_ABOVE_CALLS:
                time.sleep(_BREATH_S)

    def _take(self) -> tuple[str | None, list[str], float]:
        """The next thing to do: a call to cancel, or calls to ask for and how long to wait."""
        with self._condition:
            self._idle += 1
            self._condition.wait_for(lambda: self._to_cancel or self._unasked)
            self._idle -= 1
            if self._to_cancel:
                return self._to_cancel.popleft(), [], 0.0
            asked = [self._unasked.popleft() for _ in range(min(BATCH_LIMIT, len(self._unasked)))]
            alone = self._idle == 0 or bool(self._unasked)
            return None, asked, _SHORT_WAIT_S if alone else _LONG_WAIT_S

    def _poll(self, call_ids: list[str], wait_s: float) -> list[Call]:
        """Those that ended. An outage is waited out: the calls run on without us."""
        try:
            return self._client.calls.results(call_ids, wait_s=wait_s)
        except UnreachableError as error:
            _log.warning("Waiting for the server: %s", error.message)
            time.sleep(_WAIT_AFTER_OUTAGE_S)
            return []
        except Exception as error:  # noqa: BLE001 - the loop's edge: the waiters must hear of it
            for call_id in call_ids:
                self._end(call_id, error)
            return []

    def _cancel(self, call_id: str) -> None:
        """Ask for the stop; the waiters of the future need not wait for it."""
        try:
            self._client.calls.cancel(call_id)
        except (ConflictError, NotFoundError):
            pass  # it ended first
        except ClientError as error:
            _log.warning("Call %s could not be cancelled: %s", call_id, error.message)
        self._end(call_id, None)

    def _settle(self, call: Call) -> None:
        """Give the result, the exception or the cancellation to the call's future."""
        if call.state == "COMPLETED":
            try:
                self._end(call.id, None, value=bundles.unpack(call.result, self._fetch))
            except ClientError as error:
                self._end(call.id, error)
        elif call.state == "CANCELLED":
            with self._condition:
                future = self._futures.get(call.id)
            if future is not None:
                super(CallFuture, future).cancel()
            self._end(call.id, None)
        else:
            self._end(call.id, self._exception(call))

    def _end(self, call_id: str, error: BaseException | None, *, value: Any = None) -> None:
        """Settle the future; only the first of several ends counts."""
        with self._condition:
            future = self._futures.pop(call_id, None)
            if future is None:
                return
            self._settling += 1
        try:
            if future.set_running_or_notify_cancel():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)
        finally:
            with self._condition:
                self._settling -= 1
                self._condition.notify_all()

    def _exception(self, call: Call) -> BaseException:
        """What the function raised, with the agent's traceback as its cause."""
        failure = call.failure
        message = (failure.message if failure else None) or f"Call {call.id} ended {call.state}."
        text = traceback_of(call)
        if text is not None:
            message = message.partition("\n")[0]
        if call.result and call.result.get("encoding") == "pickle":
            try:
                raised = bundles.unpack(call.result, self._fetch)
            except ClientError:
                raised = None
            if isinstance(raised, BaseException):
                raised.__cause__ = RemoteTraceback(text) if text else None
                return raised
        return RemoteError(message, remote_traceback=text, code=failure.code if failure else None)

    def _fetch(self, artifact_id: str) -> bytes:
        return self._client.artifacts.read(artifact_id)
