"""`airavata auth` and `airavata whoami`. Passwords come by prompt, stdin or environment only."""

from __future__ import annotations

import os
import sys
from urllib.parse import parse_qs, urlsplit

import click

from airavata_scheduler.client.api import Client
from airavata_scheduler.client.command_line import Session, group, pass_session
from airavata_scheduler.client.errors import BadInputError, ClientError

auth = group("auth", "Log in and out.")


def password_for(question: str, *, confirm: bool = False, stdin: bool = False) -> str:
    """A password from AIRAVATA_PASSWORD, standard input (`--password-stdin`) or a hidden prompt.

    Raises `BadInputError` where nobody can be asked.
    """
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if os.environ.get("AIRAVATA_PASSWORD"):
        return os.environ["AIRAVATA_PASSWORD"]
    if not sys.stdin.isatty():
        raise BadInputError(
            "Nobody can be asked for the password here.",
            reason="Standard input is not a terminal.",
            hint="Add --password-stdin and pipe it in, or set AIRAVATA_PASSWORD.",
        )
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")


@auth.command("login")
@click.argument("user", required=False)
@_stdin
@pass_session
def login(session: Session, user: str | None, password_stdin: bool) -> None:
    """Log in as USER; the login is kept in the profile."""
    client = session.client
    stored = client.settings.profile.read().get("user")
    if user is None and not sys.stdin.isatty():
        user = stored
        if user is None:
            raise BadInputError(
                "Who are you?", hint="Name the user: airavata auth login USER --password-stdin"
            )
    name = user or click.prompt("User", default=stored, err=True)
    password = password_for(f"Password of {name}", stdin=password_stdin)
    found = client.logins.log_in(str(name), password)
    session.output.done(f"Logged in to {client.settings.server} as {found.get('name')}.", found)


@auth.command("logout")
@pass_session
def logout(session: Session) -> None:
    """End the login, here and on the server."""
    client = session.client
    try:
        client.logins.log_out()
    except ClientError:
        # The server does not know the login, or is away: it is forgotten here in any case.
        client.settings.profile.forget_tokens()
    session.output.done("Logged out.", {"logged_in": False})


@auth.command("status")
@pass_session
def status(session: Session) -> None:
    """Say whether the login holds."""
    settings = session.client.settings
    answer = session.client.logins.status()
    user = answer.get("user") or {}
    sentence = f"Logged in to {settings.server} as {user.get('name')}."
    session.output.done(sentence, {"server": settings.server, **answer})


def _link(text: str) -> tuple[str, str]:
    """(server, token) of a one-time link; `-` reads it from standard input."""
    address = sys.stdin.readline().strip() if text == "-" else text
    parts = urlsplit(address)
    token = parse_qs(parts.query).get("token", [""])[0]
    if parts.scheme not in ("http", "https") or not token or "/bootstrap" not in parts.path:
        raise BadInputError(
            "This is not a one-time link.",
            reason="It looks like https://HOST/bootstrap?token=…",
            hint="Make one on the server: airavata-scheduler admin bootstrap",
        )
    folder = parts.path.rpartition("/bootstrap")[0]
    return f"{parts.scheme}://{parts.netloc}{folder}", token


@auth.command("bootstrap")
@click.argument("link")
@click.option("--user", "name", help="The name of the new administrator.")
@_stdin
@pass_session
def bootstrap(session: Session, link: str, name: str | None, password_stdin: bool) -> None:
    """Make the first administrator with the LINK that the server printed, and log in."""
    server, token = _link(link)
    if name is None and not sys.stdin.isatty():
        raise BadInputError("The new administrator needs a name.", hint="Add --user NAME.")
    user = name or click.prompt("Name of the new administrator", default="admin", err=True)
    password = password_for("New password", confirm=True, stdin=password_stdin)
    with Client(server, config_dir=session.flags.get("config_dir")) as client:
        found = client.logins.bootstrap(token, str(user), password)
    session.output.done(f"Made administrator {found.get('name')}; logged in to {server}.", found)


@auth.command("set-password")
@click.argument("link")
@_stdin
@pass_session
def set_password(session: Session, link: str, password_stdin: bool) -> None:
    """Set your password with the LINK that an administrator gave you, and log in."""
    server, token = _link(link)
    password = password_for("New password", confirm=True, stdin=password_stdin)
    with Client(server, config_dir=session.flags.get("config_dir")) as client:
        found = client.logins.set_password(token, password)
    session.output.done(f"The password is set; logged in to {server}.", found)


@click.command("whoami", cls=auth.command_class)
@pass_session
def whoami(session: Session) -> None:
    """Say who is logged in, and where."""
    settings = session.client.settings
    me = session.client.users.me()
    item = {**me.raw, "server": settings.server, "project": settings.project}
    kind = " (administrator)" if me.is_admin else ""
    place = f", project {settings.project}" if settings.project else ""
    session.output.done(f"{me.name}{kind} at {settings.server}{place}", item)
