"""`airavata user totp`: the second factor of one's password."""

from __future__ import annotations

import click

from airavata_scheduler.client.cli_secrets import code_for, password_for
from airavata_scheduler.client.command_line import Session, group, pass_session

totp = group("totp", "The second factor of your password.")
_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")


@totp.command("status")
@pass_session
def status(session: Session) -> None:
    """Say whether your password needs a code beside it."""
    found = session.client.second_factor.status()
    left = f"{found['recovery_codes_left']} recovery codes are left"
    session.output.done(f"On; {left}." if found["enabled"] else "Off.", found)


@totp.command("enable")
@_stdin
@pass_session
def enable(session: Session, password_stdin: bool) -> None:
    """Switch it on: prints a secret for your authenticator, asks for a code, prints recovery codes.

    In a pipe the code is the next line of standard input.
    """
    factor = session.client.second_factor
    started = factor.start(password_for("Your password", stdin=password_stdin))
    session.output.record(started)
    session.output.note("Put the secret into your authenticator; it is not shown again.")
    codes = factor.confirm(code_for("Code that it shows"))
    session.output.note("It is on. Keep these codes; each works once, for a lost device:")
    session.output.done("\n".join(codes), {"recovery_codes": codes})


@totp.command("disable")
@click.option("--code", help="A code, in place of the password.")
@_stdin
@pass_session
def disable(session: Session, code: str | None, password_stdin: bool) -> None:
    """Switch it off, with your password or a code."""
    if code is None:
        password = password_for("Your password", stdin=password_stdin)
        session.client.second_factor.disable(password=password)
    else:
        session.client.second_factor.disable(code=code)
    session.output.done("The second factor is off.", {"enabled": False})


@totp.command("reset")
@click.argument("name")
@pass_session
def reset(session: Session, name: str) -> None:
    """Switch off that of a user who lost the device and the recovery codes."""
    session.client.second_factor.reset(name)
    session.output.done(f"{name} logs in with the password alone.", {"name": name})
