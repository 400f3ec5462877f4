"""What must hold before a process starts: each failure is one sentence with the next step."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from airavata_scheduler.backends import openbao_checks
from airavata_scheduler.models import database, migrations
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import ConfigurationError


def open_database(configuration: Configuration) -> None:
    """Connect to the database and check that its schema is the code's.

    Raises ConfigurationError where the address is malformed, Unavailable where nothing answers.
    """
    database.connect(configuration.database_url)
    migrations.check()


def check_permissions(configuration: Configuration) -> None:
    """Raise ConfigurationError unless the settings say how to ask SpiceDB.

    Whether it answers is not a matter of the start: agents and running tasks do without it.
    """
    if not configuration.spicedb_token:
        raise ConfigurationError(
            "SPICEDB_TOKEN is not set.",
            hint="Set it to SpiceDB's preshared key, and SPICEDB_ENDPOINT to its host:port.",
        )
    ca_file = configuration.spicedb_ca_file
    if ca_file is not None and not os.access(ca_file, os.R_OK):
        raise ConfigurationError(f"SPICEDB_CA_FILE {ca_file} cannot be read.")


def check_secrets(configuration: Configuration) -> None:
    """Raise ConfigurationError unless OpenBao takes our login and has what we need.

    That it is away or sealed is not a matter of the start, and is only said.
    """
    for fault in openbao_checks.look(configuration).faults:
        if fault.stops:
            raise ConfigurationError(fault.detail, hint=fault.hint)
        click.echo(f"Warning: {fault.detail} {fault.hint}", err=True)


def check_storage(configuration: Configuration) -> None:
    """Raise ConfigurationError unless STORAGE_PATH is a folder that this process can write."""
    folder = configuration.storage_path
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"STORAGE_PATH {folder} cannot be made: {error.strerror}.",
            hint="Set STORAGE_PATH to a folder that this user can write.",
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"STORAGE_PATH {folder} cannot be written by this user.",
            hint="Change its owner, or set STORAGE_PATH to another folder.",
        )


def check_port_is_free(host: str, port: int) -> None:
    """Raise ConfigurationError where another program listens on `host:port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"SERVER_PORT {port} on {host} cannot be bound: {error.strerror}.",
                hint="Stop the program that listens there, or set SERVER_PORT to another port.",
            ) from None


def check_tls_files(configuration: Configuration) -> None:
    """Raise ConfigurationError where a TLS file is named that cannot be read."""
    named: list[tuple[str, Path | None]] = [
        ("TLS_CERT_FILE", configuration.tls_cert_file),
        ("TLS_KEY_FILE", configuration.tls_key_file),
        ("AGENT_CA_FILE", configuration.agent_ca_file),
        ("AGENT_CERT_FILE", configuration.agent_cert_file),
    ]
    for name, path in named:
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigurationError(f"{name} {path} cannot be read.")
