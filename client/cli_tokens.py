"""`airavata user tokens`: access tokens for programs, one's own and those of service accounts."""

from __future__ import annotations

import click

from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.output import column

tokens = group("tokens", "Access tokens, for programs.")
_user = click.option("--user", default="me", metavar="NAME", help="A service account, not you.")
_COLUMNS = (
    column("NAME"),
    column("SCOPES"),
    column("EXPIRES", "expires_at"),
    column("USED", "used_at"),
    column("ID"),
)


@tokens.command("list")
@_user
@pass_session
def list_(session: Session, user: str) -> None:
    """List the access tokens that are alive."""
    found = (entry.raw for entry in session.client.access_tokens.list(user))
    hint = "airavata user tokens create NAME --scope read"
    session.output.rows(found, _COLUMNS, empty=f"None. Make one: {hint}")


@tokens.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    help="read, work, resources, credentials, projects, account or admin; more than once for more.",
)
@click.option("--expires-in", metavar="TIME", help="Such as 12h or 90d; 30d if not said.")
@_user
@pass_session
def create(
    session: Session, name: str, scopes: tuple[str, ...], expires_in: str | None, user: str
) -> None:
    """Make an access token called NAME, and print it, once."""
    made = session.client.access_tokens.create(name, scopes, user=user, expires_in=expires_in)
    session.output.note("This is shown once. Give it to a program as AIRAVATA_TOKEN.")
    session.output.done(str(made.token), made.raw)


@tokens.command("revoke")
@click.argument("token_id", metavar="ID")
@_user
@pass_session
def revoke(session: Session, token_id: str, user: str) -> None:
    """Revoke the token with this ID; it stops at its next request."""
    session.client.access_tokens.revoke(token_id, user=user)
    session.output.done("Revoked.", {"id": token_id})
