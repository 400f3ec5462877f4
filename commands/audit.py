"""`airavata-scheduler audit`: the chain of the audit log."""

from __future__ import annotations

import click

from airavata_scheduler.commands import start_checks
from airavata_scheduler.models import audit_chain, database
from airavata_scheduler.models.audit_chain import Head
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import BadInput


@click.group("audit")
def command() -> None:
    """The audit log: verify its chain."""


@command.command()
@click.option("--head", "witness", metavar="SEQ:HASH", help="A head that was noted elsewhere.")
def verify(witness: str | None) -> None:
    """Walk the whole chain in the database; exit 1 with the first fault."""
    start_checks.open_database(Configuration.read())
    try:
        noted = Head.read(witness) if witness else None
    except ValueError:
        raise BadInput(
            "--head must be SEQ:HASH, as `audit: head` in the log and `audit verify` have it."
        ) from None
    with database.connected():
        found = audit_chain.verify(noted)
    if found.fault is not None:
        click.echo(f"{found.fault} {found.entries} entries before it are good.", err=True)
        raise SystemExit(1)
    click.echo(f"{found.entries} entries are good. The head: {found.head}")
