"""`airavata completion`: scripts that teach the shell our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from airavata_scheduler.client.command_line import PROGRAM, Command, Session, pass_session

_HINTS = {
    "bash": 'eval "$(airavata completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(airavata completion zsh)"   # in ~/.zshrc',
    "fish": "airavata completion fish > ~/.config/fish/completions/airavata.fish",
}


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(tuple(_HINTS)))
@pass_session
def completion(session: Session, shell: str) -> None:
    """Print the completion script of a SHELL."""
    from airavata_scheduler.client.main import airavata  # noqa: PLC0415 - a cycle otherwise

    found = get_completion_class(shell)
    assert found is not None  # click knows the three shells of the choice
    script = found(airavata, {}, PROGRAM, "_AIRAVATA_COMPLETE")
    click.echo(script.source_template % script.source_vars())
    if session.output.out.isatty():
        session.output.note(f"To have it always: {_HINTS[shell]}")
