"""From how a payload ended to the item that is reported. Pure functions: data in, data out."""

from __future__ import annotations

import signal
import time
from typing import Any

from airavata_scheduler.agent.lease_book import Held
from airavata_scheduler.agent.processes import uptime_s

Json = dict[str, Any]


def item(held: Held, outcome: str, **parts: Any) -> Json:
    """A report item with every key of the protocol; `parts` fill in what is known."""
    found: Json = {
        "lease": held.lease,
        "outcome": outcome,
        "failure": None,
        "exit_code": None,
        "signal": None,
        "duration_s": None,
        "age_s": 0.0,
        "usage": {"cpu_s": 0.0, "max_rss_kb": 0},
        "result": None,
        "logs": {},
        "artifacts": [],
    }
    found.update(parts)
    return found


def failure(kind: str, code: str, message: str, **more: Any) -> Json:
    """A failure as users see it: kind `user`, `infrastructure`, `limit` or `policy`."""
    return {"kind": kind, "code": code, "message": message, **more}


def refused(held: Held, code: str, message: str) -> Json:
    """The agent may not, or cannot, run it."""
    return item(held, "refused", failure=failure("policy", code, message))


def lost(held: Held, code: str, message: str) -> Json:
    """The attempt's end is unknown, or our side's fault: the infrastructure budget pays."""
    return item(held, "lost", failure=failure("infrastructure", code, message))


def cancelled(held: Held, **parts: Any) -> Json:
    """Stopped because a user cancelled it."""
    text = failure("user", "cancelled", "Cancelled by a user.")
    return item(held, "cancelled", failure=text, **parts)


def of_exit(held: Held, ended: Json, *, last_words: str, disk_full: bool) -> Json:
    """The item for a script's exit.json, before its outputs are looked at."""
    parts = measured(ended)
    reason = ended.get("reason")
    if reason == "cancelled":
        return cancelled(held, **parts)
    if reason == "start_failed":
        text = f"The payload could not be started: {ended.get('message')}."
        return item(held, "lost", failure=failure("infrastructure", "wrapper_lost", text), **parts)
    if reason in ("timeout", "out_of_memory"):
        return item(
            held, "failed", failure=failure("limit", reason, _limit_text(held, ended)), **parts
        )
    if ended.get("signal") is None and ended.get("exit_code") == 0:
        return item(held, "completed", **parts)
    if disk_full:
        text = "The disk of the compute resource was full when the script failed."
        return item(held, "lost", failure=failure("infrastructure", "disk_full", text), **parts)
    return item(held, "failed", failure=_own_failure(ended, last_words), **parts)


def measured(ended: Json) -> Json:
    """Exit status, duration and usage of an exit.json."""
    return {
        "exit_code": ended.get("exit_code"),
        "signal": ended.get("signal"),
        "duration_s": round(max(0.0, ended["ended_at"] - ended["started_at"]), 6),
        "usage": {"cpu_s": ended.get("cpu_s", 0.0), "max_rss_kb": ended.get("max_rss_kb", 0)},
    }


def age_s(ended_at: float, ended_wall: float, same_boot: bool) -> float:
    """Seconds since the payload ended; across a reboot only the wall clock can say."""
    age = uptime_s() - ended_at if same_boot else time.time() - ended_wall
    return round(max(0.0, age), 3)


def _limit_text(held: Held, ended: Json) -> str:
    ran = ended["ended_at"] - ended["started_at"]
    if ended["reason"] == "timeout":
        return f"It ran for {ran:.1f} s, which is its time limit, and was stopped."
    return f"It used more than its {held.spec.get('ram_mb')} MB of memory and was stopped."


def _own_failure(ended: Json, last_words: str) -> Json:
    number = ended.get("signal")
    tail = f" Its last words: {last_words}" if last_words else ""
    if number is not None:
        return failure("user", "signal", f"The script was ended by {signal_name(number)}.{tail}")
    return failure(
        "user", "exit_nonzero", f"The script ended with exit code {ended['exit_code']}.{tail}"
    )


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def of_call(held: Held, entry: Json) -> Json:
    """The item for an "E" of a worker's ledger, its result file and long logs left out."""
    parts: Json = {
        "duration_s": round(max(0.0, entry["to"] - entry["from"]), 6),
        "usage": {"cpu_s": entry["cpu_s"], "max_rss_kb": entry["rss_kb"]},
        "result": entry.get("result"),
    }
    problem = entry.get("failure")
    if problem is None:
        return item(held, "completed", **parts)
    problem = dict(problem)
    exception = problem.pop("exception", None)
    if exception is not None:
        parts["result"] = {"encoding": "pickle", "data": exception}
    if problem["code"] == "python_mismatch":
        return item(held, "refused", failure=problem, **parts)
    return item(held, "failed", failure=problem, **parts)


def of_dead_worker(held: Held, status: int | None, told: str | None) -> Json:
    """The item for a call that was running when its worker ended.

    `status` is the wait status where known; `told` is why the agent or the worker itself ended it.
    """
    if told == "cancelled":
        return cancelled(held)
    if told == "timeout":
        limit = held.offer.get("timeout_s")
        text = f"The call ran into its time limit of {limit} s and was stopped."
        return item(held, "failed", failure=failure("limit", "timeout", text))
    if told == "out_of_memory":
        text = (
            f"The call used more than its {held.spec.get('ram_mb')} MB of memory and was stopped."
        )
        return item(held, "failed", failure=failure("limit", "out_of_memory", text))
    if status is not None and status & 0x7F not in (0, signal.SIGKILL, signal.SIGTERM):
        number = status & 0x7F
        text = f"The function's process was ended by {signal_name(number)}."
        return item(held, "failed", failure=failure("user", "signal", text), signal=number)
    if status is not None and status & 0x7F == 0:
        code = status >> 8
        text = f"The function ended its process with exit code {code}."
        return item(held, "failed", failure=failure("user", "exit_nonzero", text), exit_code=code)
    return lost(held, "wrapper_lost", "The process that ran the call is gone.")
