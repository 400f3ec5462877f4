"""From a payload's end to its report: outputs, logs, result."""

from __future__ import annotations

import queue
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airavata_scheduler.agent import outcomes
from airavata_scheduler.agent.api import digest_header
from airavata_scheduler.agent.faults import Refused, Unreachable
from airavata_scheduler.agent.lease_book import FINISHING, Held
from airavata_scheduler.agent.log_shipping import final_logs, log_file, needs_shipping
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.outputs import (
    OutputFile,
    OutputProblem,
    OutputRefused,
    find_outputs,
    open_output,
)
from airavata_scheduler.agent.processes import uptime_s
from airavata_scheduler.agent.python_function import RESULT_FILE

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

Json = dict[str, Any]
RESULT_OUTPUT = "__result__"
_UPLOAD_PATIENCE_S = 86400.0
# What a retry does not mend: too large, or a name or content that the server does not take.
_NOT_TAKEN = (413, 422)
_FULL_BYTES = 16 << 20


class Finisher:
    """Takes ended payloads in; those that need the network have their own lane."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.quick: queue.SimpleQueue[tuple[Held, Json | None] | None] = queue.SimpleQueue()
        self.slow: queue.SimpleQueue[tuple[Held, Json] | None] = queue.SimpleQueue()

    def script_ended(self, held: Held, ended: Json | None) -> None:
        """A wrapper wrote `exit.json` (`ended`), or is gone without one (None)."""
        if self._begin(held):
            self.quick.put((held, ended))

    def call_ended(self, held: Held, entry: Json) -> None:
        """A worker's ledger has the call's end."""
        if not self._begin(held):
            return
        runtime = self._runtime
        runtime.book.durations.saw(held.offer["spec"], max(0.0, entry["to"] - entry["from"]))
        item = outcomes.of_call(held, entry)
        logs = _call_logs(entry)
        ended = (entry["to"], time.time() - max(0.0, uptime_s() - entry["to"]))
        if logs is not None and "result_file" not in entry and not held.spec.get("outputs"):
            item["logs"] = logs
            runtime.reports.add(held, item, ended)
        else:
            item["_entry"] = {
                key: entry[key] for key in ("result_file", "result_size") if key in entry
            }
            item["_at"] = list(ended)
            self.slow.put((held, item))

    def call_is_over(self, held: Held, item: Json) -> None:
        """A call ended without an entry of its own: its worker died or was stopped."""
        if self._begin(held):
            self._runtime.reports.add(held, item)

    def release(self) -> None:
        """Wake the threads that wait."""
        self.quick.put(None)
        for _ in range(3):
            self.slow.put(None)

    def _begin(self, held: Held) -> bool:
        self._runtime.history.note("exited", leases=[held.lease])
        self._runtime.book.free_share(held)
        if self._runtime.stopper.is_fenced(held):
            self._runtime.stopper.forget(held)
            return False
        self._runtime.book.set_phase(held, FINISHING)
        return True


class QuickFinishLoop(Loop):
    """Reads exits; what needs no network is reported at once."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "finish")

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.finisher.release()

    def turn(self) -> None:
        """One ended script."""
        got = self.runtime.finisher.quick.get()
        if got is None:
            return
        held, ended = got
        runtime = self.runtime
        if ended is None:
            runtime.log.warning("the wrapper is gone", lease=held.lease)
            text = "The process that watched over the payload is gone; its end is unknown."
            code = "lost_host" if held.reason == "lost_host" else "wrapper_lost"
            if code == "lost_host":
                text = "The machine was restarted while the payload ran."
            runtime.reports.add(held, outcomes.lost(held, code, text))
            return
        item = self._item(held, ended)
        runtime.book.durations.saw(held.offer["spec"], item["duration_s"] or 0.0)
        if (held.spec.get("outputs") and item["outcome"] == "completed") or needs_shipping(
            runtime, held
        ):
            runtime.finisher.slow.put((held, item))
            return
        item["logs"] = final_logs(runtime, held)
        _report(runtime, held, item)

    def _item(self, held: Held, ended: Json) -> Json:
        runtime = self.runtime
        words = ""
        full = False
        if ended.get("exit_code") or ended.get("signal"):
            words = _last_words(runtime, held)
            full = runtime.modes.disk_is_low(look_now=True)
            full = full and runtime.modes.free_disk_mb << 20 < _FULL_BYTES
        item = outcomes.of_exit(held, ended, last_words=words, disk_full=full)
        item["_at"] = [ended["ended_at"], ended["ended_wall"]]
        return item


