"""`airavata-scheduler server`: the API, as gunicorn runs it."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import click

from airavata_scheduler.backends.stores import ensure_default_storage
from airavata_scheduler.commands import start_checks
from airavata_scheduler.commands.agent_file import cached_agent_file
from airavata_scheduler.models.configuration import Configuration

# A slow body or a long poll holds one thread, not one process: threads are what API_THREADS counts.
_GUNICORN = (
    "--worker-class=gthread",
    "--keep-alive=75",
    "--graceful-timeout=30",
    "--timeout=120",
    "--no-control-socket",
    "--config=python:airavata_scheduler.functions.gunicorn_config",
)

_MOST_FILES = 65_536
_OWN_FILES = 128  # logs, libraries, metrics: whatever the number of threads


@click.command("server")
def command() -> None:
    """Serve the API until SIGTERM (finishes running requests) or SIGINT."""
    configuration = Configuration.read()
    check(configuration)
    environment = dict(os.environ)
    environment["PROMETHEUS_MULTIPROC_DIR"] = _fresh_metrics_folder(configuration)
    if configuration.agent_file is None:
        environment["AGENT_FILE"] = str(cached_agent_file())
    if configuration.has_sample_jwt_secret:
        click.echo(
            "Warning: JWT_SECRET_KEY is the deployment guide's sample; set your own "
            "(openssl rand -hex 32) before anybody else can reach this server.",
            err=True,
        )
    arguments = gunicorn_arguments(configuration, _connections(configuration))
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606 - no shell


def check(configuration: Configuration) -> None:
    """Everything that can be wrong at the start, said before the first process is forked."""
    configuration.require_jwt_secret()
    start_checks.check_tls_files(configuration)
    start_checks.check_port_is_free(configuration.server_host, configuration.server_port)
    start_checks.check_storage(configuration)
    start_checks.check_permissions(configuration)
    start_checks.open_database(configuration)
    start_checks.check_secrets(configuration)
    ensure_default_storage(configuration)


def gunicorn_arguments(configuration: Configuration, connections: int) -> list[str]:
    """Gunicorn's command line behind the Python interpreter.

    Each process keeps up to `connections` open; every agent has one that is idle most of the time.
    """
    host = configuration.server_host
    bind = f"[{host}]" if ":" in host else host
    arguments = [
        "-m",
        "gunicorn",
        *_GUNICORN,
        f"--bind={bind}:{configuration.server_port}",
        f"--workers={configuration.api_workers}",
        f"--threads={configuration.api_threads}",
        f"--worker-connections={connections}",
        f"--log-level={configuration.log_level}",
    ]
    if Path("/dev/shm").is_dir():  # noqa: S108 - gunicorn's advice: heartbeats must not wait for disks
        arguments.append("--worker-tmp-dir=/dev/shm")
    if configuration.tls_cert_file is not None:
        arguments.append(f"--certfile={configuration.tls_cert_file}")
        arguments.append(f"--keyfile={configuration.tls_key_file}")
    return [*arguments, "airavata_scheduler.functions.wsgi:application"]


def _connections(configuration: Configuration) -> int:
    """How many connections a process may keep; lets it open as many files as it is allowed to.

    A process that runs out of files while it accepts ends, so it stops accepting before that.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if most == resource.RLIM_INFINITY else min(most, _MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    # A thread may have a file, a database and a Redis connection, and one to a server behind us.
    ours = _OWN_FILES + 4 * configuration.api_threads
    return max(configuration.api_threads + 1, min(configuration.api_connections, files - ours))


def _fresh_metrics_folder(configuration: Configuration) -> str:
    """An empty folder where the API's processes add up their counters.

    One name for each port and user, so that a killed server leaves one folder behind, not many.
    """
    name = f"airavata-metrics-{os.getuid()}-{configuration.server_port}"
    folder = Path(tempfile.gettempdir()) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return str(folder)
