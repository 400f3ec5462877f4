"""`airavata experiment` cancel, pause, resume, submit, retry and resubmit."""

from __future__ import annotations

import json
from typing import Any

import click

from airavata_scheduler.client.command_line import Command, Session, pass_session
from airavata_scheduler.client.output import counted


def _acted(session: Session, name: str, action: str, sentence: str, **body: Any) -> None:
    """Apply `action` and say so; `{}` in the sentence is the experiment's name."""
    changed = session.client.experiments.act(name, action, **body)
    session.output.done(sentence.format(changed.name), changed.raw)


@click.command("cancel", cls=Command)
@click.argument("name")
@pass_session
def cancel(session: Session, name: str) -> None:
    """Stop an experiment for good; results that are there stay."""
    _acted(session, name, "cancel", "{} is being stopped; its results so far stay.")


@click.command("pause", cls=Command)
@click.argument("name")
@pass_session
def pause(session: Session, name: str) -> None:
    """Start nothing new of an experiment; what runs goes on."""
    _acted(session, name, "pause", "{0} is paused. Go on with: airavata experiment resume {0}")


@click.command("resume", cls=Command)
@click.argument("name")
@pass_session
def resume(session: Session, name: str) -> None:
    """Let a paused experiment go on."""
    _acted(session, name, "resume", "{} goes on.")


@click.command("submit", cls=Command)
@click.argument("name")
@pass_session
def submit(session: Session, name: str) -> None:
    """Let an experiment run that was only stored."""
    _acted(session, name, "submit", "{0} is submitted. Watch it: airavata experiment watch {0}")


@click.command("retry", cls=Command)
@click.argument("name")
@click.option(
    "--failed-only/--all",
    default=True,
    show_default=True,
    help="Only what failed, or also what was cancelled or skipped.",
)
@pass_session
def retry(session: Session, name: str, failed_only: bool) -> None:
    """Run the failed tasks of an experiment again, in the same experiment."""
    sentence = "{0} runs again. Watch it: airavata experiment watch {0}"
    _acted(session, name, "retry", sentence, failed_only=failed_only)


def _parameters(pairs: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value that is JSON (a number, a list) is taken as such.

    Raises `click.BadParameter`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not found or not name:
            raise click.BadParameter(f"“{pair}” is not NAME=VALUE.")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


@click.command("resubmit", cls=Command)
@click.argument("name")
@click.option("--name", "new_name", help="The new experiment's name.")
@click.option("--failed-only", is_flag=True, help="Only the instances that failed.")
@click.option("--successful-only", is_flag=True, help="Only the instances that succeeded.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="Another value.")
@pass_session
def resubmit(
    session: Session,
    /,
    *,
    name: str,
    new_name: str | None,
    failed_only: bool,
    successful_only: bool,
    pairs: tuple[str, ...],
) -> None:
    """Make a new experiment of an old one, and run it."""
    if failed_only and successful_only:
        raise click.UsageError("--failed-only and --successful-only exclude each other.")
    wanted = "only_failed" if failed_only else "only_successful" if successful_only else "all"
    made = session.client.experiments.act(
        name,
        "derive",
        name=new_name,
        parameters=_parameters(pairs) or None,
        filter=wanted,
        submit=True,
    )
    session.output.done(
        f"Experiment {made.name} is submitted: {counted(made.total, 'task')}.\n"
        f"Watch it: airavata experiment watch {made.id}",
        made.raw,
    )
