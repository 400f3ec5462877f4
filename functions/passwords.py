"""Passwords: what is accepted, and how they are kept (Argon2id)."""

from __future__ import annotations

import threading
import unicodedata
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from airavata_scheduler.functions.common_passwords import is_common
from airavata_scheduler.models.errors import BadInput

MIN_CHARS: Final = 10
MAX_CHARS: Final = 256

# OWASP's first choice for Argon2id: 46 MiB, one pass, one lane; about 40 ms.
_hasher = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)
# Each hash takes 46 MiB: four at once bound what a flood of logins can take from the server.
_turns = threading.BoundedSemaphore(4)
# What is verified for a user who does not exist, so that the answer takes as long.
_NOBODY: Final = _hasher.hash("nobody has this password")


def check_policy(password: str, *, username: str, field: str = "password") -> None:
    """Raise BadInput `weak_password` unless `password` is one that we accept.

    10 to 256 characters, no rule about which; neither a known word with decoration, nor a walk over
    the keyboard, nor made of the user's name (NIST SP 800-63B, section 5.1.1.2).
    """
    folded = _normal(password).casefold()
    if len(password) < MIN_CHARS:
        raise _weak(f"A password has at least {MIN_CHARS} characters.", field)
    if len(password) > MAX_CHARS:
        raise _weak(f"A password has at most {MAX_CHARS} characters.", field)
    if is_common(folded):
        raise _weak("This password is among the first that anybody would try.", field)
    if username and username.casefold() in folded and len(folded) < len(username) + MIN_CHARS:
        raise _weak("The password must not be made of the user's name.", field)


def hashed(password: str) -> str:
    """The Argon2id hash of `password`, with its salt and cost, for `users.password_hash`."""
    with _turns:
        return _hasher.hash(_normal(password))


def matches(password: str, stored: str | None) -> bool:
    """Whether `password` is the one of `stored`; takes as long where nothing is stored."""
    with _turns:
        try:
            right = _hasher.verify(stored or _NOBODY, _normal(password))
        except (VerificationError, InvalidHashError):
            return False
    return right and stored is not None


def needs_rehash(stored: str) -> bool:
    """Whether `stored` was made with other costs than today's."""
    return _hasher.check_needs_rehash(stored)


def _normal(password: str) -> str:
    """One form for what keyboards spell in several: NFKC, as RFC 8265 asks."""
    return unicodedata.normalize("NFKC", password)


def _weak(detail: str, field: str) -> BadInput:
    return BadInput(
        detail, code="weak_password", field=field, hint="Three or four unrelated words do well."
    )
