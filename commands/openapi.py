"""`airavata-scheduler openapi`: the HTTP API's description, without a server."""

from __future__ import annotations

import json

import click

from airavata_scheduler.functions import openapi
from airavata_scheduler.functions.app import create_app
from airavata_scheduler.models.configuration import Configuration

# Nothing is served and no token is signed: the description is the same under all settings.
_NO_SERVER = {"JWT_SECRET_KEY": "unused" * 6, "RATE_LIMIT_ENABLED": "false"}


@click.command("openapi")
def command() -> None:
    """Print the OpenAPI 3.1 description of the HTTP API (docs/openapi.json is made so)."""
    click.echo(json.dumps(document(), indent=1, ensure_ascii=False))


def document() -> dict[str, object]:
    """The description that a server of this version serves at /api/v1/openapi.json."""
    return openapi.document(create_app(Configuration.read(_NO_SERVER, dotenv=None)))
