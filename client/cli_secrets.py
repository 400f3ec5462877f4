"""How commands come to hold a password or a code: by prompt, standard input or environment."""

from __future__ import annotations

import os
import sys

import click

from airavata_scheduler.client.errors import BadInputError


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


def code_for(question: str) -> str:
    """A code of the second factor, by prompt or as the next line of standard input.

    Raises `BadInputError` where nobody can be asked.
    """
    if sys.stdin.isatty():
        answer: str = click.prompt(question, err=True)
        return answer.strip()
    line = sys.stdin.readline().strip()
    if not line:
        raise BadInputError(
            "This account has a second factor, and nobody can be asked for the code here.",
            hint="Pipe it in as the next line of standard input, or add --code CODE.",
        )
    return line
