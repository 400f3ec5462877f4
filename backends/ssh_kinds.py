"""SSH_KEY and SSH_CERTIFICATE: a key that is kept, and a right to short-lived ones that is not.

An SSH_CERTIFICATE's value has no key. At each use `issue` makes a fresh pair, has the public one
signed for some minutes, and looks at what came back before anybody relies on it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from airavata_scheduler.backends.credential_fields import Field, Kind, Value, checked, invalid
from airavata_scheduler.backends.private_keys import (
    PrivateKey,
    PublicKey,
    read_private_key,
    type_and_bits,
)
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.errors import Unavailable
from airavata_scheduler.models.setting_values import parse_duration

MAX_TTL_S = 15 * 60
MIN_TTL_S = 30
DEFAULT_TTL = "5m"
CLOCK_SKEW_S = 120
_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,254}")
_ROLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

# (role, public key line, principal, seconds) → the certificate as a line of text.
Signer = Callable[[str, str, str, int], str]


class SignerAnswered(Unavailable):
    """The signer's answer is no certificate for this key, user and time; its operator must look."""

    code = "ssh_certificate_wrong"


def login_name(name: str, text: str) -> str:
    """The text of a field that is an account's name on an SSH server."""
    if not _LOGIN.fullmatch(text):
        hint = "Letters, digits and . _ @ - without a leading - or ., as in jane or jane@lab."
        raise invalid(name, "is no account name", hint)
    return text


class SSHKey(Kind):
    """A private SSH key whose public part is in the account's authorized_keys on the server."""

    name = "SSH_KEY"
    opens = frozenset({"SLURM", "BARE_METAL", "SFTP"})
    schemes = ("ssh",)
    fields = (
        Field(
            name="private_key",
            meaning="the private key: OpenSSH, PKCS#8 or PEM.",
            secret=True,
            lines=True,
        ),
        Field(
            name="passphrase",
            meaning="the passphrase, where the key is encrypted.",
            secret=True,
            required=False,
        ),
        Field(name="username", meaning="the account on the server.", required=False),
    )

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value with the public key derived. Raises BadInput."""
        clean = checked(cls.fields, value)
        passphrase = clean.get("passphrase")
        key = read_private_key("private_key", clean["private_key"], passphrase)
        public = {**public_key_facts(key.public_key()), "encrypted": passphrase is not None}
        if "username" in clean:
            public["username"] = login_name("username", clean["username"])
        return Value(secret=clean, public=public)


class SSHCertificateRole(Kind):
    """No key at all: for each use the secret store signs a fresh one, good for some minutes."""

    name = "SSH_CERTIFICATE"
    opens = frozenset({"SLURM", "BARE_METAL", "SFTP"})
    schemes = ("ssh",)
    fields = (
        Field(name="role", meaning="the role of the SSH engine that signs."),
        Field(name="principal", meaning="the account that the certificate opens."),
        Field(
            name="ttl",
            meaning="the life of each certificate, 30s to 15m; 5m without it.",
            required=False,
        ),
    )

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value; all of it is public. Raises BadInput."""
        clean = checked(cls.fields, value)
        if not _ROLE.fullmatch(clean["role"]):
            hint = "Letters, digits and . _ - as in the SSH engine's list of roles."
            raise invalid("role", "is no name of a role", hint)
        login_name("principal", clean["principal"])
        clean["ttl"] = clean.get("ttl") or DEFAULT_TTL
        return Value(secret=clean, public={**clean, "ttl_s": ttl_s(clean["ttl"])})


def ttl_s(text: str) -> int:
    """The seconds of a certificate's life. Raises BadInput."""
    hint = "Write a duration from 30s to 15m, such as 5m."
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise invalid("ttl", "is no duration", hint) from None
    if not MIN_TTL_S <= seconds <= MAX_TTL_S:
        raise invalid("ttl", "is shorter than 30 s or longer than 15 minutes", hint)
    return int(seconds)


def public_key_line(key: PublicKey) -> str:
    """The public key as authorized_keys has it, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def fingerprint(blob: bytes) -> str:
    """`SHA256:…` of a public key's wire form, as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_key_facts(key: PublicKey) -> dict[str, Any]:
    """What may be shown of a key: its public line, fingerprint, type and bits."""
    line = public_key_line(key)
    kind, blob = line.split()
    return {
        "public_key": line,
        "fingerprint": fingerprint(base64.b64decode(blob)),
        "key_type": kind,
        "bits": type_and_bits(key)[1],
    }


_ALGORITHMS: dict[str, Callable[[], PrivateKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
}


def generate_ssh_key(algorithm: str = "ed25519", username: str = "") -> Value:
    """A new SSH_KEY: `ed25519`, `ecdsa-p256` or `rsa-3072`. Raises BadInput."""
    make = _ALGORITHMS.get(algorithm)
    if make is None:
        hint = f"Choose one of {', '.join(_ALGORITHMS)}."
        raise invalid("algorithm", "is none that keys are made of", hint)
    return SSHKey.read({"private_key": _openssh(make()), "username": username})


def _openssh(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@dataclass(frozen=True, kw_only=True)
class IssuedKey:
    """A key pair for minutes: OpenSSH texts; `valid_until` is in milliseconds since 1970."""

    private_key: str = field(repr=False)
    certificate: str
    principal: str
    valid_until: int


def issue(value: Value | Mapping[str, str], sign: Signer) -> IssuedKey:
    """A fresh ed25519 key with a certificate of the value's role, principal and life.

    `sign` asks the authority; its errors pass through. Raises SignerAnswered where the certificate
    is not exactly what was asked for.
    """
    secret = value.secret if isinstance(value, Value) else value
    seconds = ttl_s(secret.get("ttl") or DEFAULT_TTL)
    key = ed25519.Ed25519PrivateKey.generate()
    line = public_key_line(key.public_key())
    text = sign(secret["role"], line, secret["principal"], seconds).strip()
    valid_until = _certified(text, key.public_key(), secret["principal"], seconds)
    return IssuedKey(
        private_key=_openssh(key),
        certificate=text,
        principal=secret["principal"],
        valid_until=valid_until,
    )


def _certified(text: str, key: ed25519.Ed25519PublicKey, principal: str, seconds: int) -> int:
    """Until when the certificate holds, in ms; raises SignerAnswered with what is wrong."""
    try:
        found = load_ssh_public_identity(text.encode())
    except ValueError:
        raise SignerAnswered from None
    now_s = now_ms() // 1000
    if not isinstance(found, SSHCertificate) or found.type is not SSHCertificateType.USER:
        raise SignerAnswered("The signer answered with something that is no user certificate.")
    if public_key_line(found.public_key()) != public_key_line(key):
        raise SignerAnswered("The signer's certificate is for another key.")
    if list(found.valid_principals) != [principal.encode()]:
        raise SignerAnswered(
            "The signer's certificate is not for this account alone.",
            hint="Look at the role's allowed_users and default_user in OpenBao.",
        )
    if not now_s < found.valid_before <= now_s + seconds + CLOCK_SKEW_S:
        raise SignerAnswered(
            "The signer's certificate has ended, or lives longer than was asked for.",
            hint="Look at the role's ttl and max_ttl, and at the clocks of both machines.",
        )
    return int(found.valid_before) * 1000
