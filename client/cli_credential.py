"""`airavata credential`: secrets that open resources.

A secret never stands on the command line, which every user of a machine can read: it comes from a
file, standard input, or a prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from airavata_scheduler.client.api_credentials import ResourceKind
from airavata_scheduler.client.cli_share import add_sharing
from airavata_scheduler.client.collection import without_none
from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.credential_input import read_value, value_options
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.output import column

credential = group("credential", "Secrets that open resources.")
add_sharing(
    credential,
    "credential",
    lambda session: session.client.credentials,
    relations=("reader", "writer", "revealer"),
    default="reader",
)

_KINDS: Final = (
    *("SSH_KEY", "SSH_CERTIFICATE", "PASSWORD", "ACCESS_KEY", "TOKEN", "KUBECONFIG"),
    "CERTIFICATE",
)
_COLUMNS = (
    column("NAME"),
    column("KIND"),
    column("OWNER"),
    column("MAY", "may"),
    column("EXPIRES", "expires_at"),
    column("ID"),
)
_VERSIONS = (
    column("VERSION", "number"),
    column("STATE"),
    column("REASON"),
    column("CREATED", "created_at"),
    column("ENDS", "ends_at"),
)
_BINDINGS = (column("KIND"), column("NAME"), column("ID"))
_STEPS = (column("CREDENTIAL", "name"), column("KIND"), column("VERDICT"), column("WHY", "detail"))


def resource_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--compute R` or `--storage R`."""
    storage = click.option("--storage", metavar="RESOURCE", help="A storage resource.")
    return click.option("--compute", metavar="RESOURCE", help="A compute resource.")(
        storage(command)
    )


def one_resource(compute: str | None, storage: str | None) -> tuple[ResourceKind, str]:
    """Which of the two was named. Raises `BadInputError` unless it is one."""
    if (compute is None) == (storage is None):
        raise BadInputError("Name --compute or --storage: one of the two.", code="usage")
    return ("compute", compute) if compute is not None else ("storage", str(storage))


@credential.command("create")
@click.argument("name")
@click.option(
    "--kind",
    required=True,
    type=click.Choice(_KINDS, case_sensitive=False),
    help="What it is.",
)
@click.option("--description", help="What it is for.")
@value_options
@pass_session
def create(
    session: Session,
    /,
    name: str,
    kind: str,
    description: str | None,
    **value: Any,
) -> None:
    """Keep a secret; you are its owner."""
    body = read_value(kind.upper(), **value)
    made = session.client.credentials.create(
        name=name, kind=kind.upper(), description=description, **body
    )
    session.output.done(f"Made credential {made.name}.", made.raw)
    if made.public.get("public_key") and session.output.is_live:
        session.output.note(f"Public key: {made.public['public_key']}")


@credential.command("list")
@click.option(
    "--kind", type=click.Choice(_KINDS, case_sensitive=False), help="Only those of this kind."
)
@pass_session
def list_(session: Session, kind: str | None) -> None:
    """List the credentials that you may see; never their values."""
    found = (entry.raw for entry in session.client.credentials.list(kind=kind))
    session.output.rows(
        found, _COLUMNS, empty="None yet. Make one: airavata credential create NAME --kind SSH_KEY"
    )


@credential.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show a credential, without its value."""
    session.output.record(session.client.credentials.get(name).raw)


@credential.command("update")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="What it is for.")
@pass_session
def update(session: Session, name: str, new_name: str | None, description: str | None) -> None:
    """Change name or description."""
    changes = without_none({"name": new_name, "description": description})
    if not changes:
        raise BadInputError("Nothing to change.", hint="Add --name or --description.")
    found = session.client.credentials.get(name)
    changed = session.client.credentials.update(found.id, if_version=found.version, **changes)
    session.output.done(f"Changed credential {changed.name}.", changed.raw)


@credential.command("delete")
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a credential, at once for everybody."""
    session.client.credentials.delete(name)
    session.output.done(f"Deleted {name}.", {"name": name, "deleted": True})


@credential.command("replace")
@click.argument("name")
@value_options
@pass_session
def replace(session: Session, /, name: str, **value: Any) -> None:
    """Put another value in place of the present one, which ends at once."""
    found = session.client.credentials.get(name)
    changed = session.client.credentials.replace(found.id, **read_value(found.kind, **value))
    session.output.done(f"{changed.name} has another value.", changed.raw)


