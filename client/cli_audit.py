"""`airavata audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from airavata_scheduler.client.api_audit import verify_export
from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.output import column

audit = group("audit", "Who did what, and the proof that nobody changed it.")
_COLUMNS = (
    column("AT"),
    column("ACTOR"),
    column("ACTION"),
    column("KIND", "object_kind"),
    column("OBJECT", "object_id"),
    column("FROM", "address"),
    column("SEQ"),
)


@audit.command("list")
@click.option("--object", "object_", metavar="KIND:NAME", help="Of this object.")
@click.option("--actor", help="By this user.")
@click.option("--action", help="Such as create, share, reveal.")
@click.option("--in-project", "project", help="In this project, which you manage.")
@click.option("--since", help="From this time on, such as 2026-11-26T00:00:00Z.")
@click.option("--until", help="Before this time.")
@pass_session
def list_(session: Session, /, object_: str | None, **filters: Any) -> None:
    """List who did what, newest first: your own deeds, or what you may oversee."""
    found = session.client.audit.list(object=object_, **filters)
    session.output.rows((entry.raw for entry in found), _COLUMNS, empty="Nothing yet.")


@audit.command("export")
@click.option(
    "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file."
)
@pass_session
def export(session: Session, output: Path) -> None:
    """Write the whole audit to a file (administrators)."""
    count = session.client.audit.export(output)
    session.output.done(
        f"Wrote {count} entries to {output}.", {"file": str(output), "entries": count}
    )


@audit.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--head", "witness", metavar="SEQ:HASH", help="A head that was noted elsewhere.")
@pass_session
def verify(session: Session, file: Path, witness: str | None) -> int:
    """Check the chain of an exported file, without a server; exit 1 with the first fault."""
    with file.open(encoding="ascii", errors="replace") as lines:
        found = verify_export(lines, witness)
    document = {"entries": found.entries, "head": found.head, "fault": found.fault}
    if found.fault is not None:
        session.output.done(f"{found.fault} {found.entries} entries before it are good.", document)
        return 1
    session.output.done(f"{found.entries} entries are good. The head: {found.head}", document)
    return 0
