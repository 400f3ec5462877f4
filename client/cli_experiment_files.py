"""`airavata experiment` outputs and download."""

from __future__ import annotations

import re
from pathlib import Path

import click

from airavata_scheduler.client.command_line import Command, Session, pass_session
from airavata_scheduler.client.downloads import Download, Downloaded, Selection
from airavata_scheduler.client.errors import NotFoundError
from airavata_scheduler.client.output import Column, column, size
from airavata_scheduler.client.progress_bar import ProgressBar

_TASK = click.option("--task", help="Only this task of the file, such as simulate or simulate[17].")
_GLOB = click.option("--file", "glob", metavar="GLOB", help="Only these files, such as '*.csv'.")


def _selection(task: str | None, glob: str | None) -> Selection:
    """The options as a selection; `simulate[17]` names one instance."""
    match = re.fullmatch(r"(.+)\[([0-9]{1,18})\]", task or "")
    if match:
        return Selection(node=match[1], index=int(match[2]), glob=glob)
    return Selection(node=task, glob=glob)


@click.command("outputs", cls=Command)
@click.argument("name")
@_TASK
@_GLOB
@pass_session
def outputs(session: Session, name: str, task: str | None, glob: str | None) -> None:
    """List the output files of an experiment."""
    selection = _selection(task, glob)
    found = session.client.experiments.artifacts(name, node=selection.node, index=selection.index)
    columns = (
        Column(title="TASK", read=lambda row: f"{row.get('node')}[{row.get('index')}]"),
        column("PATH"),
        Column(title="SIZE", read=lambda row: size(row.get("size")), is_number=True),
        column("SHA-256", "sha256"),
        column("ID"),
    )
    rows = (artifact.raw for artifact in found if selection.matches(artifact))
    session.output.rows(rows, columns, empty="No output files yet.")


@click.command("download", cls=Command)
@click.argument("name")
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    default=".",
    help="The folder to write to; the current one if it is not named.",
)
@_TASK
@_GLOB
@click.option("--extract", is_flag=True, help="Unpack as DIR/<task>/<instance>/<path>.")
@pass_session
def download(
    session: Session,
    /,
    *,
    name: str,
    folder: Path,
    task: str | None,
    glob: str | None,
    extract: bool,
) -> None:
    """Get the output files of an experiment, each checked against its SHA-256.

    A second run fetches only what is missing.
    """
    client = session.client
    found = client.experiments.get(name)
    selection = _selection(task, glob)
    bar = ProgressBar(session.output, found.name)
    work = Download(client.experiments, client.artifacts, found.id, selection, advance=bar.advance)
    if not work.wanted:
        raise NotFoundError(
            f"{found.name} has no such output files.",
            reason=f"It is {found.state}; files are there once a task has completed.",
            hint=f"airavata experiment outputs {found.id}",
        )
    bar.total = work.size
    with bar:
        done = (
            work.extract_to(folder)
            if extract
            else work.archive_to(folder / f"{_file_name(found.name)}.tar.gz")
        )
    _say(session, done)


def _file_name(name: str) -> str:
    """The experiment's name without what a file name may not hold."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "experiment"


def _say(session: Session, done: Downloaded) -> None:
    item = {
        "path": str(done.path),
        "files": done.files,
        "fetched": done.fetched,
        "bytes_fetched": done.bytes_fetched,
    }
    if session.quiet and not session.as_json:
        session.output.line(str(done.path))
        return
    kept = done.files - done.fetched
    already = f"; {kept} were there already" if kept else ""
    session.output.done(
        f"{done.files} files are in {done.path}, every SHA-256 checked "
        f"({size(done.bytes_fetched)} fetched{already}).",
        item,
    )
