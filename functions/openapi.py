"""The OpenAPI 3.1 document, generated from the views and the route table."""

from __future__ import annotations

import re
from typing import Any, Final

from flask import Flask, Response, current_app, jsonify, request
from flask_openapi3 import APIBlueprint, Info, OpenAPI

from airavata_scheduler.functions.idempotency import HEADER
from airavata_scheduler.functions.problems import MEDIA_TYPE, Problem
from airavata_scheduler.functions.route_table import ROUTES, Rule

INFO: Final = Info(
    title="Airavata Scheduler",
    version="1",
    description="Errors are RFC 9457 problems with a stable `code`. Lists have `items` and `next`.",
)
SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "user": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "agent": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}

# What every operation may answer, and what only those with a token, a body, or an object in the
# path.
_ALWAYS: Final = {"400": "Malformed", "429": "Too many requests", "500": "Our fault", "503": "Away"}
_WITH_TOKEN: Final = {"401": "Not logged in", "403": "Not allowed"}
_WITH_BODY: Final = {"413": "Too large", "415": "Not JSON", "422": "A value is wrong"}
_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})

api = APIBlueprint("openapi", __name__, doc_ui=False)


@api.get("/api/v1/openapi.json", doc_ui=False)
def openapi_json() -> Response:
    """Serve the document."""
    response = jsonify(document(current_app))
    response.headers["Cache-Control"] = "public, max-age=300"
    response.add_etag()
    response.make_conditional(request)  # in place
    return response


def document(app: Flask) -> dict[str, Any]:
    """The document of `app`; made at the first call and kept."""
    known: dict[str, Any] | None = app.extensions.get("airavata_openapi")
    if known is None:
        assert isinstance(app, OpenAPI)
        known = _complete(app.api_doc)
        app.extensions["airavata_openapi"] = known
    return known


def _complete(found: dict[str, Any]) -> dict[str, Any]:
    for path, item in found["paths"].items():
        for method in _METHODS & set(item):
            name = f"{method.upper()} {path}"
            _complete_operation(item[method], ROUTES[name], method, path)
    components = found.setdefault("components", {})
    components["securitySchemes"] = SECURITY_SCHEMES
    schemas = components.setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    return found


def _complete_operation(operation: dict[str, Any], rule: Rule, method: str, path: str) -> None:
    operation["security"] = [] if rule.who == "anyone" else [{rule.who: []}]
    if rule.checks:
        operation["x-permissions"] = [
            {"object": check.kind, "permission": check.permission} for check in rule.checks
        ]
    _add_path_parameters(operation, path)
    if method == "post":
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    possible = dict(_ALWAYS)
    if rule.who != "anyone":
        possible |= _WITH_TOKEN
    if method in ("post", "put", "patch") or operation.get("parameters"):
        possible |= _WITH_BODY
    if "{" in path or any(check.place for check in rule.checks):
        possible["404"] = "It does not exist, or you may not see it"
    if method != "get":
        possible["409"] = "The object's state does not allow it"
    if method in ("patch", "delete"):
        possible["412"] = "It was changed since you read it"
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)  # flask-openapi3's own form of it, which we never send
    if not any(status.startswith("2") for status in responses):
        # The view sends bytes, events, or a document that its own page describes.
        responses["2XX"] = {"description": "Success"}
    for status, description in possible.items():
        responses.setdefault(status, _problem(description))


def _add_path_parameters(operation: dict[str, Any], path: str) -> None:
    """Those that no view declares, because it takes the object that the gate has found."""
    declared = {item["name"] for item in operation.get("parameters") or []}
    for name in re.findall(r"{(\w+)}", path):
        if name not in declared:
            operation.setdefault("parameters", []).append(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            )


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


_IDEMPOTENCY_KEY: Final = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "The same key again answers as the first time; creates once.",
    "schema": {"type": "string", "maxLength": 128},
}
