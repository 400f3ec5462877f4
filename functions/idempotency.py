"""Creating exactly once: the `Idempotency-Key` of a POST.

The key's row is written in the same transaction as what is created. So a second request with the
same key, even at the same moment, waits for the first one's commit and then gets the first one's
answer; and when the first one fails or the process dies, nothing is left and the second one
creates.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.fernet import Fernet
from flask import g, request
from peewee import IntegrityError

from airavata_scheduler.functions import principals, tokens
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.tables import IdempotencyKey

HEADER = "Idempotency-Key"
MAX_KEY_CHARS = 128


@dataclass(frozen=True, kw_only=True)
class Created:
    """The answer of a creating request: the first one's document, also to a repeat."""

    document: dict[str, Any]
    replayed: bool


def create_once(make: Callable[[], dict[str, Any]], *, secret: bool = False) -> Created:
    """Run `make` in a transaction, and only the first time that the caller sends this key.

    `make` writes the rows and returns the JSON document of the answer. Wake-ups and anything else
    that must follow the commit belong after `create_once`. With `secret` the stored answer is
    encrypted, because it shows a token once. Without the header `make` just runs.
    Raises BadInput `idempotency_key_reused` if the key came with another request before.
    """
    key = _key()
    if key is None:
        with transaction():
            return Created(document=make(), replayed=False)
    principal = principals.current()
    digest = _request_hash()
    try:
        with transaction():
            _reserve(principal.id, key, digest)
            document = make()
            _store(principal.id, key, document, secret=secret)
            return Created(document=document, replayed=False)
    except _KeyTaken:
        return _replay(principal.id, key, digest, secret=secret)


class _KeyTaken(Exception):
    """The key's row exists."""


def _key() -> str | None:
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        raise BadInput(
            f"{HEADER} must be 1 to {MAX_KEY_CHARS} printable ASCII characters.",
            code="invalid_idempotency_key",
            field=HEADER,
        )
    return key


def _request_hash() -> str:
    """Keyed, for a body may hold a password: its plain hash would let one try words against it."""
    key = tokens.derived_key("idempotency-hash")
    hasher = hmac.new(key, f"{request.method} {request.full_path}\n".encode(), "sha256")
    hasher.update(request.get_data(cache=True))
    return hasher.hexdigest()


def _reserve(principal_id: str, key: str, digest: str) -> None:
    try:
        IdempotencyKey.insert(
            principal_id=principal_id,
            key=key,
            request_hash=digest,
            status=0,
            response="",
            created_at=now_ms(),
        ).execute()
    except IntegrityError:
        raise _KeyTaken from None


def _store(principal_id: str, key: str, document: dict[str, Any], *, secret: bool) -> None:
    text = json.dumps(document, separators=(",", ":"))
    IdempotencyKey.update(status=201, response=_seal(text) if secret else text).where(
        (IdempotencyKey.principal_id == principal_id) & (IdempotencyKey.key == key)
    ).execute()


def _replay(principal_id: str, key: str, digest: str, *, secret: bool) -> Created:
    row = IdempotencyKey.get(
        (IdempotencyKey.principal_id == principal_id) & (IdempotencyKey.key == key)
    )
    if row.request_hash != digest:
        raise BadInput(
            f"This {HEADER} was used before, with another request.",
            code="idempotency_key_reused",
            field=HEADER,
            hint="Take a new key for a new request.",
        )
    g.idempotency_replayed = True
    stored = row.response or ""
    text = _open(stored) if secret else stored
    return Created(document=json.loads(text), replayed=True)


def _fernet() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(tokens.derived_key("idempotency")))


def _seal(text: str) -> str:
    return _fernet().encrypt(text.encode()).decode("ascii")


def _open(sealed: str) -> str:
    return _fernet().decrypt(sealed.encode("ascii")).decode()
