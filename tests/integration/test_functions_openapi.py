"""The OpenAPI document is what the application does."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import airavata_scheduler.functions.app as app_module
from airavata_scheduler.functions import access
from airavata_scheduler.functions.openapi_answers import ANSWERS, MORE_PROBLEMS
from airavata_scheduler.functions.route_table import ROUTES
from airavata_scheduler.models import database, migrations
from tests.api import Api, Caller, configuration

UNDOCUMENTED = {  # for people and programs that do not read JSON
    "GET /",
    "GET /metrics",
    "GET /bootstrap",
    "POST /bootstrap",
    "GET /install.sh",
    "GET /api/v1/openapi.json",
}
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def sqlite_api(sqlite_url: str, tmp_path: Path) -> Api:
    """The application on SQLite: the document is the same on every database."""
    database.connect(sqlite_url)
    migrations.upgrade()
    config = configuration(sqlite_url, tmp_path)
    app = app_module.create_app(config)
    return Api(app=app, config=config, nobody=Caller(client=app.test_client()))


@pytest.fixture
def document(sqlite_api: Api) -> dict[str, Any]:
    """The document as it is served."""
    answer = sqlite_api.nobody.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each operation by the name that the route table gives it."""
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def test_the_document_has_every_route_and_no_other(
    document: dict[str, Any], sqlite_api: Api
) -> None:
    """What the url map serves, less what is not for programs."""
    assert document["openapi"].startswith("3.1")
    assert set(operations(document)) == access.routes_of(sqlite_api.app) - UNDOCUMENTED


def test_each_operation_says_what_it_does(document: dict[str, Any]) -> None:
    """A summary, an answer of success, who may call it, and its problems."""
    lacking = []
    for name, operation in operations(document).items():
        statuses = set(operation["responses"])
        problems = [
            response
            for status, response in operation["responses"].items()
            if status[0] in "45" and "application/problem+json" in response.get("content", {})
        ]
        expected: list[dict[str, list[str]]] = (
            [] if ROUTES[name].who == "anyone" else [{ROUTES[name].who: []}]
        )
        if not operation.get("summary"):
            lacking.append((name, "summary"))
        if not any(status[0] in "23" for status in statuses):
            lacking.append((name, "an answer of success"))
        if not problems:
            lacking.append((name, "problems"))
        if operation["security"] != expected:
            lacking.append((name, "security"))
        if ROUTES[name].who != "anyone" and not {"401", "403"} <= statuses:
            lacking.append((name, "401 and 403"))

    assert lacking == []


def test_every_answer_is_described(document: dict[str, Any]) -> None:
    """Exact statuses, each with the media type of its body; success is not left open."""
    open_ended = [
        (name, status)
        for name, operation in operations(document).items()
        for status, response in operation["responses"].items()
        if not status.isdecimal()
        or ("content" not in response and int(status) not in (204, 302, 304))
    ]

    assert open_ended == []


def test_the_table_of_answers_names_operations(document: dict[str, Any]) -> None:
    """A route that is renamed takes its rows along."""
    assert set(ANSWERS) | set(MORE_PROBLEMS) <= set(operations(document))


def test_path_variables_are_parameters(document: dict[str, Any]) -> None:
    """Each variable of a path is declared once, as required."""
    for name, operation in operations(document).items():
        declared = [
            item["name"] for item in operation.get("parameters", []) if item["in"] == "path"
        ]
        assert sorted(declared) == sorted(
            part[1:-1] for part in name.split(" ")[1].split("/") if part.startswith("{")
        ), name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` is left hanging, and operation ids are unique."""
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    wanted = {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    ids = [operation["operationId"] for operation in operations(document).values()]

    assert wanted <= set(schemas)
    assert len(ids) == len(set(ids))


def test_no_two_models_share_a_name() -> None:
    """The document has one place for each name: a second model would hide the first."""
    found: dict[str, set[str]] = {}
    for file in Path(app_module.__file__).parent.glob("*.py"):
        if file.stem in ("wsgi", "gunicorn_config"):
            continue
        module = importlib.import_module(f"airavata_scheduler.functions.{file.stem}")
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, BaseModel):
                found.setdefault(name, set()).add(f"{value.__module__}.{value.__qualname__}")

    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_unknown_fields_are_forbidden_in_the_document_too(document: dict[str, Any]) -> None:
    """Generated clients learn that bodies are strict."""
    schemas = document["components"]["schemas"]

    assert schemas["NewProjectBody"]["additionalProperties"] is False
    assert set(schemas["Problem"]["required"]) >= {"type", "title", "status", "detail", "code"}


def test_the_document_is_cached_by_its_tag(sqlite_api: Api) -> None:
    """A client that has it gets 304."""
    tag = sqlite_api.nobody.get("/openapi.json").headers["ETag"]

    again = sqlite_api.nobody.get("/openapi.json", headers={"If-None-Match": tag})

    assert again.status_code == 304
