"""What all commands share: groups that load late, the settings' options, the way to end.

Nothing slow is imported here: `airavata --help` reads this module, `click` and the table of
commands, and no other module of ours.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from airavata_scheduler.client.api import Client
    from airavata_scheduler.client.output import Output

_PACKAGE = "airavata_scheduler.client"
PROGRAM = "airavata"
# A server that was never started, or is named wrongly, is noticed soon.
AWAY_FOR_S = 4.0


class Session:
    """What one command works with; made before the arguments are read."""

    def __init__(self) -> None:
        self.flags: dict[str, str | None] = {}
        self.as_json = False
        self.quiet = False

    @cached_property
    def client(self) -> Client:
        """The server, with the settings of flags, environment and profile."""
        from airavata_scheduler.client.api import Client  # noqa: PLC0415 - slow to import

        return Client(
            self.flags.get("server"),
            token=self.flags.get("token"),
            project=self.flags.get("project"),
            config_dir=self.flags.get("config_dir"),
            away_for_s=AWAY_FOR_S,
            on_wait=lambda error: self.output.note(f"{error.message} Trying again …"),
        )

    @cached_property
    def output(self) -> Output:
        """Where results go."""
        from airavata_scheduler.client.output import Output  # noqa: PLC0415 - slow to import

        return Output.standard(as_json=self.as_json, quiet=self.quiet)


pass_session = click.make_pass_decorator(Session)


def secret_from(value: str, what: str) -> str:
    """A secret given as `-` (standard input) or `@FILE`; never as itself.

    Raises `click.UsageError` for the secret itself: every user of the machine could read it.
    """
    try:
        if value == "-":
            return sys.stdin.readline().strip()
        if value.startswith("@"):
            with open(value[1:], encoding="utf-8") as stream:  # noqa: PTH123 - pathlib is slow here
                return stream.read().strip()
    except OSError as error:
        raise click.UsageError(f"{value[1:]} cannot be read: {error.strerror}.") from error
    raise click.UsageError(
        f"A {what} on the command line can be seen by every user of this machine. "
        "Give @FILE, or - for standard input."
    )


def _kept(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a shared option in the session; given twice, the later one counts."""
    session = context.ensure_object(Session)
    if value is None or value is False or parameter.name is None:
        return
    if parameter.name == "as_json":
        session.as_json = True
    elif parameter.name == "quiet":
        session.quiet = True
    elif parameter.name == "token":
        session.flags["token"] = secret_from(value, "token")
    else:
        session.flags[parameter.name] = value


def shared_options() -> list[click.Option]:
    """The options that every command takes, before or after its own."""
    plain: dict[str, Any] = {"expose_value": False, "callback": _kept, "is_eager": True}
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.", **plain),
        click.Option(["--quiet", "-q"], is_flag=True, help="Print ids only.", **plain),
        click.Option(["--project"], metavar="PROJECT", help="The project to use.", **plain),
        click.Option(["--server"], metavar="URL", help="The server's address.", **plain),
        click.Option(
            ["--token"], metavar="@FILE", help="An access token in a file; - for stdin.", **plain
        ),
        click.Option(["--config-dir"], metavar="DIR", help="The folder of the profile.", **plain),
    ]


class Command(click.Command):
    """A command with the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = {name for parameter in self.params for name in parameter.opts}
        self.params += [option for option in shared_options() if own.isdisjoint(option.opts)]


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run.

    `table` maps a command's name to ("module:attribute", short help).
    """

    command_class = Command

    def __init__(
        self, *args: Any, table: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.table = dict(table or {})
        self.params += shared_options()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.table, *(name for name in super().list_commands(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and give a command."""
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.table[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest names for a wrong one."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            nearest = difflib.get_close_matches(name, self.list_commands(ctx), n=3, cutoff=0.5)
            meant = f" Did you mean {', '.join(nearest)}?" if nearest else ""
            raise click.UsageError(f"There is no command “{name}”.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        rows = [(name, text) for name, (_, text) in self.table.items()]
        for name in super().list_commands(ctx):
            command = self.commands[name]
            rows.append((name, command.get_short_help_str(70)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def group(name: str, text: str, table: Mapping[str, tuple[str, str]] | None = None) -> LazyGroup:
    """A group of commands; without arguments it prints its help."""
    return LazyGroup(name=name, help=text, table=table, no_args_is_help=True)


def run(command: click.Command, arguments: list[str] | None, session: Session) -> int:
    """Run `command`; return its exit status. Nothing but a sentence is printed for an error."""
    try:
        result = command.main(args=arguments, prog_name=PROGRAM, standalone_mode=False, obj=session)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _failed(session, _usage_error(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 130
    except BrokenPipeError:
        # The reader (`head`) has what it wanted; Python must not complain at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:  # noqa: BLE001 - the edge: a person gets a sentence, no traceback
        return _failed(session, error)
    return result if isinstance(result, int) else 0


def _usage_error(error: click.ClickException) -> Exception:
    from airavata_scheduler.client.errors import BadInputError  # noqa: PLC0415 - only for errors

    context = getattr(error, "ctx", None)
    hint = f"See: {context.command_path} --help" if context is not None else None
    return BadInputError(error.format_message(), hint=hint, code="usage")


def _failed(session: Session, error: Exception) -> int:
    """Print the error as three lines at most; its exit status."""
    from airavata_scheduler.client.errors import ClientError  # noqa: PLC0415 - only for errors

    if os.environ.get("AIRAVATA_DEBUG"):
        import traceback  # noqa: PLC0415 - only for developers

        traceback.print_exception(error)
    if not isinstance(error, ClientError):
        error = ClientError(
            "The command met an error of its own.",
            reason=f"{type(error).__name__}: {error}",
            hint="Please report it, with the output of: AIRAVATA_DEBUG=1 airavata …",
            code="internal",
        )
    session.output.error(error)
    return error.exit_code


def seconds(text: str) -> float:
    """A duration such as 30s, 10m, 1h30m, or plain seconds. Raises `click.BadParameter`."""
    import re  # noqa: PLC0415 - only where a duration is given

    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    if len(text) > 30:  # thirty digits are longer than the world stands; more would be infinite
        raise click.BadParameter(f"“{text[:30]}…” is not a duration; write 30s, 10m or 1h30m.")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise click.BadParameter(f"“{text}” is not a duration; write 30s, 10m or 1h30m.")
    return sum(float(number) * units[unit] for number, unit in parts)


def duration_option(*names: str, text: str, **options: Any) -> Callable[..., Any]:
    """An option that takes a duration and gives seconds."""
    return click.option(
        *names,
        metavar="TIME",
        help=text,
        callback=lambda _c, _p, value: None if value is None else seconds(value),
        **options,
    )
