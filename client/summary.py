"""The end of a watch: what came out, the first failures, what to type next."""

from __future__ import annotations

from airavata_scheduler.client.api import Client
from airavata_scheduler.client.errors import ClientError
from airavata_scheduler.client.output import Output, one_line, printable
from airavata_scheduler.client.records import Experiment, Progress, Task
from airavata_scheduler.client.watch import reasons_of

FAILURES_SHOWN = 3
_TAIL_LINES = 5
_TAIL_BYTES = 2000
_NAMES = ("completed", "failed", "skipped", "cancelled")


def print_summary(client: Client, output: Output, experiment_id: str) -> int:
    """Print it; the exit status: 0 only if the experiment is COMPLETED."""
    found = client.experiments.get(experiment_id)
    progress = client.experiments.progress(found.id)
    if output.as_json or output.quiet:
        shown = {key: value for key, value in found.raw.items() if key != "document"}
        output.record({**shown, "progress": progress.raw})
    else:
        _print_for_people(client, output, found, progress)
    return 0 if found.state == "COMPLETED" else 1


def _print_for_people(
    client: Client, output: Output, found: Experiment, progress: Progress
) -> None:
    counts = ", ".join(
        f"{progress.counts[name]} {name}" for name in _NAMES if progress.counts.get(name)
    )
    output.line(f"{found.name}: {found.state} ({counts or 'no tasks'})")
    failed = progress.counts.get("failed", 0)
    if found.error:
        output.line(f"  {found.error}")
    if failed:
        for task in client.experiments.failed_tasks(found.id, limit=FAILURES_SHOWN):
            print_failure(client, output, task)
        if failed > FAILURES_SHOWN:
            output.line(f"  … and {failed - FAILURES_SHOWN} more")
    elif found.state == "FAILED" and not found.error:
        for line in reasons_of(client.experiments.explain(found.id))[:FAILURES_SHOWN]:
            output.line(f"  {line}")
    _print_next(output, found, progress)


def _print_next(output: Output, found: Experiment, progress: Progress) -> None:
    """The commands that fit what happened."""
    output.line("Next:")
    if progress.counts.get("completed"):
        output.line(f"  airavata experiment download {found.id} --output results --extract")
    if progress.counts.get("failed"):
        output.line(f"  airavata experiment tasks {found.id} --state failed")
        output.line(f"  airavata experiment logs {found.id} --failed")
        output.line(f"  airavata experiment retry {found.id} --failed-only")
    elif found.state == "CANCELLED":
        output.line(f"  airavata experiment retry {found.id} --all")
    elif not progress.counts.get("completed"):
        output.line(f"  airavata experiment explain {found.id}")


def print_failure(client: Client, output: Output, task: Task) -> None:
    """One failed task: why, and the end of what it wrote."""
    failure = task.failure
    why = (failure.message if failure else None) or task.reason or "no reason was given"
    code = f" ({failure.code})" if failure and failure.code else ""
    output.line(f"  {task.name}: {one_line(why)}{code}")
    for line in log_tail(client, task):
        output.line(f"    | {line}")


def log_tail(client: Client, task: Task) -> list[str]:
    """The last lines of its error stream, else of its output; [] without any."""
    if task.id is None:
        return []
    for stream in ("stderr", "stdout"):
        try:
            content, _, _ = client.tasks.log(task.id, stream, offset=-_TAIL_BYTES)
        except ClientError:
            continue
        lines = _lines(content)
        if lines:
            return lines[-_TAIL_LINES:]
    return []


def _lines(content: bytes) -> list[str]:
    text = printable(content.decode("utf-8", "replace"))
    return [line for line in text.splitlines() if line.strip()]
