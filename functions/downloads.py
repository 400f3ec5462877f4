"""Stored bytes as an answer: ranges, conditions, a file name that no browser misreads.

The ETag is the SHA-256, so a client that has the bytes is told so, and a download that broke off is
resumed with `Range` and `If-Range`. One range is served; several are answered with the whole, as
RFC 9110 allows. Each answer holds a thread while it is sent; `streams.sending` limits how many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from flask import Response, request
from werkzeug.datastructures import Range
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from airavata_scheduler.backends import stores
from airavata_scheduler.functions import streams


def send(*, storage_id: str, key: str, sha256: str, size: int, filename: str) -> Response:
    """The stored object `key` as a download.

    Raises NotFound when the store does not have it, werkzeug's RequestedRangeNotSatisfiable, and
    Unavailable when too many downloads run.
    """
    response = Response(mimetype="application/octet-stream")
    response.set_etag(sha256)
    response.headers["Accept-Ranges"] = "bytes"
    # Whatever a task wrote is never shown as a page of ours.
    response.headers["Content-Disposition"] = disposition(filename)
    if sha256 in request.if_none_match or "*" in request.if_none_match.to_header():
        response.status_code = 304
        return response
    start, stop = _range(sha256, size)
    if (start, stop) != (0, size):
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    opened = stores.store(storage_id).open(key, start=start, stop=stop)
    response.content_length = opened.stop - opened.start
    if request.method == "HEAD":
        opened.close()
        return response
    try:
        response.response = streams.sending(opened)
    except BaseException:
        opened.close()
        raise
    return response


def attachment(chunks: Iterable[bytes], *, mimetype: str, filename: str) -> Response:
    """An answer that is made while it is sent, as a download called `filename`."""
    response = Response(streams.sending(chunks), mimetype=mimetype)
    response.headers["Content-Disposition"] = disposition(filename)
    return response


def disposition(filename: str) -> str:
    """A Content-Disposition (RFC 6266) that saves under `filename` and cannot be broken out of.

    Whatever is not plain ASCII goes into `filename*`; `filename` is what old programs see.
    """
    plain = re.sub(r"[^A-Za-z0-9._+=@-]", "_", filename)
    text = f'attachment; filename="{plain}"'
    if plain != filename:
        text += f"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
    return text


def _range(sha256: str, size: int) -> tuple[int, int]:
    """The asked half-open range; the whole where none is asked, or not one that we serve."""
    asked: Range | None = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return 0, size
    if request.if_range.etag is not None and request.if_range.etag != sha256:
        return 0, size
    if request.if_range.date is not None:
        return 0, size  # our files have no date that a client could know
    found = asked.range_for_length(size)
    if found is None or found[0] >= size:
        raise RequestedRangeNotSatisfiable(
            size, "bytes", f"The file has {size} bytes; ask for a range within it."
        )
    return found
