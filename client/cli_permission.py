"""`airavata permission`."""

from __future__ import annotations

import click

from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.output import column

permission = group("permission", "Who may do what, and why.")
_COLUMNS = (column("NAME"), column("ID"))
_user = click.option("--user", metavar="NAME", help="Another user; takes managing the object.")


@permission.command("check")
@click.argument("target", metavar="KIND:NAME")
@click.argument("deed", metavar="PERMISSION")
@_user
@pass_session
def check(session: Session, target: str, deed: str, user: str | None) -> int:
    """Say whether you may do PERMISSION to an object; exit 1 if not."""
    found = session.client.permissions.check(target, deed, user=user)
    may = "may" if found.allowed else "may not"
    session.output.done(f"{found.user} {may} {deed} {found.object}.", found.raw)
    return 0 if found.allowed else 1


@permission.command("explain")
@click.argument("target", metavar="KIND:NAME")
@click.argument("deed", metavar="PERMISSION")
@_user
@pass_session
def explain(session: Session, target: str, deed: str, user: str | None) -> None:
    """Say it, and why: by which roles, groups and shares."""
    found = session.client.permissions.explain(target, deed, user=user)
    session.output.done(found.detail, found.raw)
    if not session.output.as_json and not session.output.quiet:
        for reason in found.reasons:
            session.output.line(f"  {reason}")


@permission.command("list")
@click.argument("kind")
@click.argument("deed", metavar="PERMISSION", default="read")
@pass_session
def list_(session: Session, kind: str, deed: str) -> None:
    """List the objects of a KIND on which you have PERMISSION (read, if not said)."""
    found = (entry.raw for entry in session.client.permissions.allowed(kind, deed))
    session.output.rows(found, _COLUMNS, empty="None.")
