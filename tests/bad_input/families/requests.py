"""Families 51 to 59 as far as the application decides: what HTTP itself is tried with gunicorn."""

from __future__ import annotations

from tests.bad_input.case import Case

_MANY = {f"nam{number}": 1 for number in range(20_000)}

CASES = (
    Case(family=58, name="escape sequence in a field's name", send="ada POST /projects",
         json={"name": "x", "a\x1b[31m\nb": 1}, code="unknown_field"),
    Case(family=58, name="a text that turns around as a field's name", send="ada POST /projects",
         json={"name": "x", "a\u202eb": 1}, code="unknown_field"),
    Case(family=58, name="control characters in an address",
         send="ada GET /projects/a%0d%0aSet-Cookie:x", status=404, code="project_not_found"),
    Case(family=58, name="control characters as a media type", send="ada POST /projects",
         data=b"x", headers={"Content-Type": "text/\x1b[31m"}, status=415,
         code="unsupported_media_type", field="Content-Type"),
    Case(family=57, name="a field's name of a megabyte", send="ada POST /projects",
         json={"name": "x", "n" * 1_000_000: 1}, code="unknown_field"),
    Case(family=57, name="20,000 unknown fields", send="ada POST /projects", json=_MANY,
         code="unknown_field"),
    Case(family=57, name="a name of four megabytes", send="ada POST /experiments",
         json={"project": "x" * 4_000_000, "document": {}}, status=404, code="project_not_found"),
    Case(family=57, name="a body beyond MAX_BODY_BYTES", send="ada POST /projects",
         data=lambda: b'{"name": "' + b"x" * (16 << 20) + b'"}', status=413, code="too_large"),
    Case(family=56, name="a parameter twice", send="ada GET /projects?limit=1&limit=2",
         code="duplicate_parameter", field="limit"),
    Case(family=56, name="another tenant's project second",
         send="ada GET /experiments?project=spine&project=bone", code="duplicate_parameter",
         field="project"),
    Case(family=56, name="a parameter twice, once encoded",
         send="ada GET /projects?limit=1&%6cimit=2", code="duplicate_parameter", field="limit"),
    Case(family=56, name="as an array", send="ada GET /projects?limit[]=1", code="unknown_field",
         field="limit[]"),
    Case(family=56, name="in the query of a body's request", send="ada POST /projects?name=y",
         json={"name": "polluted"}, status=201),
    Case(family=4, name="NUL in a parameter's name", send="ada GET /experiments?a%00b=1",
         code="nul"),
)  # fmt: skip
