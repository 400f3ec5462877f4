"""Canaries: secrets that tests plant, and the search for where they turn up again.

A canary is a word that stands nowhere else. Whoever uses one in a test lets the session's end look
for it: in the folders of the private servers (database files hold rows as they are), in what
processes were started with, and in whatever else a test names.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

PREFIX = "canary7Qx"
PLANTED = "planted-"  # how files are called into which a test itself writes one
WORD = PREFIX + secrets.token_hex(6)  # what all canaries of this session begin with
_CHUNK_BYTES = 8 * 2**20


def canary(name: str) -> str:
    """A secret for a test, recognisable as one of this session."""
    return WORD + name


def spellings(word: str = WORD) -> dict[bytes, str]:
    """How a canary may be written: the bytes to look for, and what that spelling is.

    Base64 shifts with the place of the word in what is encoded; its three shifts are all there.
    """
    found = {
        word.encode(): "in clear",
        word.encode().hex().encode(): "in hexadecimal",
        word.encode().hex().upper().encode(): "in hexadecimal",
        quote(word).encode(): "in clear",
        json.dumps(word)[1:-1].encode(): "in clear",
        word.encode("utf-16-le"): "in UTF-16",
    }
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + word.encode())
        # The first and last characters depend on the neighbours.
        found[encoded[4 if shift else 0 : -4]] = "in base64"
    return found


def leaks(paths: Iterable[Path], word: str = WORD) -> list[str]:
    """The files below `paths` in which `word` stands, a canary of this session, and how."""
    return [
        f"{file}: {how}"
        for path in paths
        for file in _files(path)
        for how in sorted(in_file(file, word))
    ]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (
            file
            for file in sorted(path.rglob("*"))
            if file.is_file()
            and not file.is_symlink()
            and not file.name.startswith(PLANTED)
            and _has_content(file)
        )


def _has_content(file: Path) -> bool:
    """Whether there is anything to read: a test of ours makes a file of 1 TiB that is one hole."""
    told = file.stat()
    return told.st_size <= _CHUNK_BYTES or told.st_blocks * 512 * 2 >= told.st_size


def in_file(file: Path, word: str = WORD) -> set[str]:
    """How a canary stands in a file, if it does; read in pieces that overlap."""
    found: set[str] = set()
    longest = max(map(len, spellings(word)))
    try:
        with file.open("rb") as opened:
            kept = b""
            while piece := opened.read(_CHUNK_BYTES):
                text = kept + piece
                found |= in_bytes(text, word)
                kept = text[-longest:]
    except FileNotFoundError:
        return set()  # a server's temporary file that is gone by now
    return found


def in_bytes(text: bytes, word: str = WORD) -> set[str]:
    """How a canary stands in some bytes, if it does."""
    return {how for spelt, how in spellings(word).items() if spelt in text}


def redis_contents(client: Any) -> bytes:
    """Every key of a Redis with its values, readable: not as DUMP has them, which packs them.

    The queue's library packs what it keeps as well; that is unpacked.
    """
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    lines: list[bytes] = []
    for key in client.scan_iter("*"):
        kind = client.type(key)
        if kind != b"none":  # it ended meanwhile
            lines += [key, *_flat(readers[kind](key))]
    return b"\n".join(lines)


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
        with suppress(zlib.error):
            yield zlib.decompress(value)
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _flat(pair)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _flat(part)


def in_processes(pids: Iterable[int], word: str = WORD) -> list[str]:
    """The processes whose command line or environment has a canary."""
    found = []
    for pid in pids:
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            found += [f"{name} of process {pid}: {how}" for how in in_bytes(text, word)]
    return found
