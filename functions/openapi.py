"""The OpenAPI 3.1 document, generated from the views and the route table."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, current_app, jsonify, request
from flask_openapi3 import APIBlueprint, Info, OpenAPI

from airavata_scheduler.functions.agent_identity import SESSION_HEADER
from airavata_scheduler.functions.idempotency import HEADER
from airavata_scheduler.functions.openapi_answers import (
    ANSWERS,
    BYTES,
    MORE_PROBLEMS,
    PROBLEMS,
    Content,
)
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
_WRITES: Final = frozenset({"post", "put", "patch"})
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
            _complete_operation(item[method], method, path)
            _complete_answers(item[method]["responses"], f"{method.upper()} {path}")
    components = found.setdefault("components", {})
    components["securitySchemes"] = SECURITY_SCHEMES
    schemas = components.setdefault("schemas", {})
    models = dict.fromkeys(item for given in ANSWERS.values() for item in given.values())
    for model in (Problem, *models):
        if isinstance(model, type):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
    return found


def _complete_operation(operation: dict[str, Any], method: str, path: str) -> None:
    name = f"{method.upper()} {path}"
    rule = ROUTES[name]
    operation["security"] = [] if rule.who == "anyone" else [{rule.who: []}]
    if rule.checks:
        operation["x-permissions"] = [
            {"object": check.kind, "permission": check.permission} for check in rule.checks
        ]
    _add_path_parameters(operation, path)
    if rule.who == "agent":
        operation.setdefault("parameters", []).append(_SESSION)
    if name in _BODIES:
        operation["requestBody"] = {"required": True, "content": _BODIES[name]}
    if method == "post":
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)  # flask-openapi3's own form of it, which we never send
    for status, description in _possible(operation, rule, method, path).items():
        responses.setdefault(status, _problem(description))
    if operation.get("parameters"):
        responses["414"] = _TOO_LONG


def _possible(operation: dict[str, Any], rule: Rule, method: str, path: str) -> dict[str, str]:
    """The problems that rule, method and parameters tell, with a word to each."""
    possible = dict(_ALWAYS)
    if rule.who != "anyone":
        possible |= _WITH_TOKEN
    if method in _WRITES or operation.get("parameters") or "requestBody" in operation:
        possible |= _WITH_BODY
    if "{" in path or any(check.place for check in rule.checks):
        possible["404"] = "It does not exist, or you may not see it"
    if method != "get":
        possible["409"] = "The object's state does not allow it"
    if method in ("patch", "delete"):
        possible["412"] = "It was changed since you read it"
    return possible


def _complete_answers(responses: dict[str, Any], name: str) -> None:
    """What a view does not declare: its answers that are no model of its own, its own problems."""
    for status in MORE_PROBLEMS.get(name, ()):
        responses.setdefault(status, _problem(PROBLEMS[status]))
    for status, content in ANSWERS.get(name, {}).items():
        responses[status] = {"description": HTTPStatus(int(status)).phrase} | _content(content)


def _content(content: Content) -> dict[str, Any]:
    if content is None:
        return {}
    if isinstance(content, str):
        return {"content": {content: {"schema": {"type": "string"}}}}
    return {"content": {"application/json": {"schema": _reference(content.__name__)}}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _add_path_parameters(operation: dict[str, Any], path: str) -> None:
    """Those that no view declares, because it takes the object that the gate has found."""
    declared = {item["name"] for item in operation.get("parameters") or []}
    for name in re.findall(r"{(\w+)}", path):
        if name not in declared:
            operation.setdefault("parameters", []).append(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            )


def _problem(description: str) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": _reference("Problem")}}
    return {"description": description, "content": content}


_IDEMPOTENCY_KEY: Final = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "The same key again answers as the first time; creates once.",
    "schema": {"type": "string", "maxLength": 128},
}
_SESSION: Final = {
    "name": SESSION_HEADER,
    "in": "header",
    "required": False,
    "description": "The session that `POST /agent/v1/session` gave; most calls need it.",
    "schema": {"type": "string", "maxLength": 64},
}
_REPORTS: Final = {
    "type": "object",
    "required": ["items"],
    "properties": {
        "items": {"type": "array", "items": {"type": "object"}},
        "claim": {"type": ["object", "null"]},
    },
}
# What the HTTP server itself answers, before any of our code: no problem, but a page.
_TOO_LONG: Final = {
    "description": "The address is too long",
    "content": {"text/html": {"schema": {"type": "string"}}},
}
_RAW: Final = {BYTES: {"schema": {"type": "string", "format": "binary"}}}
# Bodies that the views read themselves: bytes, and reports that are judged one by one.
_BODIES: Final[dict[str, Any]] = {
    "PUT /api/v1/projects/{project}/blobs/{sha256}": _RAW,
    "PATCH /agent/v1/leases/{lease}/log/{stream}": _RAW,
    "PUT /agent/v1/leases/{lease}/artifacts": _RAW,
    "POST /agent/v1/reports": {"application/json": {"schema": _REPORTS}},
}
