"""A small OpenID provider: a real HTTP server with keys of its own, in this process.

It logs in whoever `person` is, checks what a good provider checks (redirect, client, PKCE), and
lies where a test asks for it: `claims` are put over the true ones, `sign` replaces the signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

CLIENT_ID = "airavata"
CLIENT_SECRET = "a secret: of the client"
Signer = Callable[["OpenIDProvider", dict[str, Any]], str]


def base64url(data: bytes) -> str:
    """Without padding, as tokens have it."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def signed(provider: OpenIDProvider, claims: dict[str, Any]) -> str:
    """A token as a good provider signs it."""
    return jwt.encode(claims, provider.key, algorithm="RS256", headers={"kid": provider.key_id})


def signed_by_curve(provider: OpenIDProvider, claims: dict[str, Any]) -> str:
    """ES256, the other algorithm that we take."""
    return jwt.encode(claims, provider.curve, algorithm="ES256", headers={"kid": "ec"})


def unsigned(_: OpenIDProvider, claims: dict[str, Any]) -> str:
    """The algorithm `none`."""
    head = {"alg": "none", "typ": "JWT", "kid": "rsa"}
    return ".".join([*(base64url(json.dumps(part).encode()) for part in (head, claims)), ""])


def signed_with_the_public_key(provider: OpenIDProvider, claims: dict[str, Any]) -> str:
    """HS256 with the bytes of the public key, which everybody has."""
    pem = provider.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}
    text = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims))
    return f"{text}.{base64url(hmac.digest(pem, text.encode(), 'sha256'))}"


def signed_by_a_stranger(_: OpenIDProvider, claims: dict[str, Any]) -> str:
    """RS256 with a key that the provider never published, under the name of one that it did."""
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": "rsa"})


@dataclass
class OpenIDProvider:
    """A provider at a free port of the loopback; `issuer` is its address."""

    person: dict[str, Any] = field(default_factory=dict)  # the claims of who is logged in
    claims: dict[str, Any] = field(default_factory=dict)  # put over what is true
    sign: Signer = signed
    denies: bool = False
    key_id: str = "rsa"
    key: rsa.RSAPrivateKey = field(init=False)
    curve: ec.EllipticCurvePrivateKey = field(init=False)
    asked: list[str] = field(default_factory=list)  # paths, in their order

    def __post_init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.curve = ec.generate_private_key(ec.SECP256R1())
        self._logins: dict[str, dict[str, str]] = {}
        self._server: Any = None
        self.port = 0

    @property
    def issuer(self) -> str:
        """Its OIDC_ISSUER."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings by which the scheduler reaches it."""
        return {
            "OIDC_ISSUER": self.issuer,
            "OIDC_CLIENT_ID": CLIENT_ID,
            "OIDC_CLIENT_SECRET": CLIENT_SECRET,
        }

    def start(self) -> None:
        """Listen; the second time on the same port."""
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self.port = self._server.server_port
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        """Be away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key_id = secrets.token_hex(4)

    def become(self, subject: str, **claims: Any) -> None:
        """Whoever comes next is this person."""
        self.person = {"sub": subject, **claims}

    def _answer(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        self.asked.append(request.path)
        views: dict[str, Callable[[Request], Response]] = {
            "/.well-known/openid-configuration": self._discovery,
            "/authorize": self._authorize,
            "/token": self._token,
            "/keys": self._keys,
        }
        view = views.get(request.path)
        answer = view(request) if view else Response("no such page", status=404)
        return answer(environ, start_response)

    def _discovery(self, _: Request) -> Response:
        return _json(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        )

    def _authorize(self, request: Request) -> Response:
        """The person agrees (or not) without being asked; back to the redirect."""
        asked = request.args.to_dict()
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        back = {"state": asked["state"], "iss": self.issuer}
        if self.denies:
            back["error"] = "access_denied"
        else:
            back["code"] = secrets.token_urlsafe(16)
            self._logins[back["code"]] = asked
        return Response(
            status=302, headers={"Location": f"{asked['redirect_uri']}?{urlencode(back)}"}
        )

    def _token(self, request: Request) -> Response:
        form = request.form
        login = self._logins.pop(form["code"], None)
        known = request.authorization
        if known is None or (known.username, known.password) != (CLIENT_ID, CLIENT_SECRET):
            return _json({"error": "invalid_client"}, 401)
        challenge = base64url(hashlib.sha256(form["code_verifier"].encode()).digest())
        if (
            login is None
            or login["code_challenge"] != challenge
            or login["redirect_uri"] != form["redirect_uri"]
        ):
            return _json({"error": "invalid_grant"}, 400)
        now = int(time.time())
        true = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": login["nonce"],
            **self.person,
        }
        claims = {name: value for name, value in (true | self.claims).items() if value is not None}
        return _json({"token_type": "Bearer", "id_token": self.sign(self, claims)})

    def _keys(self, _: Request) -> Response:
        own = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        curve = ECAlgorithm.to_jwk(self.curve.public_key(), as_dict=True)
        return _json(
            {
                "keys": [
                    {**own, "kid": self.key_id, "use": "sig", "alg": "RS256"},
                    {**curve, "kid": "ec", "use": "sig", "alg": "ES256"},
                    {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"},
                    {"kty": "unheard-of"},
                ]
            }
        )


@contextmanager
def openid_provider() -> Iterator[OpenIDProvider]:
    """A provider for the block."""
    provider = OpenIDProvider()
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status=status, mimetype="application/json")
