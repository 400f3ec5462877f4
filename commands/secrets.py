"""`airavata-scheduler secrets`: OpenBao, which keeps the secrets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import hvac

from airavata_scheduler.backends import (
    openbao,
    openbao_checks,
    openbao_setup,
    secret_collector,
    secret_presence,
    secret_rewrap,
)
from airavata_scheduler.backends.openbao_http import Server, TokenLost
from airavata_scheduler.backends.openbao_transit import key_version_of
from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.backends.secret_rewrap import Rewrapped
from airavata_scheduler.commands import start_checks
from airavata_scheduler.functions import audit, second_factor
from airavata_scheduler.models import database
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database_url import read_database_url
from airavata_scheduler.models.errors import ConfigurationError

MOST_RUNS = 10
_R = TypeVar("_R")


@click.group("secrets")
def command() -> None:
    """OpenBao: set it up and check it, rotate the key, collect what is left over."""


@command.command("set-up")
def set_up() -> None:
    """Make engines, key, SSH authority, policies and the AppRole; what is there stays.

    It takes an administrator's OPENBAO_TOKEN.
    """
    done = _as_operator(openbao_setup.set_up)
    click.echo(f"OPENBAO_ROLE_ID={done.role_id}")
    click.echo(
        "Set that, and OPENBAO_SECRET_ID_FILE to a file of server and daemon; take OPENBAO_TOKEN "
        "out of their settings. To write that file: airavata-scheduler secrets wrap --output FILE",
        err=True,
    )


@command.command()
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write it there, readable for you only."
)
def wrap(output: Path | None) -> None:
    """Make a new secret id of the AppRole, wrapped: it can be opened once, within an hour.

    It takes an operator's OPENBAO_TOKEN.
    """
    made = _as_operator(lambda client, _: openbao_setup.wrapped_secret_id(client))
    if output is None:
        click.echo(made)
        return
    try:
        write_whole(output, made.encode(), 0o600)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}.") from None
    click.echo(f"The wrapped secret id is in {output}; start the server within an hour.")


@command.command()
@click.option("--operator", is_flag=True, help="The operator's policy instead.")
def policy(operator: bool) -> None:
    """Print what OpenBao must allow the scheduler, with the mounts of the settings."""
    name = openbao_setup.OPERATOR_POLICY if operator else openbao_setup.POLICY
    text = openbao_setup.policy_text(Server.of(Configuration.read()), name)
    click.echo(text, nl=False)


@command.command()
def check() -> None:
    """Say what is missing or wrong in OpenBao; exit 1 if anything is.

    Also whether it holds the values that were written last, where the database answers.
    """
    configuration = Configuration.read()
    found = openbao_checks.look(configuration)
    for fault in found.faults:
        click.echo(f"{'FAIL' if fault.stops else 'warn'}  {fault.detail}")
        click.echo(f"      {fault.hint}")
    if found.faults:
        sys.exit(1)
    click.echo(f"OpenBao's {found.seen}.")
    _check_values(configuration)


@command.command("rotate-key")
@click.option("--only-rewrap", is_flag=True, help="Make no new version; do what a run left.")
def rotate_key(only_rewrap: bool) -> None:
    """Make a new version of the transit key, and wrap every kept secret by it.

    It takes an operator's OPENBAO_TOKEN. Values stay readable meanwhile, whatever dies.
    """
    _connect()
    rotated = 0 if only_rewrap else _as_operator(openbao_setup.rotate_key)
    newest = max(rotated, key_version_of(openbao.secrets().wrap(b"", "rewrap")))
    click.echo(f"The transit key has version {newest}.", err=True)
    with database.connected():
        done = _rewrapped(newest)
        factors = second_factor.rewrap_all()
        with database.transaction():
            audit.append("rotate_key", "system", "", version=newest, rewrapped=done.values)
    click.echo(f"Wrapped by version {newest}: {done.values} values, {factors} second factors.")
    if done.behind:
        click.echo(f"{done.behind} values are not in OpenBao as the database names them.", err=True)
        sys.exit(1)


@command.command()
def collect() -> None:
    """Destroy what OpenBao holds and no row names, once; the daemon does this by itself."""
    _connect()
    with database.connected():
        found = secret_collector.collect()
    click.echo(f"Deleted: {found.paths} paths. Destroyed: {found.versions} versions.")


def _check_values(configuration: Configuration) -> None:
    """Look for the values that were written last; on another machine there may be no database."""
    address = read_database_url(configuration.database_url)
    if address.dialect == "sqlite" and not Path(address.name).is_file():
        click.echo(f"Which values it must hold cannot be seen: there is no {address.name}.")
        return
    _connect()
    with database.connected():
        seen = secret_presence.look()
    if seen.fault is not None:
        click.echo(f"FAIL  {seen.fault}")
        click.echo(f"      {secret_presence.HINT}")
        sys.exit(1)
    click.echo(f"It holds the {seen.looked_for} values that were written last.")


def _rewrapped(newest: int) -> Rewrapped:
    """Run until there is nothing left: a value that was written meanwhile may have the old key."""
    done = Rewrapped()
    for _ in range(MOST_RUNS):
        last = secret_rewrap.rewrap_all(newest, _tell)
        done = Rewrapped(values=done.values + last.values, behind=last.behind)
        if not last.values:
            break
    click.echo("", err=True)
    return done


def _tell(done: Rewrapped) -> None:
    click.echo(f"\r{done.values} values", nl=False, err=True)


def _as_operator(work: Callable[[hvac.Client, Server], _R]) -> _R:
    """What `work` returns, with the token of OPENBAO_TOKEN: the scheduler's own may not do this."""
    configuration = Configuration.read()
    if not configuration.openbao_token:
        raise ConfigurationError(
            "OPENBAO_TOKEN is not set: this takes a token of an operator or an administrator.",
            hint="Export it for this command alone; the server does without.",
        )
    server = openbao_checks.checked_server(configuration)
    openbao_checks.check_health(server)
    client = server.client(configuration.openbao_token)
    try:
        return work(client, server)
    except TokenLost:
        raise ConfigurationError(
            "OpenBao refuses OPENBAO_TOKEN, or its policy does not allow this.",
            hint="`secrets set-up` takes an administrator's; the others one with the policy "
            "airavata-operator.",
        ) from None
    finally:
        client.adapter.close()


def _connect() -> None:
    configuration = Configuration.read()
    start_checks.open_database(configuration)
    openbao.configure(configuration)
