"""Identifiers and random tokens.

Ids are UUIDv7 (RFC 9562): the first 48 bits are milliseconds since the epoch, so new rows land
at the end of their index, and no sequence is shared by all. Ids are never secrets.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import uuid

LEASE_ID_BYTES = 16  # 128 random bits, as the protocol demands

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def new_id() -> str:
    """A UUIDv7 as 36 lower-case characters.

    The clock of this process orders ids only roughly; nothing decides by it.
    """
    return _uuid7(time.time_ns() // 1_000_000)


def new_ids(count: int) -> list[str]:
    """`count` UUIDv7 texts of the same millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    return [_uuid7(milliseconds) for _ in range(count)]


def _uuid7(milliseconds: int) -> str:
    random_bits = secrets.randbits(74)
    value = (milliseconds & (2**48 - 1)) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62) << 64
    value |= 0b10 << 62
    value |= random_bits & (2**62 - 1)
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
