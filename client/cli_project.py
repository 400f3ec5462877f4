"""`airavata project`."""

from __future__ import annotations

import click

from airavata_scheduler.client.cli_share import subject, subject_arguments
from airavata_scheduler.client.collection import without_none
from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.errors import BadInputError, ConflictError
from airavata_scheduler.client.output import column

project = group("project", "Projects and their members.")
_COLUMNS = (
    column("NAME"),
    column("ROLE"),
    column("DESCRIPTION"),
    column("CREATED", "created_at"),
    column("ID"),
)
_ROLE = click.Choice(("owner", "admin", "member", "viewer"))


@project.command("create")
@click.argument("name")
@click.option("--description", help="What it is about.")
@click.option("--use", is_flag=True, help="Make it the project that commands use.")
@pass_session
def create(session: Session, name: str, description: str | None, use: bool) -> None:
    """Make a project; you are its owner."""
    made = session.client.projects.create(name=name, description=description)
    if use:
        session.client.settings.profile.save(project=made.name)
    session.output.done(f"Made project {made.name}.", made.raw)


@project.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the projects that you may see."""
    found = (entry.raw for entry in session.client.projects.list())
    session.output.rows(found, _COLUMNS, empty="None yet. Make one: airavata project create NAME")


@project.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show a project."""
    session.output.record(session.client.projects.get(name).raw)


@project.command("update")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="What it is about.")
@pass_session
def update(session: Session, name: str, new_name: str | None, description: str | None) -> None:
    """Change a project."""
    changes = without_none({"name": new_name, "description": description})
    if not changes:
        raise BadInputError("Nothing to change.", hint="Add --name or --description.")
    found = session.client.projects.get(name)
    changed = session.client.projects.update(found.id, if_version=found.version, **changes)
    session.output.done(f"Changed project {changed.name}.", changed.raw)


@project.command("delete")
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a project; refused while something of it runs."""
    found = session.client.projects.get(name)
    session.client.projects.delete(found.id)
    session.output.done(f"Deleted project {found.name}.", {"id": found.id, "deleted": True})


@project.command("members")
@click.argument("name")
@pass_session
def members(session: Session, name: str) -> None:
    """List who is in a project: users, then groups."""
    found = [member.raw for member in session.client.projects.members(name)]
    columns = (
        column("KIND"),
        column("NAME"),
        column("FULL NAME", "full_name"),
        column("ROLE"),
    )
    session.output.rows(found, columns, empty="Nobody.")


@project.command("add-member")
@click.argument("name")
@subject_arguments
@click.option("--role", type=_ROLE, default="member", show_default=True, help="What they may do.")
@pass_session
def add_member(
    session: Session, name: str, user: str | None, group_name: str | None, role: str
) -> None:
    """Add a USER or a --group to a project, or give them another role."""
    who = subject(user, group_name)
    client = session.client.projects
    try:
        answer = client.add_member(name, user, role, group=group_name)
    except ConflictError as error:
        if error.code != "member_exists":
            raise
        answer = client.change_member(name, user, role, group=group_name)
    session.output.done(f"{who} is now {role} of {name}.", answer)


@project.command("remove-member")
@click.argument("name")
@subject_arguments
@pass_session
def remove_member(session: Session, name: str, user: str | None, group_name: str | None) -> None:
    """Take a USER or a --group out of a project."""
    who = subject(user, group_name)
    session.client.projects.remove_member(name, user, group=group_name)
    session.output.done(
        f"{who} is not in {name} any more.", {"name": user or group_name, "removed": True}
    )
