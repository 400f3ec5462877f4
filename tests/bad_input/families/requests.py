"""Families 51 to 59 as far as the application decides: what HTTP itself is tried with gunicorn."""

from __future__ import annotations

from typing import Any

from tests.api import Answered
from tests.bad_input.case import Case
from tests.bad_input.world import World

_MANY = {f"nam{number}": 1 for number in range(20_000)}


def _has_no(*headers: str) -> Any:
    def holds(world: World, answer: Answered) -> None:
        del world
        assert [name for name in headers if name in answer.headers] == []

    return holds


def _is_still_there(world: World, answer: Answered) -> None:
    del answer
    assert world.ada.get("/projects/spine").status_code == 200


def _is_named_by_us(world: World, answer: Answered) -> None:
    del world
    assert answer.headers["X-Request-Id"].isalnum()


def _verdict_is(word: str, answer: Answered) -> None:
    assert [item["verdict"] for item in answer.json["items"]] == [word]


_CORS = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Set-Cookie")
_PREFLIGHT = {"Access-Control-Request-Method": "DELETE", "Origin": "https://evil.example"}

CASES = (
    *(
        Case(family=51, name=f"{name}: {value[:20]!r}", send="ada GET /projects/spine",
             headers={name: value}, status=200)
        for name, value in (
            ("Range", "bytes=0-" + "9" * 30), ("Range", "bytes=" + "9" * 5000 + "-"),
            ("If-None-Match", "\xff"), ("If-Modified-Since", "x"), ("Accept", "x/y;q=nan"),
            ("Accept-Encoding", "x;q=9e999"), ("Cookie", "a=b; =; \xff"), ("Host", "a b"),
            ("Host", "evil.example.org"), ("Content-Type", "application/json; charset=nope"),
            ("X-Forwarded-Host", "evil.example.org"), ("Content-Length", "0"),
        )
    ),
    Case(family=51, name="If-Match that never ends", send="ada PATCH /projects/spine",
         headers={"If-Match": "x" * 5000}, json={"description": "x"}, status=412,
         code="precondition_failed"),
    Case(family=51, name="an agent's session", send="agent POST /heartbeat", json={"seq": 1},
         headers={"X-Agent-Session": "x" * 8000}, status=404, code="session_unknown"),
    Case(family=54, name="forwarded for somebody", send="nobody GET /users/me",
         headers={"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1",
                  "Forwarded": "for=127.0.0.1"}, status=401, code="unauthenticated"),
    *(
        Case(family=55, name=f"{header}: DELETE", send="ada GET /projects/spine",
             headers={header: "DELETE"}, status=200, holds=_is_still_there)
        for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
    ),
    Case(family=55, name="_method in the query", send="ada GET /projects/spine?_method=DELETE",
         status=200, holds=_is_still_there),
    *(
        Case(family=55, name=method, send=f"ada {method} /projects/spine", status=405,
             code="method_not_allowed")
        for method in ("TRACE", "CONNECT", "PROPFIND", "FOO", "POST")
    ),
    Case(family=55, name="HEAD", send="ada HEAD /projects/spine", status=200),
    Case(family=55, name="OPTIONS without a token", send="nobody OPTIONS /projects/spine",
         status=200, holds=_has_no("ETag")),
    Case(family=55, name="GET of what changes", send="ada GET /experiments/{experiment}/cancel",
         status=405, code="method_not_allowed"),
    *(
        Case(family=58, name=f"request id {name}", send="ada GET /projects/spine",
             headers={"X-Request-Id": value}, status=200, holds=_is_named_by_us)
        for name, value in {"with an escape sequence": "a\x1b[31mbcdefg", "too long": "a" * 65,
                            "with a tab": "abc\tdefgh", "of two lines": "abc\\r\\ndefgh"}.items()
    ),
    Case(family=58, name="a failure's code", send="agent POST /reports",
         json={"items": [{"lease": "{lease}", "outcome": "failed",
                          "failure": {"code": "\x1b[31m\n", "message": "x"}}]}, status=200,
         holds=lambda world, answer: _verdict_is("invalid", answer)),
    *(
        Case(family=58, name=f"an output called {name}",
             send="agent PUT /leases/{lease}/artifacts",
             query={"output": text, "path": "r.csv"}, data=b"x",
             code="invalid_string_pattern_mismatch", field="output")
        for name, text in {"in red": "\x1b[31mR", "in two lines": "R\nS", "..": "../R"}.items()
    ),
    *(
        Case(family=59, name=f"origin {origin}", send="ada GET /projects/spine",
             headers={"Origin": origin}, status=200, holds=_has_no(*_CORS))
        for origin in ("null", "https://evil.example")
    ),
    Case(family=59, name="preflight", send="nobody OPTIONS /projects/spine", headers=_PREFLIGHT,
         status=200, holds=_has_no(*_CORS, "Access-Control-Allow-Methods")),
    Case(family=59, name="a token in a cookie", send="nobody GET /users/me",
         headers={"Cookie": "access_token=x; Authorization=Bearer x"}, status=401,
         code="unauthenticated"),
    Case(family=59, name="a form of another site", send="ada POST /projects", data=b"name=x",
         headers={"Content-Type": "text/plain", "Origin": "https://evil.example"}, status=415,
         code="unsupported_media_type", field="Content-Type"),
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
