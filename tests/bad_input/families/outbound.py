"""Families 66 to 68: addresses that the scheduler would connect to for a user."""

from __future__ import annotations

from tests.bad_input.case import Case

INSIDE = (
    "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x",
    "https://0x7f.1", "https://2130706433", "https://127.1", "https://0177.0.0.1",
    "https://user:pw@host", "https://host/?q=1", "https://host/#x", "https://ho st",
    "https://host\\@evil.example", "https://[::1", "https://\u24d7ost", "https://host\r\nX: y",
    "javascript:alert(1)", "//host",
)  # fmt: skip
OPTIONS = (
    "ssh://-oProxyCommand=id", "ssh://host -oProxyCommand=id", "ssh://host/;id", "ssh://host:22/x",
    "ssh://me@host", "ssh://host:0", "ssh://host:99999",
)  # fmt: skip


def _endpoint(family: int, address: str) -> Case:
    line = "\n" in address or "\r" in address
    return Case(
        family=family,
        name=f"endpoint {address!r}",
        send="root POST /compute-resources",
        json={"name": "c", "kind": "SLURM", "endpoint": address},
        code="invalid_string_pattern_mismatch" if line else "invalid_endpoint",
        field="endpoint",
    )


CASES = (
    *(_endpoint(66, address) for address in INSIDE),
    *(_endpoint(67, address) for address in OPTIONS),
    *(
        Case(family=66, name=f"login's way back {address!r}", send="nobody GET /auth/oidc/start",
             query={"redirect": address, "challenge": "x" * 43}, status=404, code="openid_off")
        for address in ("http://127.0.0.1@evil.example/", "file:///etc/passwd")
    ),
    *(
        Case(family=68, name=f"staged from {entry!r}", send="ada POST /experiments",
             json={"project": "spine", "document": {"name": "x", "command": "true",
                                                    "resources": {"storage": [entry]}}},
             code=code, field="resources.storage[0]")
        for entry, code in (
            ("s3:bucket/../other:./x", "path_traversal"),
            ("default:/a/../../b:./x", "path_traversal"),
            ("default:/a%2f..%2fb:./x", "path_encoded"),
            ("https://bucket.example/x:./x", "bad_storage_entry"),
            ("default:/a\\b:./x", "path_backslash"),
        )
    ),
)  # fmt: skip
