"""Credentials for the tests, made once: keys, certificates of a small authority, kubeconfigs."""

from __future__ import annotations

import base64
import datetime
import functools
import ipaddress
from dataclasses import dataclass
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from airavata_scheduler.backends import credential_kinds as kinds

PASSPHRASE = "correct horse"
_KINDS_OF_KEYS = {
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "dsa": lambda: dsa.generate_private_key(1024),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed448": ed448.Ed448PrivateKey.generate,
}


@functools.cache
def key(kind: str) -> Any:
    """A key of this kind, the same for the whole run."""
    return _KINDS_OF_KEYS[kind]()


@functools.cache
def key_pem(kind: str, form: str = "PKCS8", passphrase: str = "") -> str:
    """A key's text; `form` is PKCS8, TraditionalOpenSSL or OpenSSH."""
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    found: bytes = key(kind).private_bytes(Encoding.PEM, getattr(PrivateFormat, form), encryption)
    return found.decode()


@functools.cache
def ssh_key() -> str:
    """A fresh ed25519 key in OpenSSH's form."""
    return kinds.generate("SSH_KEY").secret["private_key"]


@functools.cache
def locked_ssh_key() -> str:
    """An ed25519 key that PASSPHRASE opens."""
    return key_pem("p256", "OpenSSH", PASSPHRASE)


@dataclass(frozen=True)
class Authority:
    """A certificate authority; its certificate as PEM."""

    private: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def sign(self, public: Any, name: str, *sans: str, days: int = 30) -> str:
        """A certificate for a public key."""
        builder = _builder(name, self.certificate.subject, public, days)
        if sans:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_san(san) for san in sans]), critical=False
            )
        signed = builder.sign(self.private, hashes.SHA256())
        return signed.public_bytes(Encoding.PEM).decode()


def _san(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(name: str, issuer: x509.Name, public: Any, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


@functools.cache
def authority(name: str = "Test authority") -> Authority:
    """A private authority."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, subject, private.public_key(), 90)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    return Authority(private, certificate)


@functools.cache
def client_certificate(kind: str = "p256", days: int = 30) -> str:
    """A certificate for `key(kind)`."""
    return authority().sign(key(kind).public_key(), "jane", "jane.example.org", days=days)


def jwt(payload: str, header: str = '{"alg":"RS256"}') -> str:
    """A JWT with a signature that nobody made."""
    parts = (base64.urlsafe_b64encode(part.encode()).decode() for part in (header, payload))
    return ".".join(part.rstrip("=") for part in parts) + ".c2lnbmF0dXJl"


def data(text: str) -> str:
    """A text in base64, as in a kubeconfig."""
    return base64.b64encode(text.encode()).decode()


def kubeconfig(
    server: str = "https://k8s.example.org:6443",
    cluster: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
    current: str = "lab-jane",
    **changed: Any,
) -> str:
    """A kubeconfig of one context; what is given replaces or adds to its parts."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "jane", "user": user or {"token": "a-token-of-jane-1234567890"}}],
        "contexts": [{"name": "lab-jane", "context": {"cluster": "lab", "user": "jane"}}],
        "current-context": current,
        **changed,
    }
    return yaml.dump(
        {name: part for name, part in document.items() if part is not None}, Dumper=_Plain
    )


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice, as kubectl does."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
