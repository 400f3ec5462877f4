"""`airavata-scheduler doctor`: each thing that the scheduler needs, and what to do about it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import redis

from airavata_scheduler.backends import openbao, openbao_checks, relay, secret_presence, spicedb
from airavata_scheduler.commands import start_checks
from airavata_scheduler.models import database, migrations
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database_url import read_database_url
from airavata_scheduler.models.errors import AiravataError

LEAST_FREE_BYTES = 500 * 2**20
_SIGNS = {"pass": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at, pass/warn/fail, what was seen, what to do."""

    name: str
    verdict: str
    seen: str
    fix: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(as_json: bool) -> None:
    """Check the configuration and every dependency; exit 1 where one fails."""
    findings = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{_SIGNS[finding.verdict]}  {finding.name}: {finding.seen}")
            if finding.fix:
                click.echo(f"      {finding.fix}")
    sys.exit(1 if any(finding.verdict == "fail" for finding in findings) else 0)


def examine() -> Iterator[Finding]:
    """Every check in turn; a configuration that cannot be read ends them."""
    try:
        configuration = Configuration.read()
    except AiravataError as error:
        yield _failed("configuration", error)
        return
    yield Finding(name="configuration", verdict="pass", seen="every setting can be read")
    yield _checked("JWT_SECRET_KEY", configuration.require_jwt_secret, "long enough")
    if configuration.has_sample_jwt_secret:
        yield Finding(
            name="JWT_SECRET_KEY",
            verdict="warn",
            seen="it is the deployment guide's sample",
            fix="Set your own: openssl rand -hex 32",
        )
    yield _checked("TLS", lambda: start_checks.check_tls_files(configuration), "files readable")
    stored = _database(configuration)
    yield stored
    yield _permissions(configuration)
    secrets = list(_secrets(configuration))
    yield from secrets
    if {finding.verdict for finding in (stored, *secrets)} == {"pass"}:
        yield _values(configuration)
    yield _redis(configuration)
    yield _checked(
        "storage",
        lambda: start_checks.check_storage(configuration),
        f"{configuration.storage_path} can be written",
    )
    yield _disk(configuration)


def _checked(name: str, check: Callable[[], None], seen: str) -> Finding:
    try:
        check()
    except AiravataError as error:
        return _failed(name, error)
    return Finding(name=name, verdict="pass", seen=seen)


def _failed(name: str, error: AiravataError) -> Finding:
    return Finding(name=name, verdict="fail", seen=error.detail, fix=error.hint or "")


def _database(configuration: Configuration) -> Finding:
    address = read_database_url(configuration.database_url)
    if address.dialect == "sqlite" and not Path(address.name).is_file():
        # Connecting would make the file: a doctor leaves nothing behind.
        return Finding(
            name="database",
            verdict="fail",
            seen=f"there is no SQLite file {address.name}",
            fix="Set DATABASE_URL, or make it here: airavata-scheduler db upgrade",
        )

    def check() -> None:
        database.connect(configuration.database_url)
        migrations.check()

    return _checked("database", check, "answers, and its schema is up to date")


def _permissions(configuration: Configuration) -> Finding:
    def check() -> None:
        start_checks.check_permissions(configuration)
        spicedb.configure(configuration)
        with database.connected():
            relay.check_marks(relay.read_marks(spicedb.spicedb()))

    return _checked("permissions", check, "SpiceDB holds our relationships")


def _secrets(configuration: Configuration) -> Iterator[Finding]:
    found = openbao_checks.look(configuration)
    for fault in found.faults:
        verdict = "fail" if fault.stops else "warn"
        yield Finding(name="secrets", verdict=verdict, seen=fault.detail, fix=fault.hint)
    if not found.faults:
        yield Finding(name="secrets", verdict="pass", seen=f"OpenBao's {found.seen}")


def _values(configuration: Configuration) -> Finding:
    try:
        openbao.configure(configuration)
        with database.connected():
            seen = secret_presence.look()
    except AiravataError as error:
        return _failed("secret values", error)
    if seen.fault is not None:
        return Finding(
            name="secret values", verdict="fail", seen=seen.fault, fix=secret_presence.HINT
        )
    told = f"OpenBao holds the newest {seen.looked_for}"
    return Finding(name="secret values", verdict="pass", seen=told)


def _redis(configuration: Configuration) -> Finding:
    try:
        with redis.Redis.from_url(
            configuration.redis_url, socket_connect_timeout=3, socket_timeout=3
        ) as connection:
            connection.ping()
    except redis.RedisError as error:
        return Finding(
            name="redis",
            verdict="warn",
            seen=f"does not answer ({type(error).__name__}); everything works, but slower",
            fix="Start Redis, or set REDIS_URL to one that runs.",
        )
    return Finding(name="redis", verdict="pass", seen="answers")


def _disk(configuration: Configuration) -> Finding:
    folder = configuration.storage_path
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        return Finding(
            name="disk",
            verdict="warn",
            seen=f"{free // 2**20} MiB free for artifacts",
            fix=f"Free space on the disk of {configuration.storage_path}.",
        )
    return Finding(name="disk", verdict="pass", seen=f"{free // 2**30} GiB free for artifacts")