class SlowFinishLoop(Loop):
    """Uploads artifacts and long logs, then reports."""

    def __init__(self, runtime: Runtime, number: int) -> None:
        super().__init__(runtime, f"upload-{number}")

    def wake(self) -> None:
        """The agent stops."""
        self.runtime.modes.listening.set()

    def turn(self) -> None:
        """One payload's artifacts and logs."""
        got = self.runtime.finisher.slow.get()
        if got is None:
            return
        held, item = got
        runtime = self.runtime
        runtime.modes.listening.wait()
        try:
            item["logs"] = _logs_or_nothing(runtime, held)
            if item["outcome"] == "completed":
                self._publish(held, item)
        except OutputProblem as problem:
            _turn_into_failure(item, "user", problem.code, str(problem))
        except OSError as problem:
            _turn_into_failure(item, "user", OutputProblem.code, str(problem))
        except (Refused, Unreachable) as problem:
            runtime.log.error(f"upload failed: {problem}", lease=held.lease)
            _turn_into_failure(
                item, "infrastructure", "upload_failed", f"The upload failed: {problem}"
            )
        if runtime.stopper.is_fenced(held):
            runtime.stopper.forget(held)
        else:
            _report(runtime, held, item)

    def _publish(self, held: Held, item: Json) -> None:
        folder = self.runtime.places.of(held.lease)
        patterns = held.spec.get("outputs") or {}
        if patterns:
            (folder / "work").mkdir(parents=True, exist_ok=True)
        for file in find_outputs(folder / "work", patterns):
            item["artifacts"].append(self._upload(held, folder / "work", file))
        entry = item.pop("_entry", {})
        if "result_file" in entry:
            file = find_outputs(folder, {RESULT_OUTPUT: RESULT_FILE})[0]
            artifact = self._upload(held, folder, file)
            item["artifacts"].append(artifact)
            item["result"] = {"encoding": entry["result_file"], "artifact": artifact["path"]}

    def _upload(self, held: Held, work: Path, file: OutputFile) -> Json:
        try:
            self._put(held, work, file)
        except Refused as refusal:
            if refusal.status not in _NOT_TAKEN:
                raise
            raise OutputRefused(
                f"The output {file.output} ({file.path}, {file.size} bytes) is not taken: {refusal}"
            ) from refusal
        return {
            "output": file.output,
            "path": file.path,
            "size": file.size,
            "sha256": file.sha256.hex(),
        }

    def _put(self, held: Held, work: Path, file: OutputFile) -> None:
        query = urlencode({"output": file.output, "path": file.path})
        self.runtime.api.call(
            "PUT",
            f"/leases/{held.lease}/artifacts?{query}",
            body=lambda: open_output(work, file.path),
            headers={
                "Content-Length": str(file.size),
                "Content-Digest": digest_header(file.sha256),
            },
            timeout_s=300.0,
            patience_s=_UPLOAD_PATIENCE_S,
        )


def _report(runtime: Runtime, held: Held, item: Json) -> None:
    at = item.pop("_at", None)
    item.pop("_entry", None)
    runtime.reports.add(held, item, (at[0], at[1]) if at else None)


def _turn_into_failure(item: Json, kind: str, code: str, message: str) -> None:
    # Half of the artifacts may be staged already; an attempt that failed publishes none.
    outcome = "failed" if kind == "user" else "lost"
    item.update(
        outcome=outcome, failure=outcomes.failure(kind, code, message), artifacts=[], result=None
    )


def _logs_or_nothing(runtime: Runtime, held: Held) -> Json:
    try:
        return final_logs(runtime, held)
    except Refused as problem:
        # A log that the server does not take must not cost the result.
        runtime.log.warning(f"log refused: {problem}", lease=held.lease)
        return {}


def _last_words(runtime: Runtime, held: Held) -> str:
    source = log_file(runtime, held, "stderr", ended=True)
    total = source.total()
    text = source.read(max(0, total - 1024), 1024).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1][-200:] if lines else ""
    return "".join(c if c.isprintable() else "?" for c in line)


def _call_logs(entry: Json) -> Json | None:
    """The report's logs where they are short; None where a file has to be shipped."""
    found: Json = {}
    for stream, log in entry.get("logs", {}).items():
        if "data" not in log:
            return None
        data = log["data"].encode("latin-1")
        found[stream] = {"size": len(data), "data": b64encode(data).decode()}
    return found
