"""`airavata-scheduler authz`: SpiceDB, which decides who may do what."""

from __future__ import annotations

from pathlib import Path

import click

from airavata_scheduler.backends import projection, relay, spicedb, spicedb_schema
from airavata_scheduler.backends.spicedb import Fenced
from airavata_scheduler.commands import start_checks, validation
from airavata_scheduler.functions import audit
from airavata_scheduler.models import database
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import Conflict


@click.group("authz")
def command() -> None:
    """SpiceDB: validate and upload the schema, fill and compare the relationships."""


@command.command()
def upload() -> None:
    """Write the schema of this version to SPICEDB_ENDPOINT; relationships stay."""
    configuration = Configuration.read()
    start_checks.check_permissions(configuration)
    spicedb.configure(configuration)
    spicedb.spicedb().write_schema(spicedb_schema.text())
    click.echo(f"The schema is at {configuration.spicedb_endpoint}.")


@command.command()
@click.option("--take-over", is_flag=True, help="Also if another deployment filled it.")
def rebuild(take_over: bool) -> None:
    """Fill SpiceDB from the database. Nobody may do anything until it is done."""
    _connect()

    def tell(count: int) -> None:
        click.echo(f"\r{count} relationships", nl=False, err=True)

    with database.connected():
        try:
            count = projection.rebuild(take_over=take_over, progress=tell)
        except Fenced:
            raise Conflict(
                "Another rebuild began meanwhile and took over.",
                hint="Wait for it; see: airavata-scheduler doctor",
            ) from None
        with database.transaction():
            audit.append("rebuild", "system", "", relationships=count, take_over=take_over)
    click.echo(f"\rSpiceDB holds {count} relationships.")


@command.command()
def compare() -> None:
    """Compare SpiceDB with the database and mend what differs; exit 1 if anything did."""
    _connect()
    with database.connected():
        repaired = projection.reconcile()
    if repaired.schema:
        click.echo("SpiceDB had another schema than ours: it was filled again.")
    click.echo(f"Missing and written: {repaired.missing}. Too many and deleted: {repaired.extra}.")
    if repaired.missing or repaired.extra or repaired.schema:
        raise SystemExit(1)


@command.command("relay")
def relay_now() -> None:
    """Relay what waits in the outbox; the daemon does this by itself."""
    _connect()
    with database.connected():
        click.echo(f"Relayed: {relay.relay()} changes.")


@command.command()
@click.argument("file", type=click.Path(path_type=Path), default=validation.DEFAULT)
def validate(file: Path) -> None:
    """Say whether the schema means what FILE says (db/spicedb_validation.yaml); needs no setting.

    By `zed validate` where zed is on the PATH, else by a private SpiceDB.
    """
    status = validation.by_zed(file)
    if status is not None:
        raise SystemExit(status)
    count, faults = validation.by_spicedb(file)
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        raise SystemExit(1)
    click.echo(f"All {count} statements of {file} hold.")


def _connect() -> None:
    configuration = Configuration.read()
    start_checks.check_permissions(configuration)
    start_checks.open_database(configuration)
    spicedb.configure(configuration)
