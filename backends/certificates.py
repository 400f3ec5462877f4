"""A private certificate authority for one machine, and the pin of a certificate's public key."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airavata_scheduler.backends.private_files import write_whole

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825  # the longest that common TLS clients accept
_CLOCK_SKEW = datetime.timedelta(hours=1)


def public_key_pin(certificate_pem: bytes) -> str:
    """The base64 SHA-256 of the certificate's public key, as `curl --pinnedpubkey sha256//…` reads.

    Raises ValueError where `certificate_pem` holds no certificate.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def ensure_private_authority(folder: Path, names: list[str]) -> None:
    """Lay `ca.pem`, `server.pem` and `server.key` in `folder` unless they are there and fresh.

    `names` are host names and addresses of the server. The authority's key is never written: it
    signs one server certificate and is forgotten, so nobody can sign another with it.
    """
    certificate_file = folder / "server.pem"
    if certificate_file.is_file() and _covers(certificate_file.read_bytes(), names):
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("Airavata Scheduler on this machine")
    authority = (
        _certificate(authority_name, authority_name, authority_key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _certificate(_name(names[0]), authority_name, server_key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    write_whole(folder / "ca.pem", authority.public_bytes(serialization.Encoding.PEM), 0o644)
    write_whole(folder / "server.key", _private_pem(server_key), 0o600)
    # The certificate comes last: while it is missing the others are made anew.
    write_whole(certificate_file, server.public_bytes(serialization.Encoding.PEM), 0o644)


def _covers(certificate_pem: bytes, names: list[str]) -> bool:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return certificate.not_valid_after_utc > soon and all(
        _alternative(name) in extension.value for name in names
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
