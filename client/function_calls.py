"""Waiting for calls on the command line, and printing what came of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from airavata_scheduler.client.api_functions import BATCH_LIMIT
from airavata_scheduler.client.command_line import Session
from airavata_scheduler.client.errors import WaitTimeoutError
from airavata_scheduler.client.output import one_line, printable
from airavata_scheduler.client.records import Call, traceback_of
from airavata_scheduler.client.watch import reasons_of

_POLL_S = 20.0


def wait_for(session: Session, call: Call, timeout_s: float) -> Call:
    """The call when it has ended. Raises `WaitTimeoutError` with the reason why it has not."""
    deadline = time.monotonic() + timeout_s
    while not call.has_ended:
        left = deadline - time.monotonic()
        if left <= 0:
            reasons = reasons_of(session.client.tasks.explain(call.id))
            raise WaitTimeoutError(
                f"Call {call.id} is {call.state}.",
                reason=reasons[0] if reasons else None,
                hint=f"airavata function result {call.id} --wait 30s",
            )
        call = session.client.calls.get(call.id, wait_s=min(_POLL_S, left))
    return call


def value_of(session: Session, call: Call) -> Any:
    """A JSON result, fetched where it is large; a pickled one stays sealed on the command line."""
    result: Mapping[str, Any] = call.result or {}
    if result.get("encoding") == "pickle":
        return {"encoding": "pickle", "note": "open it with the SDK"}
    if result.get("artifact"):
        return json.loads(session.client.artifacts.read(str(result["artifact"])))
    return result.get("data")


def print_call(session: Session, call: Call) -> int:
    """Print the result or the failure; the exit status."""
    output = session.output
    failed = call.state != "COMPLETED"
    if session.as_json:
        output.record(call.raw if failed else {**call.raw, "value": value_of(session, call)})
    elif session.quiet:
        output.line(call.id)
    elif failed:
        output.line(failure_line(call))
        traceback = traceback_of(call)
        if traceback:
            output.line(printable(traceback))
    else:
        output.line(_shown(value_of(session, call)))
    return 1 if failed else 0


def failure_line(call: Call) -> str:
    """What became of a call that did not succeed, as one line."""
    failure = call.failure
    message = (failure.message or "") if failure else ""
    code = f" ({failure.code})" if failure and failure.code else ""
    return f"{call.state}: {one_line(message.partition(chr(10))[0]) or 'no reason was given'}{code}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def collect(
    session: Session,
    rows: Sequence[Mapping[str, Any]],
    call_ids: Sequence[str],
    *,
    timeout_s: float | None,
) -> int:
    """Wait for all calls and print them in the order of `rows`; 1 if any failed.

    Raises `WaitTimeoutError` when they have not all ended in time.
    """
    ended: dict[str, Call] = {}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    waiting = list(call_ids)
    while waiting:
        left = _POLL_S if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(
                f"{len(waiting)} of {len(call_ids)} calls have not ended in time.",
                reason="They go on.",
                hint=f"airavata function result {waiting[0]} --wait 1m",
            )
        asked = waiting[:BATCH_LIMIT]
        for call in session.client.calls.results(asked, wait_s=min(_POLL_S, left)):
            ended[call.id] = call
        # Those that were asked for go to the end, so that every call has its turn.
        waiting = [one for one in [*waiting[len(asked) :], *asked] if one not in ended]
        session.output.note(f"{len(ended)} of {len(call_ids)} calls ended.")
    failed = sum(ended[one].state != "COMPLETED" for one in call_ids)
    _print_all(session, rows, [ended[one] for one in call_ids])
    if failed:
        session.output.note(f"{failed} of {len(call_ids)} calls failed.")
    return 1 if failed else 0


def _print_all(session: Session, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> None:
    output = session.output
    if session.as_json:
        items = [
            {
                **call.raw,
                "arguments": dict(row),
                **({"value": value_of(session, call)} if call.state == "COMPLETED" else {}),
            }
            for row, call in zip(rows, calls, strict=True)
        ]
        output.record({"items": items})
        return
    for call in calls:
        if session.quiet:
            output.line(call.id)
        elif call.state == "COMPLETED":
            output.line(_shown(value_of(session, call)))
        else:
            output.line(failure_line(call))
