"""`airavata-scheduler`: the operator's command."""

from __future__ import annotations

import importlib
import sys

import click

from airavata_scheduler.models.errors import AiravataError

# Each verb has its own module, imported when it is typed: `--help` stays quick, and `worker` never
# imports the database.
_VERBS = {
    "server": "The API: the functions behind gunicorn.",
    "daemon": "The background loops: RQ workers, sweeps and the reconciler.",
    "both": "The API and the daemon, supervised.",
    "worker": "An agent: pulls tasks over HTTPS and runs them.",
    "local": "The whole system on this machine, without root.",
    "db": "The database: upgrade, check, schema, epoch.",
    "authz": "SpiceDB: upload the schema, rebuild and compare the relationships.",
    "audit": "The audit log: verify its chain.",
    "admin": "Accounts: bootstrap the first administrator, password links.",
    "doctor": "Check the configuration and every dependency.",
    "openapi": "The HTTP API's description, as JSON.",
}


class _Verbs(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        module = importlib.import_module(f"airavata_scheduler.commands.{name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="airavata-scheduler", prog_name="airavata-scheduler")
def scheduler() -> None:
    """Airavata Scheduler: run, check and administer the service.

    Settings come from the environment and from .env in this folder (docs/configuration.md).
    """


def main() -> None:
    """The console script: errors are at most three lines, never a traceback."""
    try:
        scheduler.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except AiravataError as error:
        click.echo(f"airavata-scheduler: {error.detail}", err=True)
        if error.hint:
            click.echo(error.hint, err=True)
        sys.exit(2 if error.status in {422, 500} else 1)


if __name__ == "__main__":
    main()
