"""`airavata-scheduler both`: the API and the daemon, supervised together."""

from __future__ import annotations

import os
import sys

import click

from airavata_scheduler.commands import server
from airavata_scheduler.commands.processes import ChildFailedError, ChildProcess, Supervisor
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import ConfigurationError


@click.command("both")
def command() -> None:
    """Run the API and the daemon; one that dies is started again."""
    server.check(Configuration.read())
    supervisor = Supervisor(
        children=[
            ChildProcess(name=verb, command=verb_command(verb), environment=dict(os.environ))
            for verb in ("server", "daemon")
        ],
        on_restart=lambda child, why: click.echo(
            f"{child.name} {why}; it is started again.", err=True
        ),
    )
    try:
        supervisor.start()
    except ChildFailedError as error:
        raise ConfigurationError(f"{error}.") from error
    supervisor.run()


def verb_command(verb: str) -> list[str]:
    """The command line of another verb of this program, by the same interpreter."""
    return [sys.executable, "-m", "airavata_scheduler.commands.main", verb]
