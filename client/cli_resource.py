"""`airavata resource`: compute and storage resources."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from typing import Any

import click

from airavata_scheduler.client.cli_share import add_sharing
from airavata_scheduler.client.collection import without_none
from airavata_scheduler.client.command_line import Session, group, pass_session, secret_from
from airavata_scheduler.client.errors import BadInputError, NotFoundError
from airavata_scheduler.client.joining import join_here
from airavata_scheduler.client.output import column

resource = group("resource", "Places to run and places for data.")
compute = group("compute", "Places to run: clusters, namespaces, servers.")
storage = group("storage", "Places for data.")
resource.add_command(compute)
resource.add_command(storage)

_COLUMNS = (
    column("NAME"),
    column("KIND"),
    column("STATE"),
    column("DESCRIPTION"),
    column("ID"),
)
_SHARED_AS = ("operator", "user")
add_sharing(
    compute,
    "compute resource",
    lambda session: session.client.compute,
    relations=_SHARED_AS,
    default="user",
)
add_sharing(
    storage,
    "storage resource",
    lambda session: session.client.storage,
    relations=_SHARED_AS,
    default="user",
)
_COMPUTE_KIND = click.Choice(("SLURM", "KUBERNETES", "BARE_METAL"), case_sensitive=False)
_STORAGE_KIND = click.Choice(("NFS",), case_sensitive=False)


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that describe a compute resource."""
    for option in (
        click.option("--price", type=float, help="Price of one core for an hour."),
        click.option("--max-time", "max_time_s", type=int, help="Longest task, in seconds."),
        click.option("--max-gpu", type=int, help="Most GPUs of one task."),
        click.option("--max-ram-gb", type=float, help="Most memory of one task, in GB."),
        click.option("--max-cpu", type=int, help="Most cores of one task."),
        click.option(
            "--endpoint", metavar="URL", help="ssh://HOST:PORT or https://…; shown to managers."
        ),
        click.option("--description", help="What people should know."),
    ):
        command = option(command)
    return command


