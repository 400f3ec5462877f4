"""Families 41 to 50: what is no text, no JSON, or more than it seems."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

from tests.api import Answered
from tests.bad_input.case import Case
from tests.bad_input.world import World
from tests.wire_agent import digest_header

_PACKED = {"Content-Encoding": "gzip"}
_MIB = 1 << 20


def _body(family: int, name: str, data: Any, **rest: Any) -> Case:
    return Case(family=family, name=name, send="ada POST /projects", data=data, **rest)


def _log(family: int, name: str, data: Any, headers: Mapping[str, str], **rest: Any) -> Case:
    """A chunk of a log, behind the six bytes that are there."""
    return Case(
        family=family,
        name=f"log: {name}",
        send="agent PATCH /leases/{lease}/log/stdout",
        data=data,
        headers={"Content-Type": "application/octet-stream", **headers},
        **rest,
    )


def _report(family: int, name: str, data: bytes, **rest: Any) -> Case:
    return Case(
        family=family, name=f"report: {name}", send="agent POST /reports", data=data, **rest
    )


def _document(family: int, name: str, text: str, code: str, field: str | None = None) -> Case:
    """A YAML text, sent past the command line."""
    return Case(
        family=family,
        name=f"document: {name}",
        send="ada POST /experiments",
        json={"project": "spine", "document": text},
        code=code,
        field=field,
    )


def _is_made(name: str) -> Any:
    def holds(world: World, answer: Answered) -> None:
        assert answer.json["name"] == name
        assert world.ada.get(f"/projects/{name}").json["name"] == name

    return holds


def _keeps(field: str, value: str) -> Any:
    """The text comes back as it was sent."""

    def holds(world: World, answer: Answered) -> None:
        shown = world.ada.get(f"/projects/{answer.json['name']}").json
        assert shown[field] == value

    return holds


def _verdict(word: str) -> Any:
    """Reports are judged one by one."""

    def holds(world: World, answer: Answered) -> None:
        del world
        assert [item["verdict"] for item in answer.json["items"]] == [word]

    return holds


_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{low}: &{low} [{','.join([f'*{high}'] * 9)}]\n"
    for high, low in zip("abcdefgh", "bcdefghi", strict=True)
)

CASES = (
    _body(41, "in a value", b'{"name": "\\ud800"}', code="lone_surrogate", field="name"),
    _body(41, "in a key", b'{"name": "x", "\\udc00": 1}', code="lone_surrogate"),
    _body(41, "the wrong way round", b'{"name": "\\ude00\\ud83d"}', code="lone_surrogate",
          field="name"),
    _body(41, "written as three bytes", b'{"name": "\xed\xa0\x80"}', status=400, code="bad_json"),
    Case(family=41, name="in an address", send="ada GET /projects/%ed%a0%80", status=404,
         code="project_not_found"),
    Case(family=41, name="in a document", send="ada POST /experiments",
         data=b'{"project": "spine", "document": {"name": "\\ud83d", "command": "true"}}',
         code="lone_surrogate", field="document.name"),
    _report(41, "in a failure's words",
            b'{"items": [{"lease": "x", "outcome": "failed", "failure": {"message": "\\ud800"}}]}',
            status=200, holds=_verdict("gone")),
    _body(42, "in a value", b'{"name": "x", "description": "a\\u0000b"}', code="nul",
          field="description"),
    _body(42, "in a key", b'{"a\\u0000b": 1}', code="nul", field="a\\u0000b"),
    _body(42, "as a byte", b'{"name": "a\x00"}', status=400, code="bad_json", field="name"),
    _document(42, "NUL", "name: \"a\\0b\"\ncommand: 'true'\n", "nul_character", "document"),
    Case(family=42, name="of an agent's host", send="agent POST /heartbeat",
         data=b'{"seq": 1000, "unresolved_claims": ["\\u0000"]}', code="nul",
         field="unresolved_claims[0]"),
    _body(43, "invalid UTF-8", b'{"name": "\xff"}', status=400, code="bad_json"),
    _body(43, "overlong", b'{"name": "\xc0\xaf"}', status=400, code="bad_json"),
    _body(43, "cut off", '{"name": "é"}'.encode()[:11], status=400, code="bad_json"),
    _body(43, "byte order mark", b'\xef\xbb\xbf{"name": "x"}', status=400, code="bad_json"),
    _body(43, "UTF-16", '{"name": "x"}'.encode("utf-16"), status=400, code="bad_json"),
    _body(43, "UTF-16 that says so", '{"name": "x"}'.encode("utf-16-le"), status=400,
          code="bad_json", headers={"Content-Type": "application/json; charset=utf-16"}),
    _body(43, "UTF-32", '{"name": "x"}'.encode("utf-32"), status=400, code="bad_json"),
    _body(43, "a form", b"name=x", status=415, code="unsupported_media_type", field="Content-Type",
          headers={"Content-Type": "application/x-www-form-urlencoded"}),
    _body(44, "a key twice", b'{"name": "x", "name": "y"}', code="duplicate_key", field="name"),
    _body(44, "a key twice, once escaped", b'{"name": "x", "n\\u0061me": "y"}',
          code="duplicate_key", field="name"),
    _body(44, "a key twice below", b'{"limits": [{"a": 1}, {"b": 1, "b": 2}]}',
          code="duplicate_key", field="limits[1].b"),
    _report(44, "the items twice", b'{"items": [], "items": [1]}', code="duplicate_key",
            field="items"),
    _report(44, "an outcome twice, beside a NaN",
            b'{"items": [{"age_s": NaN, "outcome": "failed", "outcome": "completed"}]}',
            code="duplicate_key"),
    _document(44, "a key twice", "name: x\ncommand: a\ncommand: b\n", "duplicate_key", "document"),
    *(
        _body(45, f"{depth} levels of {what}", opened * depth + b"1" + closed * depth,
              code="too_deep")
        for depth in (65, 1_100, 100_000)
        for what, opened, closed in (("lists", b"[", b"]"), ("objects", b'{"a":', b"}"))
    ),
    _body(45, "levels that never end", b'{"a":' + b"[" * 500_000, code="too_deep"),
    _report(45, "100,000 levels", b'{"items": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            status=400, code="bad_json"),
    _document(45, "1,100 levels", "a: " + "[" * 1_100 + "]" * 1_100 + "\n", "too_deep", "document"),
    _document(46, "nine times nine", _BOMB, "yaml_anchor", "document"),
    _document(46, "an alias alone", "name: x\ncommand: *a\n", "yaml_alias", "document"),
    _document(46, "a list within itself", "a: &a [*a]\n", "yaml_anchor", "document"),
    _document(46, "a merge key", "<<: {a: 1}\n", "yaml_merge", "document"),
    _document(47, "python", "name: !!python/object/apply:os.system [id]\n", "yaml_tag", "document"),
    _document(47, "python, other words", "!!python/name:os.system ''\n", "yaml_tag", "document"),
    _document(47, "an own tag", "name: !secret x\n", "yaml_tag", "document"),
    _document(47, "a tag's directive", "%TAG ! tag:x,2000:\n---\nname: x\n", "yaml_directive",
              "document"),
    _body(48, "trailing blank", b'{"name": "twin "}', field="name",
          code="invalid_string_pattern_mismatch"),
    Case(family=48, name="a name", send="ada POST /projects", json={"name": "twin"}, status=201,
         holds=_is_made("twin")),
    Case(family=48, name="the name in other letters", send="ada POST /projects",
         json={"name": "TWIN"}, status=201, holds=_is_made("TWIN")),
    *(
        Case(family=48, name=f"text: {name}", send="ada POST /projects",
             json={"name": f"text-{number}", "description": text}, status=201,
             holds=_keeps("description", text))
        for number, (name, text) in enumerate({
            "emoji": "😀 and 👨‍👩‍👧",
            "trailing blanks": "a  ",
            "sharp s": "Straße",
            "the longest": "😀" * 4000,
            "a formula": "=cmd|' /C calc'!A0",
        }.items())
    ),
    *(
        Case(family=49, name=f"user: {name}", send="root POST /users", json={"name": text},
             code="invalid_string_pattern_mismatch", field="name")
        for name, text in {
            "cyrillic a": "\u0430da", "full width": "\uff41da", "dotless i": "ad\u0131n",
            "joined": "ada\u200d", "turned around": "\u202eada", "combining": "ada\u0301",
            "capital": "Ada", "blank": "ada ",
        }.items()
    ),
    _body(49, "project with a cyrillic s", '{"name": "\u0455pine"}'.encode(),
          code="invalid_string_pattern_mismatch", field="name"),
    Case(family=49, name="function with a cyrillic e", send="ada POST /functions",
         json={"project": "spine", "name": "h\u0435at", "spec": {"command": "true"}},
         code="bad_name", field="name"),
    _body(50, "bomb", lambda: gzip.compress(b'{"name": "' + b"x" * (17 * _MIB) + b'"}'),
          headers=_PACKED, status=413, code="too_large"),
    _body(50, "cut off", gzip.compress(b'{"name": "x"}')[:-4], headers=_PACKED, status=400,
          code="bad_json"),
    _body(50, "not packed", b'{"name": "x"}', headers=_PACKED, status=400, code="bad_json"),
    _body(50, "packed twice", gzip.compress(gzip.compress(b'{"name": "x"}')), headers=_PACKED,
          status=400, code="bad_json"),
    _body(50, "packed, but does not say so", gzip.compress(b'{"name": "x"}'), status=400,
          code="bad_json"),
    _body(50, "a second member", gzip.compress(b'{"name": "m1"}') * 2, headers=_PACKED, status=400,
          code="bad_json"),
    _body(50, "garbage behind the end", gzip.compress(b'{"name": "m1"}') + b"garbage",
          headers=_PACKED, status=400, code="bad_json"),
    _body(50, "another encoding", b"x", headers={"Content-Encoding": "br"}, status=415,
          code="unsupported_media_type", field="Content-Encoding"),
    _body(50, "two encodings", b"x", headers={"Content-Encoding": "gzip, gzip"}, status=415,
          code="unsupported_media_type", field="Content-Encoding"),
    _log(50, "bomb", lambda: gzip.compress(b"x" * (17 * _MIB)),
         {**_PACKED, "Content-Range": f"bytes 6-{17 * _MIB + 5}/*",
          "Content-Digest": digest_header(b"x")}, status=413, code="too_large"),
    _log(50, "not packed", b"xy",
         {**_PACKED, "Content-Range": "bytes 6-7/*", "Content-Digest": digest_header(b"xy")},
         status=400, code="bad_json"),
    _log(50, "more than the range says", gzip.compress(b"x" * 100),
         {**_PACKED, "Content-Range": "bytes 6-7/*", "Content-Digest": digest_header(b"x" * 100)},
         code="range_mismatch", field="Content-Range"),
    _log(50, "the digest of the packed bytes", gzip.compress(b"x"),
         {**_PACKED, "Content-Range": "bytes 6-6/*",
          "Content-Digest": digest_header(gzip.compress(b"x"))}, code="digest_mismatch"),
    Case(family=50, name="upload: an encoding", send="agent PUT /leases/{lease}/artifacts",
         query={"output": "RESULT", "path": "packed.csv"}, data=gzip.compress(b"1,2\n"),
         headers={**_PACKED, "Content-Digest": digest_header(gzip.compress(b"1,2\n"))},
         status=415, code="unsupported_media_type", field="Content-Encoding"),
    Case(family=50, name="blob: an encoding",
         send="ada PUT /projects/spine/blobs/" + "0" * 64, data=gzip.compress(b"x"),
         headers=_PACKED, status=415, code="unsupported_media_type", field="Content-Encoding"),
    _document(50, "text of 5 MiB", json.dumps({"name": "x" * (5 * _MIB)}), "document_too_large",
              "document"),
)  # fmt: skip
