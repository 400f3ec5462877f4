"""`airavata-scheduler admin`: accounts, from the machine that holds the database."""

from __future__ import annotations

import click

from airavata_scheduler.commands import start_checks
from airavata_scheduler.functions.bootstrap import new_bootstrap_link, new_password_link
from airavata_scheduler.models.configuration import Configuration


@click.group("admin")
def command() -> None:
    """Accounts: the first administrator, password links."""


@command.command()
def bootstrap() -> None:
    """Print a one-time link that makes the first administrator.

    There is no default account. Refused once an administrator exists.
    """
    configuration = Configuration.read()
    start_checks.open_database(configuration)
    link = new_bootstrap_link(configuration)
    click.echo(link)
    click.echo("Open it in a browser, or type:  airavata auth bootstrap '<the link>'", err=True)


@command.command("password-link")
@click.argument("username")
def password_link(username: str) -> None:
    """Print a one-time link by which USERNAME sets a new password."""
    configuration = Configuration.read()
    start_checks.open_database(configuration)
    click.echo(new_password_link(configuration, username))
