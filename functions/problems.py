"""Every error leaves as an RFC 9457 problem: a stable `code`, a cause and the next step."""

from __future__ import annotations

import difflib
import math
import typing
from http import HTTPStatus
from typing import Any, NoReturn

import structlog
from flask import Flask, Response, g, jsonify, request
from flask_limiter import RateLimitExceeded
from peewee import InterfaceError, OperationalError
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import HTTPException

from airavata_scheduler.models.errors import (
    AiravataError,
    BadInput,
    FieldError,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from airavata_scheduler.models.faults import MAX_FAULTS, shown_key

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:airavata:problem:"  # a name, not an address: it never goes stale
RETRY_AFTER_S = 2  # where something is away and nobody knows for how long

_log = structlog.get_logger("airavata_scheduler.problems")


class ProblemError(BaseModel):
    """One fault among several."""

    field: str
    code: str
    detail: str


class Problem(BaseModel):
    """What every error answer looks like (RFC 9457)."""

    type: str = Field(description=f"{TYPE_PREFIX}<code>")
    title: str = Field(description="The status in words")
    status: int
    detail: str = Field(description="The cause, in a sentence")
    code: str = Field(description="Stable, for programs")
    field: str | None = Field(None, description="The field that is wrong")
    hint: str | None = Field(None, description="The next step")
    errors: list[ProblemError] | None = None
    request_id: str = Field(description="Also in the header X-Request-Id and in the server's log")


def document(error: AiravataError) -> dict[str, Any]:
    """The problem document of `error`; members without a value are left out."""
    members: dict[str, Any] = {
        "type": TYPE_PREFIX + error.code,
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "field": error.field,
        "hint": error.hint,
        "errors": [vars(fault) for fault in error.errors] or None,
        "request_id": g.get("request_id", ""),
    }
    return {name: value for name, value in members.items() if value is not None}


def answer(error: AiravataError) -> Response:
    """`error` as a response with its status, media type and `Retry-After`."""
    response = jsonify(document(error))
    response.status_code = error.status
    response.mimetype = MEDIA_TYPE
    retry_after_s = error.retry_after_s
    if retry_after_s is None and isinstance(error, Unavailable):
        retry_after_s = RETRY_AFTER_S
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = 'Bearer realm="airavata"'
    g.problem_code = error.code
    return response


def invalid(error: ValidationError) -> AiravataError:
    """A pydantic error as one BadInput that lists every fault."""
    model = _models.get(error.title)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # A misspelt name shows as unknown and as missing: the unknown one holds the advice.
    found.sort(key=lambda item: item["type"] != "extra_forbidden")
    # Nobody mends more at once, and an answer must not outgrow its request.
    faults = [_fault(item, model) for item in found[:MAX_FAULTS]]
    first = faults[0]
    detail = first.detail if len(found) == 1 else f"{first.detail} And {len(found) - 1} more."
    return BadInput(detail, code=first.code, field=first.field, errors=faults)


def _fault(item: Any, model: type[BaseModel] | None) -> FieldError:
    field = _path(item["loc"])
    if item["type"] == "extra_forbidden":
        return _unknown_field(field, item["loc"], model)
    if item["type"] == "missing":
        return FieldError(field=field, code="missing_field", detail=f"{field} is missing.")
    sentence = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
    return FieldError(field=field, code=f"invalid_{item['type']}", detail=f"{field}: {sentence}.")


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        name = f"[{part}]" if isinstance(part, int) else shown_key(part)
        text += f".{name}" if text and isinstance(part, str) else name
    return text


def _unknown_field(
    field: str, location: tuple[int | str, ...], model: type[BaseModel] | None
) -> FieldError:
    """Advice from the names that the object in which the field stands does know."""
    for part in location[:-1]:
        model = _model_below(model, part)
    known = sorted(_names(model)) if model is not None else []
    near = difflib.get_close_matches(str(location[-1])[:64], known, n=1, cutoff=0.6)
    advice = ""
    if near:
        advice = f" Did you mean {near[0]}?"
    elif known:
        advice = f" Known: {', '.join(known)}."
    return FieldError(field=field, code="unknown_field", detail=f"{field} is unknown.{advice}")


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_below(model: type[BaseModel] | None, part: int | str) -> type[BaseModel] | None:
    """The model of the member `part`; positions in a list lead to the model itself."""
    if model is None or isinstance(part, int):
        return model
    field = model.model_fields.get(part)
    return _model_in(field.annotation) if field is not None else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


_models: dict[str, type[BaseModel]] = {}


def remember_model(model: type[BaseModel]) -> None:
    """Let errors of `model` name its fields; `shapes.Body` and `shapes.Query` call this.

    Raises TypeError for a second model of the same name: a pydantic error tells only the name, and
    the OpenAPI document has one place for each.
    """
    known = _models.setdefault(model.__name__, model)
    if (known.__module__, known.__qualname__) != (model.__module__, model.__qualname__):
        raise TypeError(f"{model.__name__} is a model of {known.__module__} already")


def raise_invalid(error: ValidationError) -> NoReturn:
    """For flask-openapi3, which would make a response of its own from a faulty request."""
    raise invalid(error) from None


def _from_http(error: HTTPException) -> AiravataError:
    status = error.code or 500
    if status == 404:
        return _problem(404, "no_route", f"There is no such address: {request.path[:200]}")
    if status == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        detail = f"{request.method[:20]} is not possible here. Possible: {allowed or 'nothing'}."
        return _problem(405, "method_not_allowed", detail)
    code = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    return _problem(status, code, error.description or HTTPStatus(status).phrase)


def _problem(status: int, code: str, detail: str) -> AiravataError:
    problem = AiravataError(detail, code=code)
    problem.status = status
    return problem


def register(app: Flask) -> None:
    """Install the error handlers on `app`."""

    @app.errorhandler(AiravataError)
    def known(error: AiravataError) -> Response:
        return answer(error)

    @app.errorhandler(ValidationError)
    def not_valid(error: ValidationError) -> Response:
        return answer(invalid(error))

    @app.errorhandler(RateLimitExceeded)
    def too_many(error: RateLimitExceeded) -> Response:
        return answer(
            RateLimited(
                f"More than {error.limit.limit} requests.",
                hint="Wait for the seconds in Retry-After.",
            )
        )

    @app.errorhandler(HTTPException)
    def by_werkzeug(error: HTTPException) -> Response:
        response = answer(_from_http(error))
        for name, value in error.get_headers():
            if name.lower() in ("allow", "retry-after", "content-range"):
                response.headers[name] = value
        return response

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    def database_away(error: Exception) -> Response:
        _log.error("database.unavailable", error=str(error)[:500])
        return answer(
            Unavailable(
                "The database cannot be reached now.",
                code="database_unavailable",
                hint="Try again; the server keeps trying too.",
            )
        )

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        _log.error("request.failed", exc_info=error)
        return answer(
            AiravataError(
                "The server met an error of its own.",
                hint="Tell the operator the request_id: the server's log has the cause.",
            )
        )
