"""Families 1 to 17: paths, as agents upload them and as users ask for them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.api import Answered
from tests.bad_input.case import Case
from tests.bad_input.world import World
from tests.wire_agent import digest_header

DATA = b"1,2\n"
_UPLOAD = "agent PUT /leases/{lease}/artifacts"


def _kept(path: str) -> Any:
    """What must hold for a path that is taken: it is one file under exactly this name."""

    def holds(world: World, answer: Answered) -> None:
        assert answer.json == {"size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
        folder = world.api.config.storage_path / "artifacts"
        found = [file for file in folder.rglob("*") if str(file).endswith(f"/{path}")]
        assert len(found) == 1
        assert found[0].read_bytes() == DATA

    return holds


def _upload(family: int, name: str, path: str, **rest: Any) -> Case:
    refusal = {"code": "path_invalid", "field": "path"}
    return Case(
        family=family,
        name=f"upload: {name}",
        send=_UPLOAD,
        query={"output": "RESULT", "path": path},
        data=DATA,
        headers={"Content-Digest": digest_header(DATA)},
        **{**refusal, **rest},
    )


def _kept_upload(family: int, name: str, path: str) -> Case:
    return _upload(family, name, path, code=None, field=None, status=201, holds=_kept(path))


def _files(family: int, name: str, path: str, field: str, code: str) -> Case:
    """A document that names a file of the user's machine, sent as JSON past the client."""
    document = {"name": "x", "command": "true", "files": [path]}
    return Case(
        family=family,
        name=f"files: {name}",
        send="ada POST /experiments",
        json={
            "project": "spine",
            "document": document,
            "files": {path: {"sha256": "0" * 64, "size": 1}},
        },
        code=code,
        field=field,
    )


def _staged(family: int, name: str, entry: str, code: str) -> Case:
    return Case(
        family=family,
        name=f"staged: {name}",
        send="ada POST /experiments",
        json={
            "project": "spine",
            "document": json.dumps(
                {"name": "x", "command": "true", "resources": {"storage": [entry]}}
            ),
            "format": "json",
        },
        code=code,
        field="resources.storage[0]",
    )


def _location(family: int, name: str, path: str, code: str = "folder_unusable") -> Case:
    return Case(
        family=family,
        name=f"storage resource: {name}",
        send="root POST /storage-resources",
        json={"name": "data", "kind": "NFS", "location": {"path": path}},
        code=code,
        field="location.path",
    )


CASES = (
    _upload(1, "two dots", "../x"),
    _upload(1, "two dots within", "a/../../x"),
    _upload(1, "only two dots", ".."),
    _upload(1, "a dot", "./x"),
    _files(1, "two dots", "../up.py", "files[0]", "path_traversal"),
    _staged(1, "destination", "default:/x:../x", "path_traversal"),
    _staged(1, "source", "default:/../x:./x", "path_traversal"),
    Case(family=1, name="address of a project", send="ada GET /projects/..%2f..%2fetc",
         status=404, code="no_route"),
    Case(family=1, name="address of a blob", send="agent GET /blobs/..%2f..%2fetc?lease={lease}",
         status=404, code="no_route"),
    _upload(2, "absolute", "/etc/passwd"),
    _upload(2, "doubled slash", "//etc/passwd"),
    _upload(2, "slash at the end", "x/"),
    _files(2, "absolute", "/etc/passwd", "files[0]", "path_absolute"),
    _files(2, "home", "~/.ssh/id_rsa", "files[0]", "path_absolute"),
    _staged(2, "destination", "default:/x:/etc/cron.d/x", "path_absolute"),
    _kept_upload(3, "encoded", "..%2fx"),
    _kept_upload(3, "encoded twice", "%252e%252e%252fx"),
    _files(3, "encoded", "..%2fup.py", "files[0]", "path_encoded"),
    _files(3, "encoded twice", "..%252fup.py", "files[0]", "path_encoded"),
    _upload(4, "NUL", "a\0b", code="nul"),
    Case(family=4, name="NUL in a path", send="ada GET /projects/a%00b", status=404,
         code="project_not_found"),
    Case(family=4, name="NUL in a query", send="ada GET /experiments?q=a%00b", code="nul",
         field="q"),
    _upload(5, "newline", "a\nb"),
    _upload(5, "carriage return", "a\rb"),
    _upload(5, "escape sequence", "\x1b[31mred"),
    _upload(5, "C1 control", "a\x9bb"),
    _upload(5, "line separator", "a\u2028b"),
    _files(5, "newline", "a\nb.py", "files[0]", "path_control"),
    _files(5, "turned around", "a\u202eyp.exe", "files[0]", "path_control"),
    _upload(6, "a name of 256 bytes", "x" * 256),
    _upload(6, "a name of 128 two-byte letters", "é" * 128),
    _upload(6, "a path of 2,001 characters", "a/" * 1000 + "b", code="invalid_string_too_long"),
    _upload(6, "a path of 3,048 bytes", "é/" * 950 + "é" * 99),
    _files(6, "a name of 256 bytes", "x" * 256, "files[0]", "path_too_long"),
    _kept_upload(6, "a name of 255 bytes", "y" * 255),
    _kept_upload(7, "composed", "caf\u00e9.csv"),
    _kept_upload(7, "decomposed", "cafe\u0301.csv"),
    _files(7, "decomposed", "cafe\u0301.py", "files[0]", "path_not_nfc"),
    _upload(8, "full-width slash", "a\uff0f..\uff0fb"),
    _upload(8, "one-dot leaders", "\u2024\u2024"),
    _upload(8, "two-dot leader", "\u2025"),
    _upload(8, "full-width dots", "\uff0e\uff0e"),
    _files(8, "full-width slash", "\uff0fetc\uff0fpasswd", "files[0]", "path_traversal"),
    _kept_upload(9, "lower case", "twin.csv"),
    _kept_upload(9, "upper case", "TWIN.csv"),
    _kept_upload(10, "an option", "-rf"),
    _kept_upload(10, "a long option", "--checkpoint-action=exec=sh"),
    _staged(17, "the server's environment", "file:/proc/self/environ:./x", "bad_storage_entry"),
    _files(17, "the environment", "/proc/self/environ", "files[0]", "path_absolute"),
    _location(17, "the kernel's files", "/proc/self"),
    _location(17, "devices", "/dev"),
    _location(17, "the system's settings", "/sys/kernel"),
    _location(6, "a folder's name of 300 bytes", "/" + "x" * 300),
    _location(6, "a path of 4,096 bytes", "/x" * 2048),
    _location(5, "newline", "/tmp/a\nb", "bad_input"),
    _location(1, "two dots", "/tmp/../etc", "bad_input"),
    _location(2, "the root", "/", "bad_input"),
)  # fmt: skip
