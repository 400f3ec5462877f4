"""`airavata agent`."""

from __future__ import annotations

import click

from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.output import Column, ago, column

agent = group("agent", "The programs at the sites that do the work.")
_COLUMNS = (
    column("NAME"),
    column("COMPUTE"),
    column("PRESENCE"),
    column("HELD", "leases_held", is_number=True),
    Column(title="SEEN", read=lambda row: ago(row.get("seen_at"))),
    Column(title="HOST", read=lambda row: (row.get("host") or {}).get("hostname")),
    column("VERSION"),
    column("ID"),
)


@agent.command("list")
@click.option("--compute", help="Only the agents of this compute resource.")
@pass_session
def list_(session: Session, compute: str | None) -> None:
    """List the agents that you may see."""
    found = (entry.raw for entry in session.client.agents.list(compute=compute))
    session.output.rows(
        found, _COLUMNS, empty="No agents. Add one: airavata agent install-line RESOURCE"
    )


@agent.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show an agent."""
    session.output.record(session.client.agents.get(name).raw)


@agent.command("token")
@click.argument("resource")
@click.option("--name", help="The name that the agent will have.")
@pass_session
def token(session: Session, resource: str, name: str | None) -> None:
    """Print a one-time token with which an agent enrols at a compute RESOURCE."""
    made = session.client.compute.enrolment_token(resource, agent_name=name)
    if session.as_json:
        session.output.record(made.raw)
        return
    session.output.line(made.token)
    session.output.note(f"It works once, until {made.expires_at:%H:%M} UTC.")


@agent.command("install-line")
@click.argument("resource")
@click.option("--name", help="The name that the agent will have.")
@pass_session
def install_line(session: Session, resource: str, name: str | None) -> None:
    """Print the line to type on the machine that shall work for a compute RESOURCE."""
    made = session.client.compute.enrolment_token(resource, agent_name=name)
    if session.as_json:
        session.output.record(made.raw)
        return
    session.output.line(str(made.install_line))
    session.output.note(
        f"Type it there, as the user who owns the work. It works once, until "
        f"{made.expires_at:%H:%M} UTC."
    )


@agent.command("approve")
@click.argument("name")
@click.option("--code", required=True, help="What the agent printed.")
@pass_session
def approve(session: Session, name: str, code: str) -> None:
    """Let an agent in that enrolled without a token."""
    changed = session.client.agents.act(name, "approve", code=code)
    session.output.done(f"Agent {changed.name} may work.", changed.raw)


@agent.command("drain")
@click.argument("name")
@pass_session
def drain(session: Session, name: str) -> None:
    """Let an agent finish what it runs, and give it nothing new."""
    changed = session.client.agents.act(name, "drain")
    session.output.done(
        f"Agent {changed.name} drains. Undo: airavata agent resume {changed.name}", changed.raw
    )


@agent.command("resume")
@click.argument("name")
@pass_session
def resume(session: Session, name: str) -> None:
    """Give a drained agent work again."""
    changed = session.client.agents.act(name, "resume")
    session.output.done(f"Agent {changed.name} takes work.", changed.raw)


@agent.command("revoke")
@click.argument("name")
@pass_session
def revoke(session: Session, name: str) -> None:
    """Shut an agent out for good; what it ran is run elsewhere."""
    changed = session.client.agents.act(name, "revoke")
    session.output.done(f"Agent {changed.name} is shut out.", changed.raw)
