"""An OpenID provider: discovery, the address to log in at, and who came back (OpenID Connect Core).

Everything that the provider says is checked: the issuer is the one that we were set up with, the
token is signed by RS256 or ES256 with one of its published keys, is meant for us, has not ended and
answers our own question (nonce). One seam, one provider a process.
"""

from __future__ import annotations

import hmac
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx
import jwt

from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import AiravataError, Unauthenticated, Unavailable

ALGORITHMS: Final = ["RS256", "ES256"]
_ANSWERS_WITHIN_S: Final = 5.0
_KEPT_FOR_S: Final = 600.0
_KEYS_AGAIN_AFTER_S: Final = 10.0
_LEEWAY_S: Final = 30
_MAX_BYTES: Final = 1_000_000
_REQUIRED: Final = ["iss", "sub", "aud", "exp", "iat", "nonce"]


class ProviderAway(Unavailable):
    """The OpenID provider cannot be reached, or does not answer like one."""

    code = "openid_unavailable"


class IdentityRefused(Unauthenticated):
    """What the OpenID provider said is not to be trusted."""

    code = "openid_refused"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who somebody is at the provider. `email` is empty unless the provider verified it."""

    issuer: str
    subject: str
    email: str = ""
    name: str = ""
    username: str = ""


class Provider:
    """The provider that the settings name. Threads may share it."""

    def __init__(self, config: Configuration) -> None:
        self.issuer = config.oidc_issuer.rstrip("/")
        self.client_id = config.oidc_client_id
        self._secret = config.oidc_client_secret
        self._scopes = config.oidc_scopes
        self._ca_file = str(config.oidc_ca_file) if config.oidc_ca_file else None
        self._lock = threading.Lock()
        self._document: tuple[float, dict[str, Any]] | None = None  # read at (monotonic), what
        self._keys: tuple[float, list[jwt.PyJWK]] | None = None

    def address(self, *, redirect: str, state: str, nonce: str, challenge: str) -> str:
        """Where the browser goes; `challenge` is of our PKCE verifier. Raises ProviderAway."""
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": redirect,
            "scope": self._scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def identity(self, code: str, *, redirect: str, verifier: str, nonce: str) -> Identity:
        """Exchange what the browser brought back; who it is.

        Raises ProviderAway, and IdentityRefused where the provider or we refuse it.
        """
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "client_id": self.client_id,
            "code_verifier": verifier,
        }
        answer = self._ask(self._endpoint("token_endpoint"), body)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise IdentityRefused("The OpenID provider gave no identity token.")
        return self._read(token, nonce)

    def _read(self, token: str, nonce: str) -> Identity:
        """Who an identity token names, after every check."""
        try:
            claims = jwt.decode(
                token,
                self._key_of(token),
                algorithms=ALGORITHMS,
                audience=self.client_id,
                issuer=self._discovered()["issuer"],
                leeway=_LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise IdentityRefused(
                f"The identity token is not valid: {type(error).__name__}.",
                hint="Try again; operators: see that the clocks of both servers agree.",
            ) from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self.client_id) != self.client_id:
            raise IdentityRefused("The identity token was made for another program.")
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise IdentityRefused("The identity token answers another login than this one.")
        return _identity(claims)

    def _key_of(self, token: str) -> jwt.PyJWK:
        """The provider's key that a token says it was signed with."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in ALGORITHMS:
            raise IdentityRefused("The identity token is not signed by RS256 or ES256.")
        wanted = header.get("kid")
        for fresh in (False, True):  # keys are rotated: an unknown one is looked up again
            fitting = [
                key
                for key in self._published(again=fresh)
                if key.algorithm_name == header["alg"] and wanted in (None, key.key_id)
            ]
            if len(fitting) == 1 or (fitting and wanted is not None):
                return fitting[0]
        raise IdentityRefused("The identity token is signed with a key that is not the provider's.")

    def _published(self, *, again: bool) -> list[jwt.PyJWK]:
        """The provider's signing keys, read every ten minutes, or `again` after ten seconds."""
        with self._lock:
            kept = self._keys
        kept_for_s = _KEYS_AGAIN_AFTER_S if again else _KEPT_FOR_S
        if kept is not None and time.monotonic() - kept[0] < kept_for_s:
            return kept[1]
        answer = self._ask(self._endpoint("jwks_uri"))
        keys = [key for entry in answer.get("keys") or [] if (key := _signing_key(entry))]
        with self._lock:
            self._keys = (time.monotonic(), keys)
        return keys

    def _discovered(self) -> dict[str, Any]:
        """The provider's discovery document, read every ten minutes."""
        with self._lock:
            kept = self._document
        if kept is not None and time.monotonic() - kept[0] < _KEPT_FOR_S:
            return kept[1]
        document = self._ask(f"{self.issuer}/.well-known/openid-configuration")
        if str(document.get("issuer", "")).rstrip("/") != self.issuer:
            raise ProviderAway(
                "The OpenID provider calls itself by another address than OIDC_ISSUER.",
                hint="Operators: set OIDC_ISSUER to what its discovery document says.",
            )
        with self._lock:
            self._document = (time.monotonic(), document)
        return document

    def _endpoint(self, name: str) -> str:
        """An address of the discovery document; never weaker than the issuer's own."""
        address = str(self._discovered().get(name, ""))
        allowed = ("https",) if self.issuer.startswith("https:") else ("https", "http")
        if urlsplit(address).scheme not in allowed:
            raise ProviderAway(f"The OpenID provider's {name} is no address that we may use.")
        return address

    def _ask(self, address: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        """The JSON object that an address answers; a POST where there is a body."""
        trust: ssl.SSLContext | bool = True
        if self._ca_file:
            trust = ssl.create_default_context(cafile=self._ca_file)
        try:
            with httpx.Client(verify=trust, timeout=_ANSWERS_WITHIN_S, trust_env=False) as client:
                answer = self._sent(client, address, body)
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            raise _away() from None
        if 400 <= answer.status_code < 500 and body is not None:
            raise IdentityRefused("The OpenID provider refused the login's code.")
        try:
            document = answer.json() if answer.status_code == 200 else None
        except ValueError:
            document = None
        if not isinstance(document, dict) or len(answer.content) > _MAX_BYTES:
            raise _away()
        return document

    def _sent(
        self, client: httpx.Client, address: str, body: dict[str, str] | None
    ) -> httpx.Response:
        if body is None:
            return client.get(address)
        methods = self._discovered().get("token_endpoint_auth_methods_supported")
        if not self._secret:
            return client.post(address, data=body)
        if methods and "client_secret_basic" not in methods:
            return client.post(address, data={**body, "client_secret": self._secret})
        return client.post(address, data=body, auth=(self.client_id, self._secret))


def _identity(claims: dict[str, Any]) -> Identity:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
        raise IdentityRefused("The identity token names nobody.")
    email = claims.get("email") if claims.get("email_verified") is True else ""
    return Identity(
        issuer=str(claims["iss"]),
        subject=subject,
        email=_line(email, 320),
        name=_line(claims.get("name"), 255),
        username=_line(claims.get("preferred_username"), 255),
    )


def _line(value: object, most: int) -> str:
    """A text of the provider's as we keep it: one printable line, not too long."""
    text = value if isinstance(value, str) else ""
    return "".join(sign for sign in text if sign.isprintable())[:most]


def _signing_key(entry: object) -> jwt.PyJWK | None:
    """A published key that identity tokens may be signed with, else None."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def _away() -> AiravataError:
    return ProviderAway(hint="Try again in a moment, or log in with a password.", retry_after_s=5.0)


_here: list[Provider] = []


def configure(config: Configuration) -> None:
    """Set the provider of this process; nothing is asked yet."""
    _here[:] = [Provider(config)] if config.oidc_issuer else []


def provider() -> Provider | None:
    """The provider of this process, None where there is none."""
    return _here[0] if _here else None
