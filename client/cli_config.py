"""`airavata config`: the settings that the profile keeps."""

from __future__ import annotations

import click

from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.profile import SETTINGS

config = group("config", "The settings of this machine: server and project.")
_NAME = click.Choice(SETTINGS)


@config.command("set")
@click.argument("name", type=_NAME)
@click.argument("value")
@pass_session
def set_(session: Session, name: str, value: str) -> None:
    """Keep a setting in the profile; an empty VALUE removes it."""
    if name == "server":
        value = value.rstrip("/")
        if value and not value.startswith(("http://", "https://")):
            raise BadInputError(
                f"“{value}” is not the address of a server.",
                hint="Write it with http:// or https://, such as https://scheduler.example.org",
            )
    change: dict[str, str | None] = {name: value or None}
    session.client.settings.profile.save(None, **change)
    session.output.done(f"{name} is {value or 'not set any more'}.", {name: value or None})


@config.command("get")
@click.argument("name", type=_NAME)
@pass_session
def get(session: Session, name: str) -> None:
    """Print the value that a command would use now."""
    value = getattr(session.client.settings, name)
    if value is None:
        raise BadInputError(f"{name} is not set.", hint=f"airavata config set {name} VALUE")
    if session.as_json:
        session.output.record({name: value})
    else:
        session.output.line(str(value))


@config.command("show")
@pass_session
def show(session: Session) -> None:
    """Show every setting, and where it comes from."""
    settings = session.client.settings
    stored = settings.profile.read()
    values = {
        "server": settings.server,
        "project": settings.project,
        "token": "given" if settings.token else None,
        "user": stored.get("user"),
    }
    sources = {**settings.sources, "user": "profile"}
    if session.as_json:
        shown = {
            name: {"value": value, "source": sources[name] if value else None}
            for name, value in values.items()
        }
        session.output.record({**shown, "profile": str(settings.profile.path)})
        return
    lines = {
        name: f"{value}  ({sources[name]})" if value else "-" for name, value in values.items()
    }
    session.output.record({**lines, "profile": str(settings.profile.path)})
