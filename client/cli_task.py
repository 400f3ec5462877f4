"""`airavata task`, and the logs of an experiment."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from airavata_scheduler.client.command_line import Command, Session, group, pass_session
from airavata_scheduler.client.errors import ClientError, NotFoundError, UnreachableError
from airavata_scheduler.client.output import column, printable
from airavata_scheduler.client.records import Task
from airavata_scheduler.client.summary import print_failure
from airavata_scheduler.client.watch import reasons_of

task = group("task", "Look at one task: by id, or as EXPERIMENT/TASK[INDEX].")
_STREAM = click.option(
    "--stream", type=click.Choice(("stdout", "stderr")), help="Only this one of the two."
)
_FOLLOW = click.option("--follow", "-f", is_flag=True, help="Go on as it is written.")
_READ_BYTES = 1 << 20
_RECONNECT_S = 2.0


def show_task(session: Session, found: Task) -> None:
    """Everything about one task; the failure as a sentence of its own."""
    if session.as_json or session.quiet:
        session.output.record(found.raw)
        return
    hidden = ("failure", "outputs", "last_failure", "log_tail")
    session.output.record({key: value for key, value in found.raw.items() if key not in hidden})
    if found.raw.get("outputs"):
        session.output.line("outputs:")
        for output in found.raw["outputs"]:
            session.output.line(f"  {output.get('path')}  {output.get('size')} bytes")
    if found.failure is not None:
        session.output.line("failure:")
        print_failure(session.client, session.output, found)


@task.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show one task."""
    show_task(session, session.client.tasks.find(name))


@task.command("explain")
@click.argument("name")
@pass_session
def explain(session: Session, name: str) -> None:
    """Say why a task is where it is."""
    found = session.client.tasks.find(name)
    if found.id is None:
        answer: dict[str, Any] = {"state": found.state, "reasons": [{"detail": found.reason}]}
    else:
        answer = session.client.tasks.explain(found.id)
    if session.as_json:
        session.output.record(answer)
        return
    for line in reasons_of(answer) or [f"It is {answer.get('state')}."]:
        session.output.line(line)


@task.command("attempts")
@click.argument("name")
@pass_session
def attempts(session: Session, name: str) -> None:
    """List every try to run a task, oldest first."""
    found = session.client.tasks.attempts(_id_of(session.client.tasks.find(name)))
    columns = (
        column("NUMBER", is_number=True),
        column("OUTCOME"),
        column("AGENT"),
        column("SECONDS", "duration_s", is_number=True),
        column("EXIT", "exit_code", is_number=True),
        column("FAILURE"),
    )
    session.output.rows((entry.raw for entry in found), columns, empty="It has not run yet.")


@task.command("cancel")
@click.argument("name")
@pass_session
def cancel(session: Session, name: str) -> None:
    """Stop one task; a result that was accepted first stays."""
    changed = session.client.tasks.cancel(_id_of(session.client.tasks.find(name)))
    session.output.done(f"{changed.name} is {changed.state}.", changed.raw)


@task.command("logs")
@click.argument("name")
@_STREAM
@_FOLLOW
@click.option("--attempt", type=click.IntRange(1), help="The try; the newest if not named.")
@pass_session
def logs(
    session: Session, /, *, name: str, stream: str | None, follow: bool, attempt: int | None
) -> None:
    """Print what a task wrote."""
    found = session.client.tasks.find(name)
    streams = (stream,) if stream else ("stdout",) if follow else ("stdout", "stderr")
    for one in streams:
        if len(streams) > 1:
            session.output.note(f"--- {one}")
        print_log(session, found, one, follow=follow, attempt=attempt)


def _id_of(found: Task) -> str:
    """The id. Raises `NotFoundError` for an instance that a sweep has not reached yet."""
    if found.id is None:
        raise NotFoundError(
            f"{found.name} has not been queued yet.",
            reason="A sweep's instances come into being window by window.",
            hint=f"airavata experiment status {found.experiment_id}",
        )
    return found.id


def print_log(
    session: Session, found: Task, stream: str, *, follow: bool, attempt: int | None = None
) -> None:
    """Print one stream of a task, as it is or as it grows."""
    task_id = _id_of(found)
    if follow and not found.state_is_final:
        _follow(session, task_id, stream)
        return
    offset = 0
    while True:
        content, whole, _ = session.client.tasks.log(
            task_id, stream, attempt=attempt, offset=offset, limit=_READ_BYTES
        )
        _write(content)
        offset += len(content)
        if not content or offset >= whole:
            return


def _write(content: bytes) -> None:
    """Log bytes: as they are into a file or pipe, without control characters on a terminal."""
    if not content:
        return
    if sys.stdout.isatty():
        sys.stdout.write(printable(content.decode("utf-8", "replace")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    sys.stdout.flush()


def _follow(session: Session, task_id: str, stream: str) -> None:
    """Print what is written until the task ends; a stream that breaks is taken up again."""
    last: str | None = None
    while True:
        try:
            with session.client.tasks.log_events(task_id, stream, last) as events:
                for event in events:
                    last = event.id or last
                    data = event.json()
                    if event.kind == "end":
                        return
                    if event.kind == "attempt" and isinstance(data, dict):
                        session.output.note(f"--- attempt {data.get('attempt')}")
                    elif event.kind == "log" and isinstance(data, dict):
                        _write(str(data.get("text", "")).encode())
        except UnreachableError:
            session.output.note("--- the server is away; trying again")
        time.sleep(_RECONNECT_S)


@click.command("logs", cls=Command)
@click.argument("name")
@click.option("--task", "wanted", help="This task, such as simulate[17]; else the first ones.")
@click.option("--failed", is_flag=True, help="Only of tasks that failed.")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Tasks.")
@_STREAM
@_FOLLOW
@pass_session
def experiment_logs(
    session: Session,
    /,
    *,
    name: str,
    wanted: str | None,
    failed: bool,
    limit: int,
    stream: str | None,
    follow: bool,
) -> None:
    """Print what the tasks of an experiment wrote."""
    client = session.client
    if wanted is not None:
        found = [client.tasks.find(wanted if "/" in wanted else f"{name}/{wanted}")]
    elif failed:
        found = list(client.experiments.failed_tasks(name, limit=limit))
    else:
        found = list(client.experiments.tasks(name, limit=limit))
    if not found:
        session.output.note("No such tasks.")
    for entry in found:
        for one in (stream,) if stream else ("stdout",) if follow else ("stdout", "stderr"):
            session.output.note(f"--- {entry.name} {one}")
            try:
                print_log(session, entry, one, follow=follow)
            except ClientError as error:
                if len(found) == 1:
                    raise
                session.output.note(str(error))