@credential.command("rotate")
@click.argument("name")
@click.option(
    "--keep-previous", "keep_previous_s", type=int, help="Seconds that the one before stays usable."
)
@value_options
@pass_session
def rotate(session: Session, /, name: str, keep_previous_s: int | None, **value: Any) -> None:
    """Let another value count from now on; work that began with the one before goes on."""
    found = session.client.credentials.get(name)
    body = read_value(found.kind, **value)
    changed = session.client.credentials.rotate(found.id, keep_previous_s=keep_previous_s, **body)
    session.output.done(f"{changed.name} is at version {changed.secret_version}.", changed.raw)


@credential.command("reveal")
@click.argument("name")
@click.option("--version", "number", type=int, help="One before that has not ended.")
@click.option("--field", "field_name", help="Only this field, as it is.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file (0600).")
@pass_session
def reveal(
    session: Session,
    name: str,
    number: int | None,
    field_name: str | None,
    output: Path | None,
) -> None:
    """Print the value. It takes a permission of its own, and the audit says that you saw it."""
    found = session.client.credentials.reveal(name, version=number)
    text = json.dumps(found.value, indent=2)
    if field_name is not None:
        if field_name not in found.value:
            raise BadInputError(
                f"{name} has no field {field_name}.", hint=f"It has {', '.join(found.value)}."
            )
        text = found.value[field_name]
    if output is not None:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
        session.output.done(f"Wrote {output}.", {"file": str(output)})
        return
    session.output.note("This is a secret; whoever sees it can use it.")
    session.output.line(text, clean=False)


@credential.command("history")
@click.argument("name")
@pass_session
def history(session: Session, name: str) -> None:
    """List the values that it had: when and why, never what."""
    found = (entry.raw for entry in session.client.credentials.history(name))
    session.output.rows(found, _VERSIONS, empty="None.")


@credential.command("bindings")
@click.argument("name")
@pass_session
def bindings(session: Session, name: str) -> None:
    """List the resources that it opens."""
    found = [entry.raw for entry in session.client.credentials.bindings(name)]
    session.output.rows(found, _BINDINGS, empty="None yet: airavata credential bind")


@credential.command("bind")
@click.argument("name")
@resource_options
@pass_session
def bind(session: Session, name: str, compute: str | None, storage: str | None) -> None:
    """Let it open a resource, for those who may use both."""
    kind, resource = one_resource(compute, storage)
    made = session.client.credentials.bind(name, kind, resource)
    session.output.done(f"{name} opens {made.name}.", made.raw)


@credential.command("unbind")
@click.argument("name")
@resource_options
@pass_session
def unbind(session: Session, name: str, compute: str | None, storage: str | None) -> None:
    """Let it open a resource no longer."""
    kind, resource = one_resource(compute, storage)
    session.client.credentials.unbind(name, kind, resource)
    session.output.done(
        f"{name} does not open {resource} any more.", {"name": name, "unbound": True}
    )


@credential.command("test")
@click.argument("name")
@click.option("--target", help="Such as ssh://user@host:22, https://host or s3://host/bucket.")
@resource_options
@pass_session
def test(
    session: Session, name: str, target: str | None, compute: str | None, storage: str | None
) -> int:
    """Try it by a real connection; exit 1 if it does not open the door."""
    where = without_none({"target": target, "compute": compute, "storage": storage})
    tested = session.client.credentials.test(name, where)
    session.output.done(tested.detail, tested.raw)
    return 0 if tested.ok else 1


@credential.command("explain")
@resource_options
@pass_session
def explain(session: Session, compute: str | None, storage: str | None) -> None:
    """Say which credential opens a resource for you, and why that one or none."""
    kind, resource = one_resource(compute, storage)
    found = session.client.credentials.explain(kind, resource)
    if session.output.as_json:
        session.output.record(found.raw)
        return
    session.output.line(found.detail)
    if found.steps:
        session.output.rows(found.steps, _STEPS, empty="")
    if found.hidden:
        session.output.note(f"{found.hidden} more are bound to it that you may not see.")
