"""`airavata group`."""

from __future__ import annotations

import click

from airavata_scheduler.client.cli_share import subject, subject_arguments
from airavata_scheduler.client.collection import without_none
from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.errors import BadInputError, ConflictError
from airavata_scheduler.client.output import column

groups = group("group", "Groups of users and of other groups.")
_COLUMNS = (
    column("NAME"),
    column("ROLE"),
    column("DESCRIPTION"),
    column("CREATED", "created_at"),
    column("ID"),
)
_MEMBER_COLUMNS = (
    column("KIND"),
    column("NAME"),
    column("FULL NAME", "full_name"),
    column("ROLE"),
)
_ROLE = click.Choice(("owner", "manager", "member"))


@groups.command("create")
@click.argument("name")
@click.option("--description", help="Who is in it.")
@pass_session
def create(session: Session, name: str, description: str | None) -> None:
    """Make a group; you are its owner."""
    made = session.client.groups.create(name=name, description=description)
    session.output.done(f"Made group {made.name}.", made.raw)


@groups.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the groups that you may see."""
    found = (entry.raw for entry in session.client.groups.list())
    session.output.rows(found, _COLUMNS, empty="None yet. Make one: airavata group create NAME")


@groups.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show a group."""
    session.output.record(session.client.groups.get(name).raw)


@groups.command("update")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="Who is in it.")
@pass_session
def update(session: Session, name: str, new_name: str | None, description: str | None) -> None:
    """Change a group."""
    changes = without_none({"name": new_name, "description": description})
    if not changes:
        raise BadInputError("Nothing to change.", hint="Add --name or --description.")
    found = session.client.groups.get(name)
    changed = session.client.groups.update(found.id, if_version=found.version, **changes)
    session.output.done(f"Changed group {changed.name}.", changed.raw)


@groups.command("delete")
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a group; what its members had through it ends at once."""
    found = session.client.groups.get(name)
    session.client.groups.delete(found.id)
    session.output.done(f"Deleted group {found.name}.", {"id": found.id, "deleted": True})


@groups.command("members")
@click.argument("name")
@pass_session
def members(session: Session, name: str) -> None:
    """List who is in a group: users, then groups."""
    found = [member.raw for member in session.client.groups.members(name)]
    session.output.rows(found, _MEMBER_COLUMNS, empty="Nobody.")


@groups.command("add-member")
@click.argument("name")
@subject_arguments
@click.option(
    "--role", type=_ROLE, default="member", show_default=True, help="What the user may do."
)
@pass_session
def add_member(
    session: Session, name: str, user: str | None, group_name: str | None, role: str
) -> None:
    """Add a USER to a group or give one another role, or put a --group into it."""
    who = subject(user, group_name)
    client = session.client.groups
    try:
        answer = client.add_member(name, user, member_group=group_name, role=role)
    except ConflictError as error:
        if error.code != "member_exists" or user is None:
            raise
        answer = client.change_member(name, user, role)
    session.output.done(f"{who} is now {role} of {name}.", answer.raw)


@groups.command("remove-member")
@click.argument("name")
@subject_arguments
@pass_session
def remove_member(session: Session, name: str, user: str | None, group_name: str | None) -> None:
    """Take a USER or a --group out of a group, or leave it yourself."""
    who = subject(user, group_name)
    session.client.groups.remove_member(name, user, member_group=group_name)
    session.output.done(
        f"{who} is not in {name} any more.", {"name": user or group_name, "removed": True}
    )
