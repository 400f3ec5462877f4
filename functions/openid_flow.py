"""One login by an OpenID provider, from its start to the command's tokens.

The user's browser carries a random `state` to the provider and back; what else the flow needs (the
nonce and our PKCE verifier) is derived from it by HMAC, so no secret is stored. What comes back is
sealed into a one-time code for the command's own loopback address. Only who holds the verifier of
the command's challenge can use it, within a minute, once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from cryptography.fernet import Fernet, InvalidToken

from airavata_scheduler.backends import openid
from airavata_scheduler.backends.openid import Identity, Provider
from airavata_scheduler.functions import tokens
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.errors import BadInput, Gone, NotFound
from airavata_scheduler.models.ids import new_secret, secret_digest
from airavata_scheduler.models.tables import LoginFlow

FLOW_LIFE_MS: Final = 600_000
CODE_LIFE_MS: Final = 60_000
CALLBACK: Final = "/api/v1/auth/oidc/callback"

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # S256, base64url
_MAX_REDIRECT_CHARS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What a command gets for its code: who came back, and for whom the flow was begun."""

    identity: Identity
    user_id: str | None  # who links an identity to their account; None: somebody who logs in


def provider() -> Provider:
    """The OpenID provider of this server. Raises NotFound where there is none."""
    found = openid.provider()
    if found is None:
        raise NotFound(
            "This server knows no OpenID provider.",
            code="openid_off",
            hint="Log in with a password; operators: set OIDC_ISSUER and OIDC_CLIENT_ID.",
        )
    return found


def begin(redirect: str, challenge: str, *, user_id: str | None = None) -> str:
    """Begin a flow; the provider's address for the browser.

    Raises BadInput for a redirect that is not the user's own machine, and Unavailable.
    """
    found = provider()
    _check_redirect(redirect)
    if not _CHALLENGE.fullmatch(challenge):
        raise BadInput(
            "The challenge must be a SHA-256 in base64url, without padding.",
            code="invalid_challenge",
            field="challenge",
        )
    state = new_secret("aof_")
    address = found.address(
        redirect=callback_address(),
        state=state,
        nonce=_derived("nonce", state),
        challenge=challenge_of(_derived("verifier", state)),
    )
    now = now_ms()
    LoginFlow.insert(
        state_hash=secret_digest(state),
        redirect=redirect,
        challenge=challenge,
        user_id=user_id,
        created_at=now,
        expires_at=now + FLOW_LIFE_MS,
    ).execute()
    return address


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A flow whose browser came back: nobody can come back with the same state again."""

    state: str
    secret: str  # the first part of the command's code
    redirect: str
    user_id: str | None

    def identity(self, code: str) -> Identity:
        """Who logged in at the provider. Raises as `Provider.identity`."""
        return provider().identity(
            code,
            redirect=callback_address(),
            verifier=_derived("verifier", self.state),
            nonce=_derived("nonce", self.state),
        )

    def success(self, identity: Identity) -> str:
        """The command's address, with its one-time code."""
        state_hash = secret_digest(self.state)
        LoginFlow.update(expires_at=now_ms() + CODE_LIFE_MS).where(
            LoginFlow.state_hash == state_hash
        ).execute()
        text = json.dumps({"flow": state_hash, **asdict(identity)})
        sealed = _fernet().encrypt(text.encode()).decode("ascii")
        return _with_query(self.redirect, code=f"{self.secret}.{sealed}")

    def failure(self, code: str, sentence: str) -> str:
        """The command's address, with what went wrong; the flow is over."""
        LoginFlow.update(used_at=now_ms()).where(
            LoginFlow.state_hash == secret_digest(self.state)
        ).execute()
        return _with_query(self.redirect, error=code, error_description=sentence)


def claim(state: str) -> Claimed:
    """The flow of a state that comes back for the first time. Raises Gone."""
    secret, state_hash = new_secret("aoc_"), secret_digest(state)
    claimed = (
        LoginFlow.update(code_hash=secret_digest(secret))
        .where(
            (LoginFlow.state_hash == state_hash)
            & LoginFlow.code_hash.is_null()
            & LoginFlow.used_at.is_null()
            & (LoginFlow.expires_at > now_ms())
        )
        .execute()
    )
    if not claimed:
        raise _ended()
    row = LoginFlow.get_by_id(state_hash)
    return Claimed(state=state, secret=secret, redirect=row.redirect, user_id=row.user_id)


def finish(code: str, verifier: str) -> Returned:
    """Use up a command's code. Raises Gone: wrong, used, a minute old, another's verifier."""
    secret, _, sealed = code.partition(".")
    code_hash = secret_digest(secret)
    used = (
        LoginFlow.update(used_at=now_ms())
        .where(
            (LoginFlow.code_hash == code_hash)
            & LoginFlow.used_at.is_null()
            & (LoginFlow.expires_at > now_ms())
        )
        .execute()
    )
    row = LoginFlow.get_or_none(LoginFlow.code_hash == code_hash) if used else None
    if row is None or not hmac.compare_digest(challenge_of(verifier), row.challenge):
        raise _ended()
    said = _opened(sealed)
    if said.pop("flow", None) != row.state_hash:
        raise _ended()
    return Returned(identity=Identity(**said), user_id=row.user_id)


def callback_address() -> str:
    """The address that the provider sends browsers back to; registered there by the operator."""
    return tokens.configuration().public_url.rstrip("/") + CALLBACK


def challenge_of(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier (RFC 7636)."""
    return _base64url(hashlib.sha256(verifier.encode(errors="replace")).digest())


def _check_redirect(redirect: str) -> None:
    """Raise BadInput unless it is an address of the user's own machine: our code goes nowhere else.

    By host name, not by prefix: `http://127.0.0.1@evil.example/` is evil's.
    """
    try:
        parts = urlsplit(redirect)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = re.fullmatch(r"[!-~]+", redirect) and "\\" not in redirect
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK and port is not None
    bare = parts.username is None and parts.password is None and not parts.fragment
    if not (plain and local and bare and len(redirect) <= _MAX_REDIRECT_CHARS):
        raise BadInput(
            "The redirect must be http://127.0.0.1:PORT/…: a program on the user's own machine.",
            code="invalid_redirect",
            field="redirect",
        )


def _derived(purpose: str, state: str) -> str:
    key = tokens.derived_key(f"openid-{purpose}")
    return _base64url(hmac.digest(key, state.encode(errors="replace"), "sha256"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _fernet() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(tokens.derived_key("openid-code")))


def _opened(sealed: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_fernet().decrypt(sealed.encode(errors="replace")))
    except (InvalidToken, ValueError):
        raise _ended() from None
    return found


def _with_query(address: str, **values: str) -> str:
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(values)}"


def _ended() -> Gone:
    return Gone(
        "This login at the OpenID provider is unknown, has ended, or was used already.",
        code="login_flow_ended",
        hint="Begin again: airavata auth login --oidc",
    )
