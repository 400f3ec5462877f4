"""Canaries: secrets that tests plant, and the search for where they turn up again.

A canary is a word that stands nowhere else. Whoever uses one in a test lets the session's end look
for it: in the folders of the private servers (database files hold rows as they are), in what
processes were started with, and in whatever else a test names.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

PREFIX = "canary7Qx"
PLANTED = "planted-"  # how files are called into which a test itself writes one
_SESSION = secrets.token_hex(6)
_CHUNK_BYTES = 8 * 2**20


def canary(name: str) -> str:
    """A secret for a test, recognisable as one of this session."""
    return f"{PREFIX}{_SESSION}{name}"


def spellings() -> dict[bytes, str]:
    """How this session's canaries may be written: the bytes to look for, and what that spelling is.

    Base64 shifts with the place of the word in what is encoded; its three shifts are all there.
    """
    word = f"{PREFIX}{_SESSION}"
    found = {
        word.encode(): "in clear",
        word.encode().hex().encode(): "in hexadecimal",
        quote(word).encode(): "in clear",
        json.dumps(word)[1:-1].encode(): "in clear",
        word.encode("utf-16-le"): "in UTF-16",
    }
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + word.encode())
        # The first and last characters depend on the neighbours.
        found[encoded[4 if shift else 0 : -4]] = "in base64"
    return found


def leaks(paths: Iterable[Path]) -> list[str]:
    """The files below `paths` in which a canary of this session stands, and how."""
    return [f"{file}: {how}" for path in paths for file in _files(path) for how in in_file(file)]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not file.is_symlink() and not file.name.startswith(PLANTED)
        )


def in_file(file: Path) -> set[str]:
    """How a canary stands in a file, if it does; read in pieces that overlap."""
    found: set[str] = set()
    wanted = spellings()
    longest = max(map(len, wanted))
    try:
        with file.open("rb") as opened:
            kept = b""
            while piece := opened.read(_CHUNK_BYTES):
                text = kept + piece
                found |= in_bytes(text)
                kept = text[-longest:]
    except FileNotFoundError:
        return set()  # a server's temporary file that is gone by now
    return found


def in_bytes(text: bytes) -> set[str]:
    """How a canary stands in some bytes, if it does."""
    return {how for word, how in spellings().items() if word in text}


def in_processes(pids: Iterable[int]) -> list[str]:
    """The processes whose command line or environment has a canary."""
    found = []
    for pid in pids:
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            found += [f"{name} of process {pid}: {how}" for how in in_bytes(text)]
    return found
