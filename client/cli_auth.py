"""`airavata auth` and `airavata whoami`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click

from airavata_scheduler.client.api import Client
from airavata_scheduler.client.browser_login import BrowserReturn, browser_return, open_browser
from airavata_scheduler.client.cli_secrets import code_for, password_for
from airavata_scheduler.client.command_line import (
    Session,
    duration_option,
    group,
    pass_session,
)
from airavata_scheduler.client.errors import BadInputError, ClientError, NotAllowedError
from airavata_scheduler.client.output import column
from airavata_scheduler.client.records import Record

auth = group("auth", "Log in and out.")


_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
_code = click.option("--code", help="The second factor's code, or a recovery code.")
_no_browser = click.option(
    "--no-browser", is_flag=True, help="Print the provider's address, open nothing."
)
_timeout = duration_option(
    "--timeout", text="How long to wait for the browser.", default="5m", show_default=True
)


@auth.command("login")
@click.argument("user", required=False)
@click.option("--oidc", is_flag=True, help="Log in at the server's OpenID provider, by a browser.")
@_no_browser
@_timeout
@_code
@_stdin
@pass_session
def login(session: Session, /, user: str | None, **options: Any) -> None:
    """Log in as USER; the login is kept in the profile."""
    logins, server = session.client.logins, session.client.settings.server
    if options["oidc"]:
        with browser_return() as back:
            address = logins.openid_address(back.redirect, back.challenge)
            code = _through_browser(back, address, options["no_browser"], options["timeout"])
            found = logins.log_in_by_code(code, back.verifier)
    else:
        name = _user_name(session, user)
        password = password_for(f"Password of {name}", stdin=options["password_stdin"])
        found = _with_code(lambda given: logins.log_in(name, password, given), options["code"])
    session.output.done(f"Logged in to {server} as {found.get('name')}.", found)


def _user_name(session: Session, user: str | None) -> str:
    """Who logs in: as given, else who did last. Raises `BadInputError` where nobody can say."""
    stored = session.client.settings.profile.read().get("user")
    if user is None and not sys.stdin.isatty():
        user = stored
        if user is None:
            raise BadInputError(
                "Who are you?", hint="Name the user: airavata auth login USER --password-stdin"
            )
    return str(user or click.prompt("User", default=stored, err=True))


def _with_code(log_in: Callable[[str | None], dict[str, Any]], code: str | None) -> dict[str, Any]:
    """Log in, and once more with a code where the server asks for one."""
    try:
        return log_in(code)
    except NotAllowedError as error:
        if error.code != "second_factor_required":
            raise
    return log_in(code_for("Code of your second factor"))


def _through_browser(back: BrowserReturn, address: str, no_browser: bool, timeout_s: float) -> str:
    """The code that the browser brings back from the provider's address."""
    opened = not no_browser and open_browser(address)
    said = "If no browser opened, go to" if opened else "Open this address in a browser here"
    click.echo(f"{said}:\n{address}", err=True)
    return back.code(timeout_s)


@auth.command("link")
@_no_browser
@_timeout
@pass_session
def link(session: Session, no_browser: bool, timeout: float) -> None:
    """Link your identity at the OpenID provider to your account; it then logs you in."""
    logins = session.client.logins
    with browser_return() as back:
        address = logins.link_address(back.redirect, back.challenge)
        code = _through_browser(back, address, no_browser, timeout)
        made = logins.link(code, back.verifier)
    session.output.done(f"Linked {made['subject']} at {made['issuer']}.", made)


@auth.command("identities")
@pass_session
def identities(session: Session) -> None:
    """List the identities at the OpenID provider that log you in."""
    columns = (
        column("ISSUER"),
        column("SUBJECT"),
        column("EMAIL"),
        column("USED", "used_at"),
        column("ID"),
    )
    found = session.client.logins.identities()
    session.output.rows(found, columns, empty="None. Link one: airavata auth link")


@auth.command("unlink")
@click.argument("identity")
@pass_session
def unlink(session: Session, identity: str) -> None:
    """Unlink an IDENTITY, by its id; it logs you in no more."""
    session.client.logins.unlink(identity)
    session.output.done("Unlinked.", {"id": identity})


@auth.command("sessions")
@pass_session
def sessions(session: Session) -> None:
    """List your logins."""
    columns = (
        column("METHOD"),
        column("ADDRESS"),
        column("PROGRAM", "user_agent"),
        column("SINCE", "created_at"),
        column("USED", "used_at"),
        column("CURRENT"),
        column("ID"),
    )
    found = (entry.raw for entry in session.client.sessions.list())
    session.output.rows(found, columns, empty="None.")


@auth.command("revoke-session")
@click.argument("login", required=False)
@click.option("--others", is_flag=True, help="All but the one that you use now.")
@pass_session
def revoke_session(session: Session, login: str | None, others: bool) -> None:
    """End a LOGIN of yours, by its id, or all others."""
    if others == (login is not None):
        raise BadInputError("Name one login, or say --others.", hint="airavata auth sessions")
    if login is None:
        session.client.sessions.end_others()
        session.output.done("Your other logins are ended.", {"ended": "others"})
    else:
        session.client.sessions.end(login)
        session.output.done("Ended.", {"id": login})


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
@_code
@_stdin
@pass_session
def set_password(session: Session, link: str, code: str | None, password_stdin: bool) -> None:
    """Set your password with the LINK that an administrator gave you, and log in."""
    server, token = _link(link)
    password = password_for("New password", confirm=True, stdin=password_stdin)
    with Client(server, config_dir=session.flags.get("config_dir")) as client:
        logins = client.logins
        found = _with_code(lambda given: logins.set_password(token, password, given), code)
    session.output.done(f"The password is set; logged in to {server}.", found)


def _allowed(read: Callable[[], Iterator[Record]]) -> list[Mapping[str, Any]]:
    """What `read` lists; nothing where our token's scopes do not reach so far."""
    try:
        return [entry.raw for entry in read()]
    except NotAllowedError:
        return []


@click.command("whoami", cls=auth.command_class)
@pass_session
def whoami(session: Session) -> None:
    """Say who is logged in, and where."""
    settings = session.client.settings
    me = session.client.users.me()
    scopes = session.client.logins.status().get("scopes")
    item = {
        **me.raw,
        "server": settings.server,
        "project": settings.project,
        "scopes": scopes,
        "projects": _allowed(session.client.users.my_projects),
        "groups": _allowed(session.client.users.my_groups),
    }
    kind = " (administrator)" if me.is_admin else ""
    kind = " (service account)" if me.kind == "service" else kind
    place = f", project {settings.project}" if settings.project else ""
    limits = "" if scopes is None else f", by a token for {', '.join(scopes)}"
    session.output.done(f"{me.name}{kind} at {settings.server}{place}{limits}", item)
    if not session.output.as_json and not session.output.quiet:
        for noun in ("projects", "groups"):
            named = [f"{entry['name']} ({entry['role'] or 'by a group'})" for entry in item[noun]]
            if named:
                session.output.line(f"{noun}: {', '.join(named)}")
