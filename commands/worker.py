"""`airavata-scheduler worker`: the agent, started with the deployment guide's variables."""

from __future__ import annotations

import os
import sys

import click


@click.command(
    "worker",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run an agent for COMPUTE_ID of the scheduler at API_URL.

    The agent is a program of its own that needs only the standard library; this replaces the
    process by it, so that nothing of the server stays in memory beside the tasks.
    """
    os.execv(  # noqa: S606 - no shell is wanted
        sys.executable, [sys.executable, "-m", "airavata_scheduler.agent", "run", *arguments]
    )
