"""Client certificates in PEM: read, matched with their private key, described, and used for TLS."""

from __future__ import annotations

import hashlib
import secrets
import ssl
import tempfile
import warnings
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from airavata_scheduler.backends.credential_fields import invalid, printable
from airavata_scheduler.backends.private_keys import MIN_RSA_BITS, PrivateKey, type_and_bits

MAX_CHAIN = 10
MAX_NAMES = 100


def read_chain(name: str, text: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, the client's own first. Raises BadInput."""
    if "PRIVATE KEY-----" in text:
        hint = "Put the private key into the field private_key; the chain may stay."
        raise invalid(name, "holds a private key", hint)
    if "-----BEGIN CERTIFICATE-----" not in text:
        hint = "It begins with a line -----BEGIN CERTIFICATE-----; send the whole file."
        raise invalid(name, "is no certificate in PEM", hint)
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
        for certificate in chain:
            described(certificate)  # parts of a certificate are read only when they are asked for
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        hint = "Send the file unchanged; openssl x509 -in FILE -noout -text shows what is in it."
        raise invalid(name, "is damaged and cannot be read", hint) from None
    if len(chain) > MAX_CHAIN:
        hint = "Send the client's certificate and those between it and the authority."
        raise invalid(name, f"holds more than {MAX_CHAIN} certificates", hint)
    return chain


def must_match(name: str, certificate: x509.Certificate, key: PrivateKey) -> None:
    """Raise BadInput unless the certificate is that of the key, and strong."""
    public = certificate.public_key()
    if not isinstance(
        public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    ) or _spki(public) != _spki(key.public_key()):
        hint = "Send the certificate that was made for this key; it must be the first in the file."
        raise invalid(name, "is not the certificate of this private key", hint)
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        fault = f"has an RSA key of fewer than {MIN_RSA_BITS} bits"
        raise invalid(name, fault, "Ask for a new certificate.", "key_weak")


def _spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def described(certificate: x509.Certificate) -> dict[str, Any]:
    """What may be shown: subject, issuer, names, times (ms since 1970), serial, fingerprint."""
    facts: dict[str, Any] = {
        "subject": printable(certificate.subject.rfc4514_string()),
        "issuer": printable(certificate.issuer.rfc4514_string()),
        "san": _alternative_names(certificate),
        "not_before": int(certificate.not_valid_before_utc.timestamp() * 1000),
        "not_after": int(certificate.not_valid_after_utc.timestamp() * 1000),
        "serial": _serial(certificate),
        "fingerprint": certificate_fingerprint(certificate.public_bytes(Encoding.DER)),
    }
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        facts["key_type"], facts["bits"] = type_and_bits(key)
    return facts


def _serial(certificate: x509.Certificate) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # serial 0 is shown like any other
        return f"{certificate.serial_number:x}"


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    shown = (printable(str(getattr(name, "value", name))) for name in extension.value)
    return list(shown)[:MAX_NAMES]


def certificate_fingerprint(der: bytes) -> str:
    """`sha256:` and the SHA-256 of the whole certificate in hex."""
    return "sha256:" + hashlib.sha256(der).hexdigest()


def check_authority(name: str, text: str) -> None:
    """Raise BadInput unless the text holds certificates that TLS can trust."""
    read_chain(name, text)
    try:
        trust(text)
    except ssl.SSLError:
        hint = "Send the certificate of the authority that signed the server's."
        raise invalid(name, "cannot be used as an authority", hint) from None


def trust(authority: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer that verifies the server by `authority` (PEM), or by the system's."""
    context = ssl.create_default_context(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def show_certificate(context: ssl.SSLContext, chain: str, key: PrivateKey) -> None:
    """Let the context show a client certificate.

    OpenSSL's binding in Python reads keys from files only. The file that it gets is encrypted with
    a passphrase that is nowhere but in this function, and gone at once.
    """
    passphrase = secrets.token_hex(32)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode())
    )
    with tempfile.TemporaryDirectory(prefix="airavata-") as folder:
        path = Path(folder) / "client.pem"
        path.write_bytes(chain.encode() + locked)
        context.load_cert_chain(path, password=passphrase)


def of_key(name: str, chain: str, key: PrivateKey) -> dict[str, Any]:
    """The facts of the client certificate in field `name`. Raises BadInput unless it is `key`'s."""
    first = read_chain(name, chain)[0]
    must_match(name, first, key)
    return described(first)
