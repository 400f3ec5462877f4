"""`airavata experiment run` and `watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from airavata_scheduler.client.command_line import (
    Command,
    Session,
    duration_option,
    pass_session,
)
from airavata_scheduler.client.errors import WaitTimeoutError
from airavata_scheduler.client.experiment_sources import read_source
from airavata_scheduler.client.output import cell, column, counted, size
from airavata_scheduler.client.summary import print_summary
from airavata_scheduler.client.watch import follow
from airavata_scheduler.client.watch_views import view_for


@click.command("run", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Another name than the file's.")
@click.option("--compute", multiple=True, help="Where it may run; more than once for several.")
@click.option("--storage", help="Where its output files are kept.")
@click.option("--dry-run", is_flag=True, help="Only say what would run.")
@click.option("--watch", "is_watched", is_flag=True, help="Watch it until it ends.")
@duration_option("--timeout", text="Watch no longer than this, such as 30m; the work goes on.")
@pass_session
def run(
    session: Session,
    /,
    *,
    file: Path,
    name: str | None,
    compute: tuple[str, ...],
    storage: str | None,
    dry_run: bool,
    is_watched: bool,
    timeout: float | None,
) -> int:
    """Run the experiment of a YAML or JSON FILE.

    Local files that it names are sent along.
    """
    client = session.client
    source = read_source(file)
    options: dict[str, Any] = {
        "project": client.project,
        "name": name,
        "compute": compute,
        "storage": storage,
    }
    if dry_run:
        _print_preview(session, client.experiments.preview(source, **options))
        return 0
    made = client.experiments.create_from(source, submit=True, **options)
    for warning in made.raw.get("warnings") or []:
        session.output.note(f"note: {warning}")
    if is_watched:
        session.output.note(f"Experiment {made.name} ({made.id}): {counted(made.total, 'task')}.")
        return _watched(session, made.id, made.name, timeout)
    session.output.done(
        f"Experiment {made.name} is submitted: {counted(made.total, 'task')}.\n"
        f"Watch it: airavata experiment watch {made.id}",
        made.raw,
    )
    return 0


@click.command("watch", cls=Command)
@click.argument("name")
@duration_option("--timeout", text="Watch no longer than this, such as 30m; the work goes on.")
@pass_session
def watch(session: Session, name: str, timeout: float | None) -> int:
    """Watch an experiment until it ends; exit status 1 if it failed."""
    found = session.client.experiments.get(name)
    return _watched(session, found.id, found.name, timeout)


def _watched(session: Session, experiment_id: str, name: str, timeout_s: float | None) -> int:
    """Show it until it ends; 0 for success, 1 for failure, 130 after ^C."""
    view = view_for(session.output, name)
    try:
        ended = follow(session.client.experiments, experiment_id, timeout_s=timeout_s, show=view)
    except KeyboardInterrupt:
        click.echo(
            f"\nStopped watching; {name} goes on.\n"
            f"  Watch again: airavata experiment watch {experiment_id}\n"
            f"  Stop it:     airavata experiment cancel {experiment_id}",
            err=True,
        )
        return 130
    finally:
        view.close()
    if not ended:
        raise WaitTimeoutError(
            f"{name} did not end within the given time.",
            reason="It goes on.",
            hint=f"Watch again: airavata experiment watch {experiment_id}",
        )
    return print_summary(session.client, session.output, experiment_id)


def _print_preview(session: Session, preview: dict[str, Any]) -> None:
    """A table of the tasks of the file, their first parameter sets, and where they would run."""
    output = session.output
    if session.as_json or session.quiet:
        output.record(preview)
        return
    tasks = counted(preview.get("tasks"), "task")
    output.line(f"{preview.get('name')}: {tasks}; nothing was started.")
    columns = (
        column("TASK", "name"),
        column("TASKS", is_number=True),
        column("AFTER", "depends_on"),
        column("FOREACH"),
        column("CPU", is_number=True),
        column("RAM MB", "ram_mb", is_number=True),
        column("GPU", is_number=True),
        column("CORE-HOURS", "core_hours", is_number=True),
    )
    nodes = preview.get("nodes") or []
    output.rows(nodes, columns, empty="No tasks.")
    for node in nodes:
        output.line(f"\n{node['name']}, the first of {node['tasks']}:")
        for index, values in enumerate(node.get("first") or []):
            output.line(f"  [{index}] {cell(values) or 'no parameters'}")
    output.line("")
    hours = preview.get("core_hours")
    output.line(
        f"core-hours, at most: {'not known: a task says no time' if hours is None else hours}"
    )
    output.line(f"to stage: {size(preview.get('bytes_to_stage') or 0)}")
    for site in (preview.get("placement") or {}).get("resources") or []:
        _print_site(session, site)
    for warning in preview.get("warnings") or []:
        output.line(f"note: {warning}")


def _print_site(session: Session, site: dict[str, Any]) -> None:
    if site.get("eligible"):
        session.output.line(f"may run on {site['name']}; agents online: {site.get('agents')}")
        return
    for reason in site.get("reasons") or []:
        session.output.line(f"cannot run on {site['name']}: {cell(reason.get('detail'))}")
