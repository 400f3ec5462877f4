"""`airavata-scheduler daemon`: the background loops."""

from __future__ import annotations

import click

from airavata_scheduler.commands import start_checks
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.queue import daemon


@click.command("daemon")
def command() -> None:
    """Run RQ workers, the cron table and the reconciler until SIGTERM.

    Several daemons may run beside each other; each piece of work is done once.
    """
    configuration = Configuration.read()
    start_checks.check_storage(configuration)
    start_checks.check_permissions(configuration)
    start_checks.open_database(configuration)
    start_checks.check_secrets(configuration)
    daemon.run(configuration)
