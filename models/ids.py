"""Identifiers and random tokens.

Ids are UUIDv7 (RFC 9562): the first 48 bits are milliseconds since the epoch, so new rows land
at the end of their index, and no sequence is shared by all. Ids are never secrets.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
import uuid

LEASE_ID_BYTES = 16  # 128 random bits, as the protocol demands

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


_COUNTER_BITS = 26
_RANDOM_BITS = 48


class _Clock:
    """The last id's millisecond, and a counter of the ids within it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.millisecond = 0
        self.counter = 0

    def next(self) -> tuple[int, int]:
        """A pair that is greater than every one before it in this process."""
        with self.lock:
            now = time.time_ns() // 1_000_000
            if now > self.millisecond:
                # A random start leaves room to count, and keeps two processes apart.
                self.millisecond, self.counter = now, secrets.randbits(_COUNTER_BITS - 2)
            else:
                self.counter += 1
                if self.counter >> _COUNTER_BITS:
                    self.millisecond, self.counter = self.millisecond + 1, 0
            return self.millisecond, self.counter


_clock = _Clock()


def new_id() -> str:
    """A UUIDv7 as 36 lower-case characters, greater than every one that this process made before.

    So rows that one transaction writes keep their order by id. Across processes the clocks order
    ids only roughly; nothing decides by it.
    """
    return _uuid7(*_clock.next())


def new_ids(count: int) -> list[str]:
    """`count` UUIDv7 texts in ascending order."""
    return [new_id() for _ in range(count)]


def _uuid7(millisecond: int, counter: int) -> str:
    """RFC 9562, section 6.2, method 1: the counter stands in front of the random bits."""
    value = (millisecond & (2**48 - 1)) << 80
    value |= 0x7 << 76
    value |= (counter >> 14) << 64
    value |= 0b10 << 62
    value |= (counter & (2**14 - 1)) << _RANDOM_BITS
    value |= secrets.randbits(_RANDOM_BITS)
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return _ID.fullmatch(text) is not None


def new_lease_id() -> str:
    """128 random bits as 32 hexadecimal characters."""
    return secrets.token_hex(LEASE_ID_BYTES)


def new_secret(prefix: str = "") -> str:
    """A 256-bit secret as URL-safe text behind `prefix`, for tokens that people carry."""
    return prefix + secrets.token_urlsafe(32)


def secret_digest(secret: str) -> str:
    """The SHA-256 of a random secret, in hexadecimal: what is stored in its place.

    Only for secrets with 256 bits of randomness; passwords go through Argon2id.
    """
    return hashlib.sha256(secret.encode()).hexdigest()
