"""Is it alive, is the database there, can it do its whole work? And the one line of text at `/`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from peewee import PeeweeException
from pydantic import BaseModel

from airavata_scheduler.backends import openbao, openbao_checks, relay
from airavata_scheduler.backends.openbao_http import SecretsRefused, SecretsUnavailable
from airavata_scheduler.backends.spicedb import PermissionsUnavailable, spicedb
from airavata_scheduler.functions import tokens
from airavata_scheduler.models import migrations
from airavata_scheduler.models.database import checked_connection, dialect
from airavata_scheduler.models.errors import AiravataError, Unavailable
from airavata_scheduler.queue import connection

api = APIBlueprint("health", __name__, abp_tags=[Tag(name="system")])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class DatabaseHealth(BaseModel):
    """The database answered a query."""

    status: Literal["ok"]
    database: str
    ms: float


class Dependency(BaseModel):
    """One thing that this server needs."""

    name: str
    status: Literal["ok", "degraded", "failed"]
    detail: str


class Readiness(BaseModel):
    """Every dependency; `degraded` still serves, only slower."""

    status: Literal["ok", "degraded", "failed"]
    dependencies: list[Dependency]


@api.get("/", doc_ui=False)
def front() -> Response:
    """Say what this is."""
    text = (
        "Airavata Scheduler. The API is below /api/v1, its description at /api/v1/openapi.json.\n"
    )
    return Response(text, mimetype="text/plain")


@api.get("/api/v1/health", responses={200: Health})
def health() -> dict[str, str]:
    """Say that the process answers; asks nothing else."""
    return {"status": "ok"}


@api.get("/api/v1/health/db", responses={200: DatabaseHealth})
def health_db() -> dict[str, Any]:
    """Ask the database one question."""
    started_s = time.perf_counter()
    try:
        checked_connection()
    except (AiravataError, PeeweeException):
        raise Unavailable(
            "The database does not answer.",
            code="database_unavailable",
            hint="See the server's log; check DATABASE_URL with: airavata-scheduler doctor",
            retry_after_s=5,
        ) from None
    ms = round((time.perf_counter() - started_s) * 1000, 1)
    return {"status": "ok", "database": dialect(), "ms": ms}


@api.get("/api/v1/health/ready", responses={200: Readiness, 503: Readiness})
def health_ready() -> tuple[dict[str, Any], int]:
    """Ask every dependency; 503 if this server cannot do its work."""
    dependencies = [_report(name, check) for name, check in CHECKS.items()]
    found = {item["status"] for item in dependencies}
    status = "failed" if "failed" in found else "degraded" if "degraded" in found else "ok"
    document = {"status": status, "dependencies": dependencies}
    return document, 503 if status == "failed" else 200


class _Degraded(Exception):
    """It works without this, only slower."""


def _report(name: str, check: Callable[[], str]) -> dict[str, str]:
    try:
        return {"name": name, "status": "ok", "detail": check()}
    except _Degraded as error:
        return {"name": name, "status": "degraded", "detail": str(error)}
    except (AiravataError, PeeweeException, OSError) as error:
        # The cause stays in the log: a driver's message may name hosts and accounts.
        return {"name": name, "status": "failed", "detail": type(error).__name__}


def _database() -> str:
    checked_connection()
    return dialect()


def _schema() -> str:
    migrations.check()
    return "up to date"


def _permissions() -> str:
    try:
        relay.check_marks(relay.read_marks(spicedb()))
    except PermissionsUnavailable as error:
        # Agents do not need it: taking this server out of service would stop their work as well.
        raise _Degraded(f"{error.detail} Users' requests answer 503; agents go on.") from None
    return "SpiceDB holds our relationships"


def _secrets() -> str:
    try:
        openbao_checks.check_now(openbao.secrets())
    except (SecretsUnavailable, SecretsRefused) as error:
        # Agents and running tasks do without it, and so do most requests.
        raise _Degraded(f"{error.detail} What needs a secret answers 503.") from None
    return "OpenBao takes our login"


def _redis() -> str:
    if not connection.is_up():
        raise _Degraded("Redis is away: wake-ups come by polling, limits are counted per process")
    return "answers"


def _storage() -> str:
    path = tokens.configuration().storage_path
    probe = path / ".health"
    probe.write_bytes(b"")
    probe.unlink()
    return "writable"


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "schema": _schema,
    "permissions": _permissions,
    "secrets": _secrets,
    "redis": _redis,
    "storage": _storage,
}
