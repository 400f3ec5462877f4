"""Naming a user or a group on the command line, and the commands that share an object with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from airavata_scheduler.client.api_shares import Shared
from airavata_scheduler.client.command_line import Session, pass_session
from airavata_scheduler.client.errors import BadInputError, ConflictError, NotFoundError
from airavata_scheduler.client.output import column
from airavata_scheduler.client.records import Share

_COLUMNS = (
    column("KIND"),
    column("NAME"),
    column("FULL NAME", "full_name"),
    column("RELATION"),
    column("SINCE", "created_at"),
)


def subject_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """`[USER] [--group GROUP]`: `subject` says which of the two it is."""
    option = click.option("--group", "group_name", metavar="GROUP", help="A group, not a user.")
    return click.argument("user", required=False)(option(command))


def subject(user: str | None, group_name: str | None) -> str:
    """The one that was named, for sentences. Raises `BadInputError` unless it is one."""
    if (user is None) == (group_name is None):
        raise BadInputError("Name a USER or a --group: one of the two.", code="usage")
    return user or f"group {group_name}"


def _existing(shared: Shared[Any], name: str, who: str, relation: str) -> Share:
    """The share that is there already: to share twice is no fault."""
    for found in shared.shares(name):
        if found.relation == relation and who in (found.name, found.id):
            return found
    raise NotFoundError(f"The share of {name} with {who} has just ended.", hint="Share it again.")


def add_sharing(
    commands: click.Group,
    noun: str,
    shared: Callable[[Session], Shared[Any]],
    *,
    relations: Sequence[str],
    default: str,
) -> None:
    """Add `share`, `unshare` and `shares` to a noun's commands."""
    relation = click.Choice(tuple(relations))

    @commands.command("share", help=f"Share a {noun} with a USER or a --group.")
    @click.argument("name")
    @subject_arguments
    @click.option(
        "--as", "relation", type=relation, default=default, show_default=True, help="As what."
    )
    @pass_session
    def share(
        session: Session, name: str, user: str | None, group_name: str | None, relation: str
    ) -> None:
        who = subject(user, group_name)
        try:
            made = shared(session).share(name, user, group=group_name, relation=relation)
        except ConflictError as error:
            if error.code != "share_exists":
                raise
            made = _existing(shared(session), name, user or str(group_name), relation)
        session.output.done(f"{who} is now {relation} of {name}.", made.raw)

    @commands.command("unshare", help=f"Share a {noun} with a USER or a --group no longer.")
    @click.argument("name")
    @subject_arguments
    @click.option("--as", "relation", type=relation, help="Only this; else all that they have.")
    @pass_session
    def unshare(
        session: Session, name: str, user: str | None, group_name: str | None, relation: str | None
    ) -> None:
        who = subject(user, group_name)
        shared(session).unshare(name, user, group=group_name, relation=relation)
        session.output.done(
            f"{name} is not shared with {who} any more" + (f" as {relation}." if relation else "."),
            {"name": name, "unshared": True},
        )

    @commands.command("shares", help=f"List with whom a {noun} is shared.")
    @click.argument("name")
    @pass_session
    def shares(session: Session, name: str) -> None:
        found = [entry.raw for entry in shared(session).shares(name)]
        session.output.rows(found, _COLUMNS, empty="With nobody.")
