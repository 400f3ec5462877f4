"""`airavata user`: one's own account; for administrators also others'."""

from __future__ import annotations

from typing import Any

import click

from airavata_scheduler.client.cli_secrets import password_for
from airavata_scheduler.client.collection import path_of, without_none
from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.output import column

user = group(
    "user",
    "Your account, and other users.",
    {
        "tokens": ("cli_tokens:tokens", "Access tokens, for programs."),
        "totp": ("cli_totp:totp", "The second factor of your password."),
    },
)
_COLUMNS = (
    column("NAME"),
    column("FULL NAME", "full_name"),
    column("EMAIL"),
    column("KIND"),
    column("ADMIN", "is_admin"),
    column("STATE"),
    column("ID"),
)


@user.command("profile")
@pass_session
def profile(session: Session) -> None:
    """Show your account."""
    session.output.record(session.client.users.me().raw)


@user.command("update")
@click.option("--email", help="Your address.")
@click.option("--full-name", help="Your name as people write it.")
@pass_session
def update(session: Session, email: str | None, full_name: str | None) -> None:
    """Change your account."""
    changes = without_none({"email": email, "full_name": full_name})
    if not changes:
        raise BadInputError("Nothing to change.", hint="Add --email or --full-name.")
    session.output.done("Changed.", session.client.users.update_me(**changes).raw)


@user.command("password")
@click.option("--password-stdin", is_flag=True, help="Read two lines from stdin: old and new.")
@pass_session
def password(session: Session, password_stdin: bool) -> None:
    """Change your password; your other logins end."""
    current = password_for("Current password", stdin=password_stdin)
    new = password_for("New password", confirm=True, stdin=password_stdin)
    session.client.users.change_password(current, new)
    session.output.done("The password is changed.", {"changed": True})


@user.command("projects")
@pass_session
def projects(session: Session) -> None:
    """List the projects that you are a member of."""
    found = (project.raw for project in session.client.users.my_projects())
    columns = (column("NAME"), column("ROLE"), column("DESCRIPTION"), column("ID"))
    session.output.rows(found, columns, empty="None yet. Make one: airavata project create NAME")


@user.command("groups")
@pass_session
def groups(session: Session) -> None:
    """List the groups that you are in; without a role, through another group."""
    found = (entry.raw for entry in session.client.users.my_groups())
    columns = (column("NAME"), column("ROLE"), column("DESCRIPTION"), column("ID"))
    session.output.rows(found, columns, empty="None.")


@user.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the users."""
    found = (entry.raw for entry in session.client.users.list())
    session.output.rows(found, _COLUMNS, empty="No users.")


@user.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show one user."""
    session.output.record(session.client.users.get(name).raw)


@user.command("create")
@click.argument("name")
@click.option("--email", help="The user's address.")
@click.option("--full-name", help="The user's name as people write it.")
@click.option("--admin", is_flag=True, help="Make the user an administrator.")
@click.option("--service", is_flag=True, help="Make a service account: it has tokens, no login.")
@pass_session
def create(session: Session, /, name: str, admin: bool, service: bool, **about: Any) -> None:
    """Make a user; prints the one-time link that sets the password."""
    kind = "service" if service else None
    made = session.client.users.create(name=name, kind=kind, is_admin=admin or None, **about)
    if service:
        hint = f"airavata user tokens create NAME --user {name}"
        session.output.done(f"Made service account {name}. Make its token: {hint}", made.raw)
        return
    link = made.raw.get("link")
    session.output.done(f"Made {name}. Give them this link, it works once:\n{link}", made.raw)


@user.command("password-link")
@click.argument("name")
@pass_session
def password_link(session: Session, name: str) -> None:
    """Print a one-time link with which a user sets a new password."""
    answer = session.client.transport.post(path_of("/users", name, "password-link"))
    session.output.done(str(answer.get("link")), answer)


@user.command("disable")
@click.argument("name")
@pass_session
def disable(session: Session, name: str) -> None:
    """Lock a user out; what they own stays."""
    session.client.users.get(name)
    changed = session.client.users.update(name, state="disabled")
    session.output.done(f"{changed.name} cannot log in any more.", changed.raw)


@user.command("enable")
@click.argument("name")
@pass_session
def enable(session: Session, name: str) -> None:
    """Let a disabled user in again."""
    changed = session.client.users.update(name, state="active")
    session.output.done(f"{changed.name} can log in again.", changed.raw)
