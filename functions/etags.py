"""ETags: an object's `version`, so that two editors never overwrite each other unseen."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request

from airavata_scheduler.models.errors import PreconditionFailed


def etagged(document: dict[str, Any], version: int, status: int = 200) -> Response:
    """`document` with its version as ETag; 304 without a body if the caller has it already."""
    response = jsonify(document)
    response.status_code = status
    response.set_etag(str(version))
    if request.method == "GET":
        response.make_conditional(request)  # in place
    return response


def check_if_match(version: int) -> None:
    """Raise PreconditionFailed if the request's If-Match names another version than `version`.

    A request without If-Match passes. The update itself must say `WHERE version = …` too, and
    call `lost_race()` if it changed no row.
    """
    wanted = request.if_match
    if wanted and str(version) not in wanted:
        raise lost_race()


def lost_race() -> PreconditionFailed:
    """The error for an object that was changed since it was read."""
    return PreconditionFailed(hint="Read it again, apply your change, and send the new ETag.")
