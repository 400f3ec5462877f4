"""The `airavata` command."""

from __future__ import annotations

import click

from airavata_scheduler.client.command_line import LazyGroup, Session, run
from airavata_scheduler.client.interrupts import insisting

_TABLE = {
    "experiment": ("cli_experiment:experiment", "Run experiments, watch them, get their files."),
    "task": ("cli_task:task", "Look at one task of an experiment."),
    "function": ("cli_function:function", "Register functions and call them."),
    "group": ("cli_group:groups", "Groups of users and of other groups."),
    "project": ("cli_project:project", "Projects and their members."),
    "credential": ("cli_credential:credential", "Secrets that open resources."),
    "permission": ("cli_permission:permission", "Who may do what, and why."),
    "resource": ("cli_binding:resource", "Places to run and places for data."),
    "agent": ("cli_agent:agent", "The programs at the sites that do the work."),
    "auth": ("cli_auth:auth", "Log in and out."),
    "whoami": ("cli_auth:whoami", "Say who is logged in, and where."),
    "user": ("cli_user:user", "Your account, and other users."),
    "audit": ("cli_audit:audit", "Who did what, and the proof that nobody changed it."),
    "config": ("cli_config:config", "The settings of this machine."),
    "completion": ("cli_completion:completion", "Completion for your shell."),
}


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import version  # noqa: PLC0415 - slow to import

    click.echo(f"airavata {version('airavata-scheduler')}")
    context.exit()


airavata = LazyGroup(
    name="airavata",
    table=_TABLE,
    no_args_is_help=True,
    help="Run experiments and functions on machines far away.\n\n"
    "Everything has --help, --json and --quiet. Begin with: airavata experiment run FILE --watch",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
airavata.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_version,
        help="Print the version.",
    )
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (default: the process's own arguments); the exit status."""
    with insisting():
        return run(airavata, arguments, Session())
