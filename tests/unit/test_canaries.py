"""The search for planted secrets finds them, however they are written."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.canaries import PLANTED, canary, in_bytes, in_processes, leaks


@pytest.mark.parametrize(
    "written",
    [
        canary("x").encode(),
        b"\0\xff" + canary("x").encode() + b"tail",
        canary("x").encode().hex().encode(),
        base64.b64encode(canary("x").encode()),
        base64.b64encode(b"a" + canary("x").encode() + b"z"),
        base64.b64encode(b"ab" + canary("x").encode() + b"zz"),
        canary("x").encode("utf-16-le"),
    ],
    ids=["clear", "amid", "hexadecimal", "base64", "base64-1", "base64-2", "utf-16"],
)
def test_a_canary_is_found(tmp_path: Path, written: bytes) -> None:
    """In clear, in hexadecimal, in base64 at each shift, in UTF-16."""
    file = tmp_path / f"{PLANTED}file"
    file.write_bytes(b"." * 1000 + written)

    assert leaks([file]) != []
    assert in_bytes(written)
    assert not in_bytes(b"nothing of the kind")


def test_a_canary_across_two_pieces_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read in pieces; none falls between them."""
    monkeypatch.setattr("tests.canaries._CHUNK_BYTES", 64)
    file = tmp_path / f"{PLANTED}file"
    file.write_bytes(b"." * 50 + canary("x").encode() + b"." * 200)

    assert leaks([file]) != []


def test_a_canary_in_an_environment_is_found() -> None:
    """And on a command line."""
    word = canary("x")
    script = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    sleeper = subprocess.Popen(
        [sys.executable, "-c", script, word],
        env={**os.environ, "A": word},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert sleeper.stdout is not None
    sleeper.stdout.read(1)

    found = in_processes([sleeper.pid])

    sleeper.communicate()
    assert [text.split(" of ")[0] for text in found] == ["cmdline", "environ"]
