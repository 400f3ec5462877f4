"""`airavata experiment`: looking at experiments. Running and steering have their own modules."""

from __future__ import annotations

import click

from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.output import Column, column, span
from airavata_scheduler.client.watch import reasons_of

experiment = group(
    "experiment",
    "Run experiments, watch them, get their files.",
    {
        "run": ("cli_experiment_run:run", "Run the experiment of a YAML or JSON FILE."),
        "watch": ("cli_experiment_run:watch", "Watch an experiment until it ends."),
        "download": ("cli_experiment_files:download", "Get its output files, checked."),
        "outputs": ("cli_experiment_files:outputs", "List its output files."),
        "logs": ("cli_task:experiment_logs", "Print what its tasks wrote."),
        "cancel": ("cli_experiment_control:cancel", "Stop it for good."),
        "pause": ("cli_experiment_control:pause", "Start nothing new; what runs goes on."),
        "resume": ("cli_experiment_control:resume", "Go on after a pause."),
        "retry": ("cli_experiment_control:retry", "Run its failed tasks again, in it."),
        "resubmit": ("cli_experiment_control:resubmit", "Make a new experiment of it."),
        "submit": ("cli_experiment_control:submit", "Let one run that is only stored."),
    },
)


def _done(row: object) -> str | None:
    """How many of how many instances ended."""
    counts = row.get("counts") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(counts, dict):
        return None
    ended = sum(counts.get(name, 0) for name in ("completed", "failed", "cancelled", "skipped"))
    return f"{ended}/{row.get('total')}"


_COLUMNS = (
    column("NAME"),
    column("STATE"),
    Column(title="ENDED", read=_done, is_number=True),
    Column(
        title="FAILED", read=lambda row: (row.get("counts") or {}).get("failed"), is_number=True
    ),
    column("PROJECT"),
    column("CREATED", "created_at"),
    column("ID"),
)
_TASK_COLUMNS = (
    column("TASK", "name"),
    column("STATE"),
    column("ATTEMPT", is_number=True),
    column("AGENT"),
    column("REASON"),
    column("PARAMETERS"),
    column("ID"),
)
_NONE = "None. Run one: airavata experiment run FILE --watch"


@experiment.command("list")
@click.option("--state", help="Only those in this state, such as RUNNING.")
@click.option("--owner", help="Only those of this user.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most.")
@pass_session
def list_(session: Session, state: str | None, owner: str | None, limit: int) -> None:
    """List experiments, newest first."""
    found = session.client.experiments.list(
        limit=limit,
        project=session.flags.get("project"),
        state=state.upper() if state else None,
        owner=owner,
    )
    session.output.rows((entry.raw for entry in found), _COLUMNS, empty=_NONE)


@experiment.command("search")
@click.argument("text")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most.")
@pass_session
def search(session: Session, text: str, limit: int) -> None:
    """List experiments whose name has TEXT in it."""
    found = session.client.experiments.list(
        limit=limit, project=session.flags.get("project"), q=text
    )
    session.output.rows((entry.raw for entry in found), _COLUMNS, empty=f"None with “{text}”.")


@experiment.command("status")
@click.argument("name")
@pass_session
def status(session: Session, name: str) -> None:
    """Say how far an experiment is."""
    found = session.client.experiments.get(name)
    progress = session.client.experiments.progress(found.id)
    if session.as_json or session.quiet:
        shown = {key: value for key, value in found.raw.items() if key != "document"}
        session.output.record({**shown, "progress": progress.raw})
        return
    output = session.output
    output.line(f"{found.name}  {found.state}  {progress.ended} of {progress.total} ended")
    if progress.rate_per_s:
        left = f", {span(progress.eta_s)} left" if progress.eta_s is not None else ""
        output.line(f"{progress.rate_per_s:.3g} tasks/s{left}")
    if found.error:
        output.line(f"Error: {found.error}")
    names = (
        *("completed", "failed", "skipped", "cancelled"),
        *("finalizing", "running", "leased", "queued", "pending", "waiting"),
    )
    rows = [{"task": node.name, "total": node.total, **node.counts} for node in progress.nodes]
    shown_names = [name for name in names if any(row.get(name) for row in rows)]
    columns = [column("TASK"), column("TOTAL", is_number=True)]
    columns += [column(name.upper(), name, is_number=True) for name in shown_names]
    output.rows(rows, columns, empty="No tasks.")


@experiment.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show everything that is stored of an experiment."""
    raw = session.client.experiments.get(name).raw
    if session.as_json:
        session.output.record(raw)
        return
    session.output.record({key: value for key, value in raw.items() if key != "document"})


@experiment.command("tasks")
@click.argument("name")
@click.option("--state", help="Only those in this state, such as failed.")
@click.option("--task", "node", help="Only the instances of this task of the file.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="At most.")
@pass_session
def tasks(session: Session, name: str, state: str | None, node: str | None, limit: int) -> None:
    """List the tasks of an experiment that exist so far."""
    wanted = state.upper() if state else None
    found = list(session.client.experiments.tasks(name, limit=limit + 1, state=wanted, node=node))
    shown = (entry.raw for entry in found[:limit])
    session.output.rows(shown, _TASK_COLUMNS, empty="No tasks.")
    if len(found) > limit:
        session.output.note(f"There are more than these {limit}; see more with --limit N.")


@experiment.command("task")
@click.argument("name")
@click.option("--logs", is_flag=True, help="Print what it wrote as well.")
@pass_session
def task(session: Session, name: str, logs: bool) -> None:
    """Show one task: its id, or EXPERIMENT/TASK[INDEX]."""
    from airavata_scheduler.client.cli_task import (  # noqa: PLC0415 - only this command needs it
        print_log,
        show_task,
    )

    found = session.client.tasks.find(name)
    show_task(session, found)
    if logs:
        for stream in ("stdout", "stderr"):
            session.output.note(f"--- {stream}")
            print_log(session, found, stream, follow=False)


@experiment.command("explain")
@click.argument("name")
@pass_session
def explain(session: Session, name: str) -> None:
    """Say why an experiment is where it is."""
    answer = session.client.experiments.explain(name)
    if session.as_json:
        session.output.record(answer)
        return
    for line in reasons_of(answer) or [f"It is {answer.get('state')}; nothing is in its way."]:
        session.output.line(line)


@experiment.command("timeline")
@click.argument("name")
@pass_session
def timeline(session: Session, name: str) -> None:
    """List what happened to an experiment, oldest first."""
    found = (entry.raw for entry in session.client.experiments.timeline(name))
    columns = (column("AT"), column("WHAT", "kind"), column("DETAIL"))
    session.output.rows(found, columns, empty="Nothing yet.")


@experiment.command("lineage")
@click.argument("name")
@pass_session
def lineage(session: Session, name: str) -> None:
    """List what an experiment was derived from, newest first."""
    found = session.client.experiments.get(name)
    rows = [found.raw]
    while found.raw.get("derived_from") and len(rows) < 100:
        found = session.client.experiments.get(str(found.raw["derived_from"]))
        rows.append(found.raw)
    shown = [{key: value for key, value in row.items() if key != "document"} for row in rows]
    session.output.rows(shown, _COLUMNS, empty="Nothing.")
