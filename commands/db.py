"""`airavata-scheduler db`: the database's schema and its epoch."""

from __future__ import annotations

import click

from airavata_scheduler.models import database, epoch, migrations, schema
from airavata_scheduler.models.configuration import Configuration


@click.group("db")
def command() -> None:
    """The database: upgrade, check, schema, epoch."""


@command.command()
def upgrade() -> None:
    """Bring the schema of DATABASE_URL to this version; safe to run twice and from two places."""
    database.connect(Configuration.read().database_url)
    applied = migrations.upgrade()
    if not applied:
        click.echo("The database is up to date.")
    for name in applied:
        click.echo(f"Applied: {name}")


@command.command()
def check() -> None:
    """Say whether the schema of DATABASE_URL is the one that this version needs."""
    database.connect(Configuration.read().database_url)
    migrations.check()
    click.echo("The database is up to date.")


@command.command("schema")
@click.option(
    "--dialect",
    type=click.Choice(["postgresql", "mysql", "sqlite"]),
    default="postgresql",
    show_default=True,
    help="The kind of database.",
)
def print_schema(dialect: database.Dialect) -> None:
    """Print the whole schema as SQL (db/schema.sql and db/schema.mysql.sql are made so)."""
    click.echo(schema.ddl(dialect), nl=False)


@command.command("new-epoch")
@click.argument("reason")
def new_epoch(reason: str) -> None:
    """Tell agents that the database was restored or lost commits, and why.

    Agents then send their full lists and report again what this database may have forgotten. A
    changed PostgreSQL timeline or MySQL server is noticed without this command.
    """
    configuration = Configuration.read()
    database.connect(configuration.database_url)
    migrations.check()
    epoch.bump(reason)
    click.echo(f"The epoch is now {epoch.current()}.")
