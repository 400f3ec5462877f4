"""`airavata resource bind-credential` and its kin: the same deeds, from the resource's side."""

from __future__ import annotations

import click

from airavata_scheduler.client.api_credentials import ResourceKind
from airavata_scheduler.client.cli_credential import credential
from airavata_scheduler.client.cli_resource import resource
from airavata_scheduler.client.command_line import Session, pass_session
from airavata_scheduler.client.errors import NotFoundError

resource.add_command(credential)


def _kind_of(session: Session, name: str) -> ResourceKind:
    """Whether a compute or a storage resource has this name. Raises `NotFoundError`."""
    try:
        session.client.compute.get(name)
    except NotFoundError:
        session.client.storage.get(name)
        return "storage"
    return "compute"


@resource.command("bind-credential")
@click.argument("resource_name", metavar="RESOURCE")
@click.argument("name", metavar="CREDENTIAL")
@pass_session
def bind(session: Session, resource_name: str, name: str) -> None:
    """Let a credential open a resource, for those who may use both."""
    made = session.client.credentials.bind(name, _kind_of(session, resource_name), resource_name)
    session.output.done(f"{name} opens {made.name}.", made.raw)


@resource.command("unbind-credential")
@click.argument("resource_name", metavar="RESOURCE")
@click.argument("name", metavar="CREDENTIAL")
@pass_session
def unbind(session: Session, resource_name: str, name: str) -> None:
    """Let a credential open a resource no longer."""
    session.client.credentials.unbind(name, _kind_of(session, resource_name), resource_name)
    session.output.done(
        f"{name} does not open {resource_name} any more.", {"name": name, "unbound": True}
    )


@resource.command("test-credential")
@click.argument("resource_name", metavar="RESOURCE")
@click.argument("name", metavar="CREDENTIAL")
@pass_session
def test(session: Session, resource_name: str, name: str) -> int:
    """Try a credential at the resource's endpoint; exit 1 if it does not open the door."""
    kind = _kind_of(session, resource_name)
    tested = session.client.credentials.test(name, {kind: resource_name})
    session.output.done(tested.detail, tested.raw)
    return 0 if tested.ok else 1