def _compute_body(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `_limit_options` as the API takes them."""
    limits = {
        name: options.get(name) for name in ("max_cpu", "max_ram_gb", "max_gpu", "max_time_s")
    }
    return without_none(
        {
            "description": options.get("description"),
            "limits": without_none(limits) or None,
            "price_per_core_hour": options.get("price"),
            "endpoint": options.get("endpoint"),
        }
    )


@compute.command("list")
@pass_session
def list_compute(session: Session) -> None:
    """List the compute resources that you may see."""
    found = (entry.raw for entry in session.client.compute.list())
    empty = "None yet. Make one: airavata resource compute create NAME --kind BARE_METAL"
    session.output.rows(found, _COLUMNS, empty=empty)


@compute.command("get")
@click.argument("name")
@pass_session
def get_compute(session: Session, name: str) -> None:
    """Show a compute resource."""
    session.output.record(session.client.compute.get(name).raw)


@compute.command("create")
@click.argument("name")
@click.option("--kind", type=_COMPUTE_KIND, required=True, help="What it is.")
@click.option("--for-project", metavar="PROJECT", help="Only this project may use it.")
@_limit_options
@pass_session
def create_compute(
    session: Session, /, *, name: str, kind: str, for_project: str | None, **options: Any
) -> None:
    """Make a compute resource; agents are added to it afterwards."""
    made = session.client.compute.create(
        name=name, kind=kind.upper(), project=for_project, **_compute_body(options)
    )
    session.output.done(
        f"Made compute resource {made.name}.\n"
        f"Add an agent to it: airavata agent install-line {made.name}",
        made.raw,
    )


@compute.command("update")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--state", type=click.Choice(("active", "disabled")), help="Whether it takes work.")
@_limit_options
@pass_session
def update_compute(
    session: Session,
    /,
    *,
    name: str,
    new_name: str | None,
    state: str | None,
    **options: Any,
) -> None:
    """Change a compute resource; limits that are not named stay."""
    found = session.client.compute.get(name)
    changes = {**without_none({"name": new_name, "state": state}), **_compute_body(options)}
    if not changes:
        raise BadInputError("Nothing to change.", hint="See the options: … update --help")
    if "limits" in changes:
        changes["limits"] = {**(found.raw.get("limits") or {}), **changes["limits"]}
    changed = session.client.compute.update(found.id, if_version=found.version, **changes)
    session.output.done(f"Changed compute resource {changed.name}.", changed.raw)


@compute.command("delete")
@click.argument("name")
@pass_session
def delete_compute(session: Session, name: str) -> None:
    """Delete a compute resource; refused while tasks run on it."""
    found = session.client.compute.get(name)
    session.client.compute.delete(found.id)
    session.output.done(
        f"Deleted compute resource {found.name}.", {"id": found.id, "deleted": True}
    )


@compute.command("register")
@click.option("--name", help="The agent's name with --token, else the resource's name.")
@click.option(
    "--token", "enrolment", metavar="@FILE", help="The enrolment token in a file; - for stdin."
)
@pass_session
def register(session: Session, name: str | None, enrolment: str | None) -> None:
    """Make this machine a place to run.

    With --token it joins the resource that the token is for. Without, a resource of this machine's
    size is made, and the machine joins that.
    """
    client = session.client
    if enrolment is not None:
        token = secret_from(enrolment, "token")
        join_here(client.transport, token, name, tell=session.output.note)
        session.output.done("This machine has joined.", {"joined": True, "agent": name})
        return
    resource_name = name or socket.gethostname().partition(".")[0]
    kind = "SLURM" if shutil.which("sbatch") else "BARE_METAL"
    made = client.compute.create(name=resource_name, kind=kind, limits=_limits_here())
    issued = client.compute.enrolment_token(made.id)
    join_here(client.transport, issued.token, None, tell=session.output.note)
    session.output.done(f"This machine has joined as {made.name} ({kind}).", made.raw)


def _limits_here() -> dict[str, Any]:
    """This machine's size: cores that we may use, and memory in whole GB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"max_cpu": len(os.sched_getaffinity(0)), "max_ram_gb": max(1, memory // 10**9)}


@storage.command("list")
@pass_session
def list_storage(session: Session) -> None:
    """List the storage resources that you may see."""
    columns = (*_COLUMNS[:2], column("DEFAULT", "is_default"), *_COLUMNS[2:])
    found = (entry.raw for entry in session.client.storage.list())
    session.output.rows(found, columns, empty="No storage resources.")


@storage.command("get")
@click.argument("name")
@pass_session
def get_storage(session: Session, name: str) -> None:
    """Show a storage resource."""
    session.output.record(session.client.storage.get(name).raw)


@storage.command("create")
@click.argument("name")
@click.option("--kind", type=_STORAGE_KIND, default="NFS", show_default=True, help="What it is.")
@click.option("--path", required=True, help="The folder, as the server sees it.")
@click.option("--description", help="What people should know.")
@click.option("--for-project", metavar="PROJECT", help="Only this project may use it.")
@pass_session
def create_storage(
    session: Session,
    /,
    *,
    name: str,
    kind: str,
    path: str,
    description: str | None,
    for_project: str | None,
) -> None:
    """Make a storage resource."""
    made = session.client.storage.create(
        name=name,
        kind=kind.upper(),
        location={"path": path},
        description=description,
        project=for_project,
    )
    session.output.done(f"Made storage resource {made.name}.", made.raw)


@storage.command("update")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="What people should know.")
@pass_session
def update_storage(
    session: Session, name: str, new_name: str | None, description: str | None
) -> None:
    """Change a storage resource."""
    changes = without_none({"name": new_name, "description": description})
    if not changes:
        raise BadInputError("Nothing to change.", hint="Add --name or --description.")
    found = session.client.storage.get(name)
    changed = session.client.storage.update(found.id, if_version=found.version, **changes)
    session.output.done(f"Changed storage resource {changed.name}.", changed.raw)


@storage.command("delete")
@click.argument("name")
@pass_session
def delete_storage(session: Session, name: str) -> None:
    """Delete a storage resource; refused while something is kept there."""
    found = session.client.storage.get(name)
    session.client.storage.delete(found.id)
    session.output.done(
        f"Deleted storage resource {found.name}.", {"id": found.id, "deleted": True}
    )


@resource.command("status")
@click.argument("name")
@pass_session
def status(session: Session, name: str) -> None:
    """Say how a resource is: agents that are online, what runs, what waits."""
    try:
        session.output.record(session.client.compute.status(name))
    except NotFoundError as missing:
        try:
            session.output.record(session.client.storage.status(name))
        except NotFoundError:
            raise missing from None
